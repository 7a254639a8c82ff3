//! Replicas that have applied a shard up to the same entry hold the same of it, however they came there.

use kvindex_core::Index;
use kvindex_core::replication::{ShardId, shard_of};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{Applied, Installed, Invariant, Ledger, Settled, Verdict};
use crate::machine::Share;

/// Every how many-th entry is looked at: a digest walks the whole index.
const EVERY: u64 = 5;

#[derive(Debug)]
pub(super) struct EqualDigests {
    shards: u16,
    seen: BTreeMap<(ShardId, u64), (u64, u64)>,
}

impl EqualDigests {
    pub(super) fn new(shards: u16) -> Self {
        Self { shards, seen: BTreeMap::new() }
    }

    fn look(&mut self, node: u64, shard: ShardId, share: &Share, index: &Index) -> Verdict {
        let Some(at) = share.at else { return Ok(()) };
        let digest = share_digest(index, share, shard, self.shards);
        let (first, before) = *self.seen.entry((shard, at.index)).or_insert((node, digest));
        if before == digest {
            return Ok(());
        }
        Err(format!("nodes {first} and {node} have {shard} at entry {} and hold different things", at.index))
    }
}

/// Digest of all that belongs to a shard: its workers, streams, blocks and registers.
#[must_use]
pub(crate) fn share_digest(index: &Index, share: &Share, shard: ShardId, shards: u16) -> u64 {
    let reader = index.reader();
    let mut bytes = Vec::with_capacity(4096);
    for worker in reader.workers().filter(|worker| shard_of(&worker.worker.id, shards) == shard) {
        bytes.extend_from_slice(format!("{:?}", (&worker.worker, &worker.streams)).as_bytes());
    }
    for (stream, tier, group, name, copies) in reader.names() {
        if shard_of(&stream.worker, shards) == shard {
            bytes.extend_from_slice(stream.worker.as_str().as_bytes());
            bytes.extend_from_slice(&stream.dp_rank.0.to_le_bytes());
            bytes.extend_from_slice(tier.name().as_bytes());
            bytes.extend_from_slice(&group.0.to_le_bytes());
            bytes.extend_from_slice(&name.0.to_le_bytes());
            bytes.extend_from_slice(&copies.to_le_bytes());
        }
    }
    for (stream, tier, _, _, hash, copies) in reader.entries() {
        if shard_of(&stream.worker, shards) == shard {
            bytes.extend_from_slice(tier.name().as_bytes());
            bytes.extend_from_slice(&hash.0.to_le_bytes());
            bytes.extend_from_slice(&copies.to_le_bytes());
        }
    }
    for (register, value) in &share.registers {
        bytes.extend_from_slice(&register.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    xxh3_64(&bytes)
}

impl Invariant for EqualDigests {
    fn name(&self) -> &'static str {
        "equal digests"
    }

    fn applied(&mut self, applied: &Applied<'_>, _: &Ledger) -> Verdict {
        match applied.at.index.is_multiple_of(EVERY) {
            true => self.look(applied.node, applied.shard, applied.share, applied.index),
            false => Ok(()),
        }
    }

    fn installed(&mut self, installed: &Installed<'_>, _: &Ledger) -> Verdict {
        self.look(installed.node, installed.shard, installed.share, installed.index)
    }

    fn settled(&mut self, settled: &Settled<'_>, _: &Ledger) -> Verdict {
        let (node, index) = (settled.node, settled.index);
        settled.shares.iter().try_for_each(|(shard, share)| self.look(node, *shard, share, index))
    }
}
