//! The envelope of what is kept as a file or sent to other nodes: magic, version (u16 LE), 6 zero bytes, length of the
//! body (u64 LE), body, XXH3-64 of all before it (u64 LE). So foreign, newer, short and changed bytes are told apart
//! before anything is read of them.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::SnapshotError;

const HEADER: usize = 24;

/// One kind of sealed bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal {
    pub(super) magic: &'static [u8; 8],
    /// The version that is written; this and older ones are read.
    pub(super) version: u16,
}

impl Seal {
    /// A body as msgpack, structs as arrays, in its envelope.
    pub(super) fn close(self, body: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.resize(HEADER, 0);
        // Writing to memory does not fail, and what is written has no keys that are not text.
        let _ = rmp_serde::encode::write(&mut bytes, body);
        let length = ((bytes.len() - HEADER) as u64).to_le_bytes();
        bytes[HEADER - 8..HEADER].copy_from_slice(&length);
        let digest = xxh3_64(&bytes);
        bytes.extend_from_slice(&digest.to_le_bytes());
        bytes
    }

    /// The version of sealed bytes, and their body.
    pub(super) fn open(self, bytes: &[u8]) -> Result<(u16, &[u8]), SnapshotError> {
        let damaged = |what: &str| SnapshotError::Damaged(what.to_owned());
        let header = bytes.first_chunk::<HEADER>().ok_or(SnapshotError::NotASnapshot)?;
        if !header.starts_with(self.magic) {
            return Err(SnapshotError::NotASnapshot);
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if !(1..=self.version).contains(&version) {
            return Err(SnapshotError::Version { found: version, newest: self.version });
        }
        let (content, digest) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("too short"))?;
        let body = content.get(HEADER..).ok_or_else(|| damaged("too short"))?;
        let length = header.last_chunk::<8>().map(|len| u64::from_le_bytes(*len));
        if length != Some(body.len() as u64) {
            return Err(damaged("length does not agree"));
        }
        if u64::from_le_bytes(*digest) != xxh3_64(content) {
            return Err(damaged("checksum does not agree"));
        }
        Ok((version, body))
    }
}
