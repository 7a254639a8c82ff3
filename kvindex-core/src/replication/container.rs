//! A shard's snapshot as bytes: what is sent to a node that is too far behind, and what a node starts from.
//!
//! Layout, little-endian: `KVXSHARD`, version (u16), shard (u16), length of the head (u32), the head in msgpack
//! (last applied position, membership), count of pieces (u32), then each piece as length before (u32) and after
//! (u32) compression with LZ4 and the bytes, and XXH3-64 of all before it (u64).

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::ids::ShardId;
use super::raft::SnapshotMeta;
use super::wire::{WirePosition, WireStoredMembership};

const MAGIC: &[u8; 8] = b"KVXSHARD";
const VERSION: u16 = 1;
/// The largest piece: what a damaged length may make a reader allocate.
const MAX_PIECE: usize = 1 << 30;

/// Why bytes are no snapshot of a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// Not ours at all.
    #[error("it is no snapshot of a shard")]
    Foreign,
    /// Of a newer program.
    #[error("it is of version {0}, this program reads up to {VERSION}: upgrade this node first")]
    Version(u16),
    /// Another shard's.
    #[error("it is of {0}")]
    OtherShard(ShardId),
    /// Cut short or changed since it was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Head(Option<WirePosition>, WireStoredMembership);

/// Puts a snapshot together, piece by piece.
pub(crate) struct Packer {
    bytes: Vec<u8>,
    count_at: usize,
    count: u32,
}

impl Packer {
    pub(crate) fn new(shard: ShardId, meta: &SnapshotMeta) -> Self {
        let head = Head(meta.last_log_id.map(Into::into), (&meta.last_membership).into());
        let head = rmp_serde::to_vec(&head).unwrap_or_default();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&shard.0.to_le_bytes());
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head);
        let count_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Self { bytes, count_at, count: 0 }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        let packed = lz4_flex::block::compress(piece);
        self.bytes.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&packed);
        self.count += 1;
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.bytes[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
        let digest = xxh3_64(&self.bytes);
        self.bytes.extend_from_slice(&digest.to_le_bytes());
        self.bytes.into()
    }
}

/// What a snapshot says of itself, and its pieces.
///
/// # Errors
/// When it is none, of a newer version, another shard's, or damaged.
pub(crate) fn unpack(shard: ShardId, bytes: &Bytes) -> Result<(SnapshotMeta, Vec<Bytes>), ContainerError> {
    let damaged = ContainerError::Damaged;
    let start = bytes.first_chunk::<12>().ok_or(ContainerError::Foreign)?;
    if !start.starts_with(MAGIC) {
        return Err(ContainerError::Foreign);
    }
    let version = u16::from_le_bytes([start[8], start[9]]);
    if version != VERSION {
        return Err(ContainerError::Version(version));
    }
    let (content, digest) = bytes.split_last_chunk::<8>().ok_or(damaged("too short"))?;
    if u64::from_le_bytes(*digest) != xxh3_64(content) {
        return Err(damaged("its checksum does not agree"));
    }
    let of = ShardId(u16::from_le_bytes([start[10], start[11]]));
    if of != shard {
        return Err(ContainerError::OtherShard(of));
    }
    let mut rest = &content[12..];
    let head = take(&mut rest).and_then(|len| cut(&mut rest, len)).ok_or(damaged("its head is cut off"))?;
    let Head(last, membership) =
        rmp_serde::from_slice(head).map_err(|_| damaged("its head cannot be read"))?;
    let count = take(&mut rest).ok_or(damaged("too short"))?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        let size =
            take(&mut rest).filter(|size| *size <= MAX_PIECE).ok_or(damaged("a piece is too large"))?;
        let packed =
            take(&mut rest).and_then(|len| cut(&mut rest, len)).ok_or(damaged("a piece is cut off"))?;
        let piece = lz4_flex::block::decompress(packed, size);
        pieces.push(piece.map_err(|_| damaged("a piece cannot be decompressed"))?.into());
    }
    if !rest.is_empty() {
        return Err(damaged("it goes on behind its end"));
    }
    let meta = SnapshotMeta { last_log_id: last.map(Into::into), last_membership: membership.into() };
    Ok((meta, pieces))
}

fn take(rest: &mut &[u8]) -> Option<usize> {
    (rest.len() >= 4).then(|| rest.get_u32_le() as usize)
}

fn cut<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(part)
}
