//! What must hold, whatever happens; one file each. The judge is told of everything that engines publish, nodes
//! apply and clients see, and keeps the first violation.

mod acknowledged;
mod cleared;
mod equal_digests;
mod exact;
mod generations;
mod held;
mod ids;
mod index_oracle;
mod ledger;
mod linearizable;
mod one_log;
mod order;
mod phantom;
mod registers;
mod watermark;

use kvindex_core::replication::{LogPosition, Machine, NodeId, ReadLevel, ShardCommand, ShardId, shard_of};
use kvindex_core::{BatchSeq, Command, Generation, Index, StreamId};
use kvindex_server::cluster::HostCommand;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::answer::Answer;
use crate::cache::Truth;
use crate::engine::Publication;
use crate::trace::Trace;
use crate::witness::Reached;
pub(crate) use held::of as held_of;
use ledger::Ledger;

/// A rule that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub invariant: &'static str,
    /// How it was broken.
    pub detail: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
}

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
        entry: ledger::digest(&entry),
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

pub(crate) type Verdict = Result<(), String>;

/// One rule. What it does not care for, it leaves to the defaults.
pub(crate) trait Invariant: Debug + Send {
    /// Its name, as reports and the track record use it.
    fn name(&self) -> &'static str;

    fn applied(&mut self, _: &Applied<'_>, _: &Ledger) -> Verdict {
        Ok(())
    }

    /// A process's state begins anew.
    fn began(&mut self, _: (u64, u64)) {}

    /// A node took a snapshot over, which ends at this entry.
    fn installed(&mut self, _: &Share<'_>, _: LogPosition, _: &Ledger) -> Verdict {
        Ok(())
    }

    /// A node takes a snapshot.
    fn exported(&mut self, _: &Share<'_>, _: &Ledger) -> Verdict {
        Ok(())
    }

    /// A node keeps an id on its disk, in this incarnation of it.
    fn kept(&mut self, _: (u64, u64), _: NodeId) -> Verdict {
        Ok(())
    }

    fn acknowledged(&mut self, _: &Acknowledged, _: &Ledger) -> Verdict {
        Ok(())
    }

    fn asked(&mut self, _: &Asked) {}

    fn answered(&mut self, _: &Answered<'_>, _: &Ledger) -> Verdict {
        Ok(())
    }

    fn register(&mut self, _: Register) {}

    /// A shard on one node when all has come to rest.
    fn settled(&mut self, _: &Share<'_>, _: &Ledger) -> Verdict {
        Ok(())
    }

    /// The run is over.
    fn finish(&mut self, _: &Ledger) -> Verdict {
        Ok(())
    }
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
}

/// Holds every rule against what happens.
#[derive(Debug)]
pub(crate) struct Judge {
    trace: Arc<Trace>,
    state: Mutex<State>,
}

impl Judge {
    /// A judge of a cluster with so many shards.
    #[must_use]
    pub(crate) fn new(shards: u16, trace: Arc<Trace>) -> Arc<Self> {
        let invariants: Vec<Box<dyn Invariant>> = vec![
            Box::new(ids::OneIdOneLife::default()),
            Box::new(one_log::OneLog),
            Box::new(equal_digests::EqualDigests::new(shards)),
            Box::new(acknowledged::NothingAcknowledgedLost::default()),
            Box::new(phantom::NoPhantom),
            Box::new(order::WorkerOrder),
            Box::new(cleared::ClearedIsEmpty),
            Box::new(generations::GenerationFence),
            Box::new(watermark::Watermark::default()),
            Box::new(exact::AsTheEngineSays),
            Box::new(linearizable::Linearizable::default()),
            Box::new(registers::Registers::default()),
            Box::new(index_oracle::IndexOracle::new(shards)),
        ];
        let state = State { ledger: Ledger::of(shards), invariants, violation: None };
        Arc::new(Self { trace, state: Mutex::new(state) })
    }

