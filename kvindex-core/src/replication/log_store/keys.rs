//! Keys of entries and marks in an ordered store: a shard's marks, then its entries in order of their indexes.

use super::super::ids::ShardId;
use super::backend::Mark;

const MARK: u8 = 0;
const ENTRY: u8 = 1;

/// Key of an entry. Big-endian, so that the store's order is the log's.
pub(super) fn entry(shard: ShardId, index: u64) -> [u8; 11] {
    let mut key = [ENTRY; 11];
    key[..2].copy_from_slice(&shard.0.to_be_bytes());
    key[3..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Key of a mark.
pub(super) fn mark(shard: ShardId, mark: Mark) -> [u8; 4] {
    let [high, low] = shard.0.to_be_bytes();
    [high, low, MARK, mark.byte()]
}

/// The index in an entry's key.
pub(super) fn index(key: &[u8]) -> Option<u64> {
    let (head, index) = key.split_at_checked(3)?;
    if head.get(2) != Some(&ENTRY) {
        return None;
    }
    Some(u64::from_be_bytes(index.try_into().ok()?))
}
