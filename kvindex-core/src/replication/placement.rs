//! Which shard a worker belongs to: rendezvous hashing with a key of its own, so that neither block hashes nor a
//! router's choice of replica, nor another layer's sharding, ever line up with it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ids::ShardId;
use crate::ids::WorkerId;

/// Only ever for this purpose. Part of a cluster's data: it never changes.
const SEED: u64 = 0x6b76_696e_6465_7831;

/// The shard of `worker` among `shards`: the one with the highest hash of (worker, shard).
///
/// ```
/// use kvindex_core::{WorkerId, replication::{ShardId, shard_of}};
/// let worker = WorkerId::new("vllm-0")?;
/// assert_eq!(shard_of(&worker, 1), ShardId(0));
/// assert_eq!(shard_of(&worker, 8), shard_of(&worker, 8));
/// # Ok::<(), kvindex_core::NameError>(())
/// ```
#[must_use]
pub fn shard_of(worker: &WorkerId, shards: u16) -> ShardId {
    let base = xxh3_64_with_seed(worker.as_str().as_bytes(), SEED);
    let weight = |shard: u16| xxh3_64_with_seed(&shard.to_le_bytes(), base);
    ShardId((0..shards).max_by_key(|shard| weight(*shard)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn workers_spread_evenly_and_stay_where_they_are() {
        let mut counts = [0u32; 8];
        for n in 0..8000 {
            let worker = WorkerId::new(format!("vllm-{n}")).unwrap();
            counts[usize::from(shard_of(&worker, 8).0)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        // Golden: a cluster's data rests on it.
        let golden: Vec<u16> =
            (0..8).map(|n| shard_of(&WorkerId::new(format!("vllm-{n}")).unwrap(), 8).0).collect();
        assert_eq!(golden, GOLDEN);
    }

    const GOLDEN: [u16; 8] = [4, 7, 7, 1, 1, 7, 1, 5];
}
