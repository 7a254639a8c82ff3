//! From workers to instances. Other indexers register each data-parallel rank by itself and answer by instance; here
//! such a rank is a worker with a label, and answers are put together by it.

use kvindex_proto::v1;
use std::collections::BTreeMap;

use super::instances::rank_in;
use crate::workers::BLOCK_SIZE_LABEL;

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

impl Rank {
    /// What either of two workers of this rank holds: the more of each, as an instance has the most of its ranks.
    fn or(self, other: Self) -> Self {
        Self {
            matched: self.matched.max(other.matched),
            on_device: self.on_device.max(other.on_device),
            on_host: self.on_host.max(other.on_host),
            on_disk: self.on_disk.max(other.on_disk),
            on_external: self.on_external.max(other.on_external),
            device: self.device.max(other.device),
            host: self.host.max(other.host),
        }
    }
}

/// Puts an answer's workers together.
pub(super) fn fold(workers: &[v1::WorkerMatch]) -> Instances {
    let mut instances = Instances::new();
    for worker in workers {
        let ranks = instances.entry(instance(worker).to_owned()).or_default();
        let entry = ranks.entry(rank_of(worker)).or_default();
        *entry = entry.or(rank(worker));
    }
    instances
}

/// A worker's instance: where several workers are its ranks, they say so by a label.
pub(super) fn instance(worker: &v1::WorkerMatch) -> &str {
    worker.labels.get(INSTANCE).unwrap_or(&worker.worker_id)
}

/// Whether a worker has another block size: by what it announced, or else by what it was registered with.
pub(super) fn is_of_other(worker: &v1::WorkerMatch, asked: u32) -> bool {
    let registered = || worker.labels.get(BLOCK_SIZE_LABEL)?.parse().ok();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn held(dp_rank: u32, tokens: u64, tiers: &[(&str, u64)]) -> v1::WorkerMatch {
        let tier = |(tier, blocks): &(&str, u64)| v1::TierMatch {
            tier: (*tier).into(),
            blocks: *blocks,
            prefix_tokens: blocks * 4,
            ..v1::TierMatch::default()
        };
        v1::WorkerMatch {
            worker_id: format!("{tokens}"),
            dp_rank,
            block_size: 4,
            matched_tokens: tokens,
            tiers: tiers.iter().map(tier).collect(),
            labels: [(INSTANCE.to_owned(), "i".to_owned())].into(),
            ..v1::WorkerMatch::default()
        }
    }

    #[test]
    fn two_workers_of_one_rank_have_the_more_of_each() {
        // The longer prefix is the other one's than that on the device; of equal ones neither hides the other.
        for disk in [12, 8] {
            let workers = [held(0, 8, &[("device", 2)]), held(0, disk, &[("device", 1), ("disk", disk / 4)])];
            let expected =
                Rank { matched: disk, on_device: 8, on_disk: disk, device: 8, host: 8, ..Rank::default() };
            for workers in [workers.clone(), [workers[1].clone(), workers[0].clone()]] {
                let instances = fold(&workers);
                assert_eq!(instances["i"], Ranks::from([(0, expected)]), "{disk}");
            }
        }
    }
}
