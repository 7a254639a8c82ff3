//! What must hold, whatever happens; one file each. The judge is told of everything that engines publish, nodes
//! apply and clients see, and keeps the first violation.

mod acknowledged;
mod cleared;
mod equal_digests;
mod exact;
mod generations;
mod held;
mod index_oracle;
mod ledger;
mod linearizable;
mod one_log;
mod order;
mod phantom;
mod registers;
mod watermark;

use bytes::Bytes;
use kvindex_core::replication::{LogPosition, ReadLevel, ShardCommand, ShardId};
use kvindex_core::{BatchSeq, Generation, Index, StreamId};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::sync::Arc;

use crate::cache::Truth;
use crate::engine::Publication;
use crate::machine::{Answer, Share};
use crate::trace::Trace;
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

/// A node applied an entry.
#[derive(Debug)]
pub(crate) struct Applied<'a> {
    /// Which node.
    pub node: u64,
    /// Which life of it.
    pub life: u64,
    /// Which shard.
    pub shard: ShardId,
    /// Where the entry is.
    pub at: LogPosition,
    /// The entry before, as far as this life knows.
    pub before: Option<LogPosition>,
    /// What it says.
    pub commands: &'a [ShardCommand],
    /// The shard's share afterwards.
    pub share: &'a Share,
    /// The node's index afterwards.
    pub index: &'a Index,
}

/// A node took a snapshot over.
#[derive(Debug)]
pub(crate) struct Installed<'a> {
    /// Which node.
    pub node: u64,
    /// Which life of it.
    pub life: u64,
    /// Which shard.
    pub shard: ShardId,
    /// The snapshot's position.
    pub at: LogPosition,
    /// The share afterwards.
    pub share: &'a Share,
    /// The node's index afterwards.
    pub index: &'a Index,
}

/// A proposer heard that its entry is applied.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    /// Which shard.
    pub shard: ShardId,
    /// The node that said so.
    pub node: u64,
    /// Where the entry is, as it was told.
    pub at: Option<LogPosition>,
    /// The entry.
    pub entry: Bytes,
    /// Of which stream it is, if it is a stream's.
    pub stream: Option<StreamId>,
    /// Up to where it brings the stream.
    pub reached: Option<(Generation, Option<BatchSeq>)>,
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

/// One node when all has come to rest.
#[derive(Debug)]
pub(crate) struct Settled<'a> {
    /// Which.
    pub node: u64,
    /// Its index.
    pub index: &'a Index,
    /// Its shares.
    pub shares: &'a std::collections::BTreeMap<ShardId, Share>,
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

    fn installed(&mut self, _: &Installed<'_>, _: &Ledger) -> Verdict {
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

    fn settled(&mut self, _: &Settled<'_>, _: &Ledger) -> Verdict {
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
        self.trace.note("publishes", publication.life, [publication.seq, 0, publication.digest]);
        self.state.lock().ledger.publish(stream, publication, truth);
    }

    /// A process began.
    pub(crate) fn began(&self, node: u64, life: u64) {
        self.trace.note("began", node, [life, 0, 0]);
    }

    /// See [`Applied`].
    pub(crate) fn applied(&self, applied: &Applied<'_>) {
        let words = [u64::from(applied.shard.0), applied.at.index, applied.share.chain];
        self.trace.note("applies", applied.node, words);
        self.state.lock().ledger.record(applied);
        self.each(|invariant, ledger| invariant.applied(applied, ledger));
    }

    /// See [`Installed`].
    pub(crate) fn installed(&self, installed: &Installed<'_>) {
        let words = [u64::from(installed.shard.0), installed.at.index, installed.share.chain];
        self.trace.note("installs", installed.node, words);
        self.each(|invariant, ledger| invariant.installed(installed, ledger));
    }

    /// See [`Acknowledged`].
    pub(crate) fn acknowledged(&self, acknowledged: &Acknowledged) {
        let at = acknowledged.at.map_or(u64::MAX, |at| at.index);
        self.trace.note("acked", acknowledged.node, [u64::from(acknowledged.shard.0), at, 0]);
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

    /// See [`Settled`].
    pub(crate) fn settled(&self, settled: &Settled<'_>) {
        self.each(|invariant, ledger| invariant.settled(settled, ledger));
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
