//! What clients and the world read of a process: its server's answers, and how far they rest on.

use kvindex_core::replication::ShardId;
use kvindex_core::{Coverage, StreamId, StreamStamp};
use std::collections::BTreeMap;

use crate::cache::Truth;
use crate::engine::EnginePlan;
use crate::invariants::{Judge, held_of};
use crate::node::Running;
use crate::question::{Matched, ask};
use crate::workers::{REGISTERS, register_id, value};

/// What a client reads, all at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// The last entry applied, of each shard.
    pub positions: BTreeMap<ShardId, u64>,
    /// Where each stream stands.
    pub stamps: BTreeMap<StreamId, StreamStamp>,
    /// What each stream serves of the prompt asked for.
    pub matches: Vec<Matched>,
    /// The shard's registers.
    pub registers: BTreeMap<u64, u64>,
}

impl Running {
    /// Answers a client: what of `path` is held, where streams stand, and a shard's registers.
    pub(crate) fn answer(&self, shard: ShardId, path: &[u8], shards: u16) -> Answer {
        let registers = (0..REGISTERS).filter_map(|register| {
            let id = register_id(shard, register, shards)?;
            Some((register, value(&self.server, &id)?))
        });
        Answer {
            positions: self.witness.positions(),
            stamps: self.stamps(),
            matches: ask(&self.server, path),
            registers: registers.collect(),
        }
    }

    fn stamps(&self) -> BTreeMap<StreamId, StreamStamp> {
        self.server.look(|index| {
            let streams = index.reader().workers().flat_map(|worker| {
                let id = worker.worker.id.clone();
                let stream = move |(dp_rank, stamp, _)| (StreamId { worker: id.clone(), dp_rank }, stamp);
                worker.streams.into_iter().map(stream)
            });
            streams.collect()
        })
    }

    /// Whether the index has a stream as its engine does; no more than that, where batches were declared lost and it
    /// says so. Where there is nothing to ask, nobody can know of a last batch that was lost.
    pub(crate) fn is_as(
        &self,
        judge: &Judge,
        engine: &EnginePlan,
        (_, next, truth): &(u64, u64, Truth),
    ) -> bool {
        let stream = &engine.stream;
        if self.server.known_worker(&stream.worker).is_none() || judge.is_mixed(stream) {
            return true;
        }
        let stamp = self.server.stream_stamp(stream).unwrap_or_default();
        if stamp.applied.map_or(0, |seq| seq.0 + 1) != *next {
            return engine.buffer == 0;
        }
        let held = self.server.look(|index| held_of(index, stream));
        if !judge.is_whole(stream) && stamp.coverage != Coverage::Complete {
            return held.iter().all(|(block, copies)| truth.get(block).is_some_and(|most| copies <= most));
        }
        held == *truth
    }

    /// What is held of a stream, or should be, in another number of copies than the engine has.
    pub(crate) fn difference(&self, stream: &StreamId, truth: &Truth) -> Truth {
        let held = self.server.look(|index| held_of(index, stream));
        let all = held.iter().chain(truth);
        let differs = all.filter(|(block, _)| held.get(*block) != truth.get(*block));
        differs.map(|(block, _)| (block.clone(), held.get(block).copied().unwrap_or(0))).collect()
    }
}