    /// The first violation.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.state.lock().violation.clone()
    }

    /// A rule that is none of the files here was broken: the world's own, such as that a cluster recovers.
    pub(crate) fn fail(&self, invariant: &'static str, detail: impl Into<String>) {
        self.keep(&mut self.state.lock(), invariant, detail.into());
    }

    fn keep(&self, state: &mut State, invariant: &'static str, detail: String) {
        if state.violation.is_none() {
            self.trace.say("VIOLATION", 0, format!("{invariant}: {detail}"));
            state.violation = Some(Violation { invariant, detail, at_ms: self.trace.now_ms() });
        }
    }

    fn each(&self, look: impl Fn(&mut dyn Invariant, &Ledger) -> Verdict) {
        let state = &mut *self.state.lock();
        if state.violation.is_some() {
            return;
        }
        let mut broken = None;
        for invariant in &mut state.invariants {
            if let Err(detail) = look(&mut **invariant, &state.ledger) {
                broken.get_or_insert((invariant.name(), detail));
            }
        }
        if let Some((name, detail)) = broken {
            self.keep(state, name, detail);
        }
    }

    /// An engine sends a batch, after which it holds this.
    pub(crate) fn published(&self, stream: &StreamId, publication: &Publication, truth: Truth) {
        let text =
            format!("{stream} life {} batch {} {:x}", publication.life, publication.seq, publication.digest);
        self.trace.say("publishes", 0, text);
        self.state.lock().ledger.publish(stream, publication, truth);
    }

    /// A process's state begins: what it applied before, if anything, is forgotten.
    pub(crate) fn began(&self, node: u64, life: u64) {
        self.trace.note("began", node, [life, 0, 0]);
        self.state.lock().invariants.iter_mut().for_each(|invariant| invariant.began((node, life)));
    }

    /// A node keeps an id, in this incarnation of its disk.
    pub(crate) fn kept(&self, node: u64, incarnation: u64, id: NodeId) {
        self.trace.note("keeps", node, [id.0, incarnation, 0]);
        self.each(|invariant, _| invariant.kept((node, incarnation), id));
    }

    /// See [`Applied`].
    pub(crate) fn applied(&self, applied: &Applied<'_>) {
        let share = applied.share;
        self.trace.note(
            "applies",
            share.node,
            [u64::from(share.shard.0), applied.at.index, share.reached.chain],
        );
        let new = self.state.lock().ledger.entry(share.shard, applied.at.index).is_none();
        if new && self.trace.is_loud() {
            applied.commands.iter().for_each(|command| println!("{:>19}{}", "", brief(command)));
        }
        let recorded = self.state.lock().ledger.record(applied);
        if let Err(reason) = recorded {
            self.fail("entries can be read", reason);
        }
        self.each(|invariant, ledger| invariant.applied(applied, ledger));
    }

    /// How far whoever takes a snapshot over is, if that ends at this entry.
    pub(crate) fn reached(&self, shard: ShardId, at: LogPosition) -> Reached {
        self.state.lock().ledger.reached(shard, at)
    }

    /// A node took a snapshot over, which ends at this entry.
    pub(crate) fn installed(&self, share: &Share<'_>, at: LogPosition) {
        self.trace.note("installs", share.node, [u64::from(share.shard.0), at.index, share.reached.chain]);
        self.each(|invariant, ledger| invariant.installed(share, at, ledger));
    }

    /// A node takes a snapshot.
    pub(crate) fn exported(&self, share: &Share<'_>) {
        let at = share.reached.at.map_or(u64::MAX, |at| at.index);
        self.trace.note("exports", share.node, [u64::from(share.shard.0), at, share.reached.chain]);
        self.each(|invariant, ledger| invariant.exported(share, ledger));
    }

    /// See [`Acknowledged`].
    pub(crate) fn acknowledged(&self, acknowledged: &Acknowledged) {
        self.trace.note("acked", acknowledged.node, [u64::from(acknowledged.shard.0), 0, acknowledged.entry]);
        self.each(|invariant, ledger| invariant.acknowledged(acknowledged, ledger));
    }

    /// See [`Asked`].
    pub(crate) fn asked(&self, asked: &Asked) {
        self.state.lock().invariants.iter_mut().for_each(|invariant| invariant.asked(asked));
    }

    /// See [`Answered`].
    pub(crate) fn answered(&self, answered: &Answered<'_>) {
        let served: usize = answered.answer.matches.iter().map(|matched| matched.1).sum();
        let words = [answered.asked.number, answered.asked.level as u64, served as u64];
        self.trace.note("answers", answered.node, words);
        self.each(|invariant, ledger| invariant.answered(answered, ledger));
    }

    /// See [`Register`].
    pub(crate) fn register(&self, event: Register) {
        self.state.lock().invariants.iter_mut().for_each(|invariant| invariant.register(event));
    }

    /// A shard on one node when all has come to rest.
    pub(crate) fn settled(&self, share: &Share<'_>) {
        self.each(|invariant, ledger| invariant.settled(share, ledger));
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        self.each(|invariant, ledger| invariant.finish(ledger));
    }

    /// Whether every batch of a stream's present generation is in the log.
    pub(crate) fn is_whole(&self, stream: &StreamId) -> bool {
        self.state.lock().ledger.standings.get(stream).is_none_or(|standing| standing.whole)
    }

    /// Entries that were committed, of each shard.
    pub(crate) fn committed(&self) -> Vec<usize> {
        self.state.lock().ledger.logs.values().map(std::collections::BTreeMap::len).collect()
    }
}

/// A command in a few words.
fn brief(command: &ShardCommand) -> String {
    match command {
        ShardCommand::Index(Command::Events(events)) => {
            let numbers: Vec<u64> = events.batches.iter().map(|batch| batch.seq.0).collect();
            format!("{} generation {}: batches {numbers:?}", events.stream, events.generation)
        }
        ShardCommand::Index(command) => format!("{command:?}"),
        ShardCommand::Host(bytes) => format!("{:?}", HostCommand::from_bytes(bytes)),
    }
}
