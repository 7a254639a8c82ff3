//! Stores to test, and the entries that are put there.

use bytes::Bytes;
use kvindex_core::replication::ShardId;
use kvindex_core::replication::log_store::{
    BackendKind, Change, Durability, FjallBackend, LogBackend, LogError, SledBackend,
};
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The engines that keep files.
pub(crate) const ON_DISK: [BackendKind; 2] = [BackendKind::Fjall, BackendKind::Sled];

pub(crate) fn open(
    kind: BackendKind,
    folder: &Path,
    durability: Durability,
) -> Result<Arc<dyn LogBackend>, LogError> {
    Ok(match kind {
        BackendKind::Fjall => Arc::new(FjallBackend::open(folder, durability)?),
        BackendKind::Sled => Arc::new(SledBackend::open(folder, durability)?),
        BackendKind::Memory => unreachable!("keeps no files"),
    })
}

/// The one entry that belongs at an index: bytes that do not compress, and tell one entry from another.
pub(crate) fn record(shard: ShardId, index: u64, bytes: usize) -> Bytes {
    let mut state = xxh3_64(&[&shard.0.to_le_bytes()[..], &index.to_le_bytes()].concat()) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

pub(crate) fn append(shard: ShardId, index: u64, bytes: usize) -> Change {
    Change::Append { shard, index, record: record(shard, index, bytes) }
}

/// How many entries a shard's log has from index 0 on; they must be whole and without holes.
pub(crate) async fn checked_length(
    backend: &dyn LogBackend,
    shard: ShardId,
    bytes: usize,
) -> Result<u64, String> {
    let stored = backend.shard(shard).await.map_err(|error| error.to_string())?;
    let Some(last) = stored.last else {
        return Ok(0);
    };
    let found = backend.read(shard, 0, last, usize::MAX).await.map_err(|error| error.to_string())?;
    for (expected, (index, found)) in (0..).zip(&found) {
        if expected != *index {
            return Err(format!("{shard}: entry {expected} is missing before {index}"));
        }
        if *found != record(shard, *index, bytes) {
            return Err(format!("{shard}: entry {index} is another one"));
        }
    }
    Ok(found.len() as u64)
}
