//! From workers to instances. Other indexers register each data-parallel rank by itself and answer by instance; here
//! such a rank is a worker with a label, and answers are put together by it.

use kvindex_proto::v1;
use std::collections::BTreeMap;

use super::instances::{BLOCK_SIZE, rank_in};

/// Label that holds a worker's instance.
pub(super) const INSTANCE: &str = "kvindex.io/instance";

/// What one rank of an instance holds of a prompt, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rank {
    /// The longest prefix.
    pub(super) matched: u64,
    /// Of it what lies on each medium, wherever in the prefix.
    pub(super) on_device: u64,
    pub(super) on_host: u64,
    pub(super) on_disk: u64,
    pub(super) on_external: u64,
    /// The prefix on the device; with host memory behind it.
    pub(super) device: u64,
    pub(super) host: u64,
}

/// The ranks of an instance, by number.
pub(super) type Ranks = BTreeMap<u32, Rank>;

/// The instances of an answer, by name.
pub(super) type Instances = BTreeMap<String, Ranks>;

/// Puts an answer's workers together. With `block_size` those of another one are left out: they are listed without a
/// match, because the question was asked of every worker of the model.
pub(super) fn fold(workers: &[v1::WorkerMatch], block_size: Option<u32>) -> Instances {
    let mut instances = Instances::new();
    for worker in workers {
        if block_size.is_some_and(|asked| is_of_other(worker, asked)) {
            continue;
        }
        let name = worker.labels.get(INSTANCE).unwrap_or(&worker.worker_id);
        let ranks = instances.entry(name.clone()).or_default();
        let entry = ranks.entry(rank_of(worker)).or_default();
        let rank = rank(worker);
        if rank.matched >= entry.matched {
            *entry = rank;
        }
    }
    instances
}

/// Whether a worker has another block size: by what it announced, or else by what it was registered with.
fn is_of_other(worker: &v1::WorkerMatch, asked: u32) -> bool {
    let registered = || worker.labels.get(BLOCK_SIZE)?.parse().ok();
    let size = if worker.block_size == 0 { registered().unwrap_or(0) } else { worker.block_size };
    size != 0 && size != asked
}

/// A worker that has announced nothing is listed as rank 0, whatever it was registered as; its id tells.
fn rank_of(worker: &v1::WorkerMatch) -> u32 {
    let is_own = worker.block_size == 0 && worker.labels.contains_key(INSTANCE);
    let own = is_own.then(|| rank_in(&worker.worker_id)).flatten();
    own.unwrap_or(worker.dp_rank)
}

fn rank(worker: &v1::WorkerMatch) -> Rank {
    let size = u64::from(worker.block_size);
    let mut rank = Rank { matched: worker.matched_tokens, ..Rank::default() };
    for tier in &worker.tiers {
        let prefix = tier.prefix_tokens.min(worker.matched_tokens);
        match tier.tier.as_str() {
            "device" => (rank.on_device, rank.device) = (tier.blocks * size, prefix),
            "host" => (rank.on_host, rank.host) = (tier.blocks * size, prefix),
            "disk" => rank.on_disk = tier.blocks * size,
            _ => rank.on_external += tier.blocks * size,
        }
    }
    rank.host = rank.host.max(rank.device);
    rank
}
