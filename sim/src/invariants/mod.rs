//! What must hold, whatever happens; one file each. The judge is told of everything that engines publish, nodes
//! apply and clients see, and keeps the first violation.

mod acknowledged;
mod below_cap;
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
mod told;
mod watermark;

use kvindex_core::StreamId;
use kvindex_core::replication::{LogPosition, NodeId, ShardId};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::sync::Arc;

use crate::cache::Truth;
use crate::engine::Publication;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::witness::Reached;
pub(crate) use held::of as held_of;
use ledger::Ledger;
use told::brief;
pub(crate) use told::{Acknowledged, Answered, Applied, Asked, Mark, Register, Share, acknowledgements};

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
    /// A judge of a run.
    #[must_use]
    pub(crate) fn new(plan: &Plan, trace: Arc<Trace>) -> Arc<Self> {
        let (shards, engines) = (plan.shards, &plan.engines);
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
            Box::new(below_cap::BelowCap::new(plan.caps)),
            Box::new(linearizable::Linearizable::default()),
            Box::new(registers::Registers::default()),
            Box::new(index_oracle::IndexOracle::new(shards)),
        ];
        let state = State { ledger: Ledger::of(shards, engines), invariants, violation: None };
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

    /// Whether a stream is a mix of lives that nobody can tell apart.
    pub(crate) fn is_mixed(&self, stream: &StreamId) -> bool {
        self.state.lock().ledger.is_mixed(stream)
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
