//! Replicas that have applied a shard up to the same entry hold the same of it, however they came there.

use kvindex_core::replication::{LogPosition, ShardId, shard_of};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{Applied, Invariant, Ledger, Share, Verdict};

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

    fn look(&mut self, share: &Share<'_>) -> Verdict {
        let (node, shard) = (share.node, share.shard);
        let Some(at) = share.reached.at else { return Ok(()) };
        let digest = share_digest(share, self.shards);
        let (first, before) = *self.seen.entry((shard, at.index)).or_insert((node, digest));
        if before == digest {
            return Ok(());
        }
        Err(format!("nodes {first} and {node} have {shard} at entry {} and hold different things", at.index))
    }
}

/// Digest of all that belongs to a shard: its workers, streams and blocks, and what is beside the index, as the first
/// piece of a snapshot has it. The other pieces may say the same in several ways.
fn share_digest(share: &Share<'_>, shards: u16) -> u64 {
    let (reader, shard) = (share.index.reader(), share.shard);
    let mut bytes = share.machine.export(shard).next().unwrap_or_default();
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
    xxh3_64(&bytes)
}

impl Invariant for EqualDigests {
    fn name(&self) -> &'static str {
        "equal digests"
    }

    fn applied(&mut self, applied: &Applied<'_>, _: &Ledger) -> Verdict {
        match applied.at.index.is_multiple_of(EVERY) {
            true => self.look(applied.share),
            false => Ok(()),
        }
    }

    fn installed(&mut self, share: &Share<'_>, _: LogPosition, _: &Ledger) -> Verdict {
        self.look(share)
    }

    fn exported(&mut self, share: &Share<'_>, _: &Ledger) -> Verdict {
        self.look(share)
    }

    fn settled(&mut self, share: &Share<'_>, _: &Ledger) -> Verdict {
        self.look(share)
    }
}
