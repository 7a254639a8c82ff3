//! What the judge is told: of entries applied, acknowledgements, questions, answers and registers.

use kvindex_core::replication::{LogPosition, Machine, ReadLevel, ShardCommand, ShardId, shard_of};
use kvindex_core::{BatchSeq, Command, Generation, Index, StreamId};
use kvindex_server::cluster::HostCommand;
use std::collections::BTreeMap;

use super::ledger::digest;
use crate::answer::Answer;
use crate::witness::Reached;

/// What a node has of a shard.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    /// Which node.
    pub node: u64,
    /// Which life of it.
    pub life: u64,
    /// Which shard.
    pub shard: ShardId,
    /// How far it is.
    pub reached: Reached,
    /// What the shard's log is applied to, all of it.
    pub machine: &'a dyn Machine,
    /// The node's index, with all shards.
    pub index: &'a Index,
}

impl Share<'_> {
    /// Which process.
    pub(crate) fn who(&self) -> (u64, u64) {
        (self.node, self.life)
    }
}

/// A node applied an entry.
#[derive(Debug)]
pub(crate) struct Applied<'a> {
    /// The shard's share afterwards.
    pub share: &'a Share<'a>,
    /// Where the entry is.
    pub at: LogPosition,
    /// The entry before, as far as this life knows.
    pub before: Option<LogPosition>,
    /// What it says.
    pub commands: &'a [ShardCommand],
}

/// A proposer heard that its entry is applied.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    /// Which shard.
    pub shard: ShardId,
    /// The node that said so.
    pub node: u64,
    /// Digest of the entry.
    pub entry: u64,
    /// Streams that it brings on, and up to where.
    pub reached: BTreeMap<StreamId, Mark>,
}

/// Where a stream stands.
pub(crate) type Mark = (Generation, Option<BatchSeq>);

/// What a turn's commands acknowledge once they are taken: an entry of each shard.
pub(crate) fn acknowledgements(node: u64, commands: &[Command], shards: u16) -> Vec<Acknowledged> {
    let mut of_shards: BTreeMap<ShardId, (Vec<ShardCommand>, BTreeMap<StreamId, Mark>)> = BTreeMap::new();
    for command in commands {
        let (stream, mark) = match command {
            Command::Events(events) => {
                let last = events.batches.last().map(|batch| batch.seq);
                (&events.stream, (events.generation, last))
            }
            Command::Gap { stream, generation, last, .. } => (stream, (*generation, Some(*last))),
            Command::NewGeneration { stream, generation, .. } => (stream, (*generation, None)),
            _ => continue,
        };
        let (entry, reached) = of_shards.entry(shard_of(&stream.worker, shards)).or_default();
        entry.push(ShardCommand::Index(command.clone()));
        reached.insert(stream.clone(), mark);
    }
    let acknowledged = |(shard, (entry, reached)): (ShardId, (Vec<ShardCommand>, _))| Acknowledged {
        shard,
        node,
        entry: digest(&entry),
        reached,
    };
    of_shards.into_iter().map(acknowledged).collect()
}

/// A client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The question's number.
    pub number: u64,
    /// How fresh the answer must be.
    pub level: ReadLevel,
    /// Of which shard.
    pub shard: ShardId,
}

/// A node answered.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    /// What was asked.
    pub asked: &'a Asked,
    /// Who answered.
    pub node: u64,
    /// In which life.
    pub life: u64,
    /// The prompt.
    pub path: &'a [u8],
    /// What it said.
    pub answer: &'a Answer,
}

/// A client's write of a register begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    /// A write begins; its number is unique in the run.
    Writes {
        /// Which shard and register.
        register: (ShardId, u64),
        /// The value, unique in the run.
        value: u64,
    },
    /// It was refused: nothing happened, and nothing will.
    Refused {
        /// Which shard and register.
        register: (ShardId, u64),
        /// The value.
        value: u64,
    },
    /// It ended, and was applied.
    Wrote {
        /// Which shard and register.
        register: (ShardId, u64),
        /// The value.
        value: u64,
    },
    /// A read begins.
    Reads {
        /// Number of the read.
        number: u64,
    },
    /// It ended with this value; `None` where nothing was written.
    Read {
        /// Number of the read.
        number: u64,
        /// Which shard and register.
        register: (ShardId, u64),
        /// The value.
        value: Option<u64>,
    },
}

/// A command in a few words.
pub(super) fn brief(command: &ShardCommand) -> String {
    match command {
        ShardCommand::Index(Command::Events(events)) => {
            let numbers: Vec<u64> = events.batches.iter().map(|batch| batch.seq.0).collect();
            format!("{} generation {}: batches {numbers:?}", events.stream, events.generation)
        }
        ShardCommand::Index(command) => format!("{command:?}"),
        ShardCommand::Host(bytes) => format!("{:?}", HostCommand::from_bytes(bytes)),
    }
}
