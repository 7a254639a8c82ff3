//! A linearizable read, and a lease read while clocks run alike, sees everything acknowledged before it began and
//! everything that such a read before it saw. Positions in a log and numbers of a stream only ever grow, so this
//! alone is linearizability, in linear time; registers, which do not grow, have a search of their own.

use kvindex_core::replication::{ReadLevel, ShardId};
use kvindex_core::{Command, StreamId, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

use super::{Acknowledged, Answered, Applied, Asked, Invariant, Ledger, Mark, Verdict};

/// What a read that begins now must at least see.
#[derive(Debug, Clone, Default)]
struct Floor {
    shards: BTreeMap<ShardId, u64>,
    streams: BTreeMap<StreamId, Mark>,
}

impl Floor {
    fn raise_shard(&mut self, shard: ShardId, index: u64) {
        let floor = self.shards.entry(shard).or_default();
        *floor = index.max(*floor);
    }

    fn raise_stream(&mut self, stream: &StreamId, mark: Mark) {
        let floor = self.streams.entry(stream.clone()).or_insert(mark);
        *floor = mark.max(*floor);
    }
}

#[derive(Debug, Default)]
pub(super) struct Linearizable {
    floor: Floor,
    /// Workers that were taken out and may be back: their numbers began anew, only positions in the log tell.
    reborn: BTreeSet<WorkerId>,
    pending: BTreeMap<u64, Floor>,
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "linearizable reads"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        for command in ledger.said(applied.share.shard, applied.at.index) {
            if let Command::Unregister { worker } = command {
                self.reborn.insert(worker.clone());
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, acknowledged: &Acknowledged, ledger: &Ledger) -> Verdict {
        if let Some(at) = ledger.place_of(acknowledged.shard, acknowledged.entry) {
            self.floor.raise_shard(acknowledged.shard, at);
        }
        acknowledged.reached.iter().for_each(|(stream, mark)| self.floor.raise_stream(stream, *mark));
        Ok(())
    }

    fn asked(&mut self, asked: &Asked) {
        if asked.level != ReadLevel::Local {
            self.pending.insert(asked.number, self.floor.clone());
        }
    }

    fn answered(&mut self, answered: &Answered<'_>, _: &Ledger) -> Verdict {
        let Some(floor) = self.pending.remove(&answered.asked.number) else { return Ok(()) };
        let (asked, node) = (answered.asked, answered.node);
        for (shard, due) in floor.shards {
            let seen = answered.answer.positions.get(&shard).copied();
            if seen < Some(due) {
                return Err(format!(
                    "a {:?} read of node {node} saw {shard} at {seen:?}, {due:?} was acknowledged or read before",
                    asked.level
                ));
            }
        }
        answered.answer.positions.iter().for_each(|(shard, index)| self.floor.raise_shard(*shard, *index));
        for (stream, stamp) in &answered.answer.stamps {
            if self.reborn.contains(&stream.worker) {
                continue;
            }
            let (seen, due) = ((stamp.generation, stamp.applied), floor.streams.get(stream));
            if due.is_some_and(|due| seen < *due) {
                let level = asked.level;
                return Err(format!(
                    "a {level:?} read of node {node} saw {stream} at {seen:?}, {due:?} was due"
                ));
            }
            self.floor.raise_stream(stream, seen);
        }
        Ok(())
    }
}
