//! In one life of a node, no stream and no shard ever falls back behind what it had applied or answered.

use kvindex_core::replication::{LogPosition, ShardId};
use kvindex_core::{Command, StreamId, StreamStamp};
use std::collections::BTreeMap;

use super::order::streams;
use super::{Answered, Applied, Invariant, Ledger, Mark, Share, Verdict};

#[derive(Debug, Default)]
pub(super) struct Watermark {
    shards: BTreeMap<(u64, u64, ShardId), u64>,
    streams: BTreeMap<(u64, u64, StreamId), Mark>,
}

fn mark(stamp: &StreamStamp) -> Mark {
    (stamp.generation, stamp.applied)
}

impl Watermark {
    fn shard(&mut self, (node, life): (u64, u64), shard: ShardId, index: u64) -> Verdict {
        let before = self.shards.insert((node, life, shard), index);
        match before.filter(|before| *before > index) {
            Some(before) => Err(format!("node {node} fell from entry {before} of {shard} back to {index}")),
            None => Ok(()),
        }
    }

    fn stream(&mut self, (node, life): (u64, u64), stream: &StreamId, now: Mark) -> Verdict {
        let before = self.streams.insert((node, life, stream.clone()), now);
        match before.filter(|before| *before > now) {
            Some(before) => Err(format!("node {node}: {stream} fell from {before:?} back to {now:?}")),
            None => Ok(()),
        }
    }
}

impl Invariant for Watermark {
    fn name(&self) -> &'static str {
        "watermark never falls"
    }

    fn began(&mut self, who: (u64, u64)) {
        self.shards.retain(|(node, life, _), _| (*node, *life) != who);
        self.streams.retain(|(node, life, _), _| (*node, *life) != who);
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let (share, who) = (applied.share, applied.share.who());
        for command in ledger.said(share.shard, applied.at.index) {
            if let Command::Unregister { worker } = command {
                self.streams
                    .retain(|(node, life, stream), _| (*node, *life) != who || stream.worker != *worker);
            }
        }
        self.shard(who, share.shard, applied.at.index)?;
        let reader = share.index.reader();
        let mut stamps = streams(applied.commands).into_iter().filter_map(|s| Some((s, reader.stream(s)?)));
        stamps.try_for_each(|(stream, stamp)| self.stream(who, stream, mark(&stamp)))
    }

    fn installed(&mut self, share: &Share<'_>, _: LogPosition, ledger: &Ledger) -> Verdict {
        let who = share.who();
        // What was unregistered on the way may come back lower.
        self.streams.retain(|(node, life, stream), _| {
            (*node, *life) != who || ledger.shard_of(stream) != share.shard
        });
        share.reached.at.map_or(Ok(()), |at| self.shard(who, share.shard, at.index))
    }

    fn answered(&mut self, answered: &Answered<'_>, _: &Ledger) -> Verdict {
        let who = (answered.node, answered.life);
        answered.answer.positions.iter().try_for_each(|(shard, index)| self.shard(who, *shard, *index))?;
        let mut stamps = answered.answer.stamps.iter();
        stamps.try_for_each(|(stream, stamp)| self.stream(who, stream, mark(stamp)))
    }
}
