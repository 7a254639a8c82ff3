//! The index: a plain value with one mutator. It reads no clock, socket, random source or map order, and
//! knows nothing of raft or the network; of threads it knows those that read beside it (`reader_lock`).

mod ages;
mod changes;
mod contents;
mod digest;
mod eviction;
mod eviction_plan;
mod fairness;
mod groups;
mod holders;
mod holding;
mod journal;
mod marks;
mod name_table;
mod names;
mod naming;
mod opening;
mod outcome;
mod owner_blocks;
mod owner_set;
mod placing;
mod reader;
mod reader_lock;
mod records;
mod registry;
mod removing;
mod reports;
mod sealed;
mod share;
mod sizes;
mod snapshot;
mod spaces;
mod storing;
mod tree;
mod usage;
mod view;

pub use fairness::Giving;
pub(crate) use groups::{Need, Shape};
pub(crate) use journal::{Cause, Departure, Incident};
pub use outcome::{Notice, Outcome};
pub(crate) use owner_blocks::OwnerBlocks;
pub(crate) use owner_set::{OwnerSet, OwnerSlot, bits};
pub use reader::{IndexReader, IndexStats, WorkerStreams};
pub(crate) use reader_lock::Reader;
pub use registry::{Coverage, StreamStamp};
pub(crate) use registry::{Owner, Stream};
pub use snapshot::SnapshotError;
pub(crate) use spaces::Family;
pub(crate) use tree::{Place, Space};
pub use usage::{NamespaceUsage, TenantUsage, Usage};
pub(crate) use view::View;

use crate::command::{Command, GapPolicy, StreamEvents};
use crate::hash::SequenceHash;
use crate::ids::{BatchSeq, Generation, Registration, StreamId, WorkerId};
use crate::limits::IndexLimits;
use crate::worker::WorkerSpec;
use ages::Ages;
use changes::Applying;
use journal::Journal;
use naming::{Book, Naming};
use reader_lock::Writer;
use registry::Registry;

/// The prefix index of a fleet.
///
/// ```
/// use kvindex_core::{Command, Index, WorkerId, WorkerSpec};
/// let mut index = Index::default();
/// let worker = WorkerSpec::new(WorkerId::new("vllm-0")?, "llama");
/// index.apply(&Command::Register(Box::new(worker)));
/// assert_eq!(index.reader().stats().workers, 1);
/// # Ok::<(), kvindex_core::NameError>(())
/// ```
#[derive(Debug)]
pub struct Index {
    limits: IndexLimits,
    registry: Registry,
    view: Writer<View>,
    naming: Naming,
    journal: Journal,
    ages: Ages,
    entries: usize,
    /// What workers get that become known from now on.
    registration: Registration,
    /// Whether somebody listens to what the present command changes.
    heard: bool,
    /// Kept empty, for its capacity.
    chain: Vec<SequenceHash>,
    /// A bug put in on purpose: batches that come again are applied again. The simulation must find it.
    #[cfg(feature = "mutations")]
    pub applies_again: bool,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(IndexLimits::default())
    }
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new(limits: IndexLimits) -> Self {
        Self {
            limits,
            registry: Registry::default(),
            view: Writer::default(),
            naming: Naming::default(),
            journal: Journal::new(&limits),
            ages: Ages::default(),
            entries: 0,
            registration: Registration(0),
            heard: false,
            chain: Vec::new(),
            #[cfg(feature = "mutations")]
            applies_again: false,
        }
    }

    /// Numbers registrations: workers that become known from now on get `number`. Whoever applies the commands says
    /// it before each registration, a different one each time that a worker comes back; replicas must say the same,
    /// as with the place of the command in a log. Until then they get 0, and nothing is told apart.
    pub fn number_registrations(&mut self, number: Registration) {
        self.registration = number;
    }

    /// Applies a command. Commands cannot fail: what makes no sense is ignored and counted.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.heard = false;
        self.work(command, &mut |_| {})
    }

    /// Applies a command and tells `notice` of every normalised change, in order.
    pub fn apply_noticed(&mut self, command: &Command, notice: &mut dyn FnMut(Notice<'_>)) -> Outcome {
        self.heard = true;
        self.work(command, notice)
    }

    fn work(&mut self, command: &Command, notice: &mut dyn FnMut(Notice<'_>)) -> Outcome {
        let mut outcome = Outcome::default();
        match command {
            Command::Register(spec) => {
                let units = |registry: &Registry| -> Vec<(u32, u32)> {
                    let streams = registry.streams_of(&spec.id).into_iter();
                    let unit = |stream: &Stream| stream.groups.unit(&stream.spec.groups);
                    streams.filter_map(|number| Some((number, unit(registry.stream(number)?)))).collect()
                };
                let before = units(&self.registry);
                self.change_book(spec);
                self.registry.register((**spec).clone(), self.registration);
                for stream in self.registry.streams_of(&spec.id) {
                    self.review(stream);
                }
                for ((stream, before), (_, now)) in before.into_iter().zip(units(&self.registry)) {
                    if before != now && before != 0 {
                        self.applying(stream, BatchSeq(0), 0, notice, &mut outcome).unseat();
                    }
                    self.allow_holes(stream);
                }
                notice(Notice::Registered { worker: &spec.id });
            }
            Command::Unregister { worker } => self.unregister(worker, notice, &mut outcome),
            Command::Events(events) => self.events(events, notice, &mut outcome),
            Command::NewGeneration { stream, generation, at_ms, registration } => {
                let life = (*registration, *generation);
                self.enter_generation(stream, life, *at_ms, notice, &mut outcome);
            }
            Command::Gap { stream, generation, first, last, policy, at_ms, registration } => {
                let gap = LostBatches { first: *first, last: *last, policy: *policy, at_ms: *at_ms };
                self.gap(stream, (*registration, *generation), gap, notice, &mut outcome);
            }
            Command::Evict { entries, at_ms } => self.evict(*entries, *at_ms, notice, &mut outcome),
            Command::Forget(blocks) => self.forget(blocks, notice, &mut outcome),
        }
        outcome
    }

    /// Read access, which cannot write.
    #[must_use]
    pub fn reader(&self) -> IndexReader<'_> {
        IndexReader::new(self)
    }

    /// A worker that comes back with another model or tenant shares names with others from now on.
    fn change_book(&mut self, spec: &WorkerSpec) {
        let book = Book::of(&spec.tenant, &spec.model);
        for stream in self.registry.streams_of(&spec.id) {
            let slots = self.registry.stream(stream).map(|stream| stream.slots.clone()).unwrap_or_default();
            for slot in slots {
                if self.registry.owner(slot).is_some_and(|owner| owner.book != book) {
                    self.set_apart_everywhere(slot);
                    if let Some(owner) = self.registry.owner_mut(slot) {
                        (owner.book, owner.strayed) = (book, true);
                    }
                }
            }
        }
    }

    fn unregister(&mut self, worker: &WorkerId, notice: &mut dyn FnMut(Notice<'_>), outcome: &mut Outcome) {
        for stream in self.registry.streams_of(worker) {
            self.applying(stream, BatchSeq(0), 0, notice, outcome).drop_blocks(None, Cause::Unregistered);
        }
        if self.registry.remove_worker(worker) {
            notice(Notice::Unregistered { worker });
        }
    }

    fn events(&mut self, events: &StreamEvents, notice: &mut dyn FnMut(Notice<'_>), outcome: &mut Outcome) {
        let life = (events.registration, events.generation);
        let Some(stream) = self.enter_generation(&events.stream, life, events.at_ms, notice, outcome) else {
            return;
        };
        for batch in &events.batches {
            let Some(state) = self.registry.stream_mut(stream) else { return };
            let again = state.stamp.applied.is_some_and(|applied| batch.seq <= applied);
            #[cfg(feature = "mutations")]
            let again = again && !self.applies_again;
            if again {
                outcome.duplicates += 1;
                continue;
            }
            state.stamp.applied = Some(batch.seq);
            state.stamp.applied_at_ms = events.at_ms;
            state.stamp.payload_digest = events.payload_digest;
            outcome.batches += 1;
            let mut applying = self.applying(stream, batch.seq, events.at_ms, notice, outcome);
            batch.changes.iter().for_each(|change| applying.change(change));
        }
    }

    /// The stream, in `generation`: cleared when that is a new one, `None` when it is over or the worker is
    /// unknown, or known by another registration.
    fn enter_generation(
        &mut self,
        id: &StreamId,
        (registration, generation): (Registration, Generation),
        at_ms: u64,
        notice: &mut dyn FnMut(Notice<'_>),
        outcome: &mut Outcome,
    ) -> Option<u32> {
        let stream = match self.registry.open_stream(id, registration) {
            Ok(stream) => stream,
            Err(astray) => {
                outcome.count_astray(astray);
                return None;
            }
        };
        let current = self.registry.stream(stream)?.stamp;
        if generation < current.generation {
            outcome.stale += 1;
            return None;
        }
        if generation > current.generation {
            self.applying(stream, BatchSeq(0), at_ms, notice, outcome).drop_blocks(None, Cause::Restarted);
            let incidents = self.limits.journal_incidents_per_stream;
            let state = self.registry.stream_mut(stream)?;
            state.renew(generation);
            self.review(stream);
            let state = self.registry.stream_mut(stream)?;
            state.note(Incident::Generation { generation, at_ms }, incidents);
            outcome.generations += 1;
            notice(Notice::Generation { stream: id, generation });
        }
        Some(stream)
    }

    fn gap(
        &mut self,
        id: &StreamId,
        life: (Registration, Generation),
        gap: LostBatches,
        notice: &mut dyn FnMut(Notice<'_>),
        outcome: &mut Outcome,
    ) {
        let Some(stream) = self.enter_generation(id, life, gap.at_ms, notice, outcome) else {
            return;
        };
        let Some(state) = self.registry.stream_mut(stream) else { return };
        if state.stamp.applied.is_some_and(|applied| gap.last <= applied) || gap.last < gap.first {
            outcome.duplicates += 1;
            return;
        }
        (state.stamp.applied, state.stamp.payload_digest) = (Some(gap.last), None);
        state.missed = true;
        let (first, last, at_ms) = (gap.first, gap.last, gap.at_ms);
        state.note(Incident::Gap { first, last, at_ms }, self.limits.journal_incidents_per_stream);
        state.stamp.coverage = match (gap.policy, state.stamp.coverage) {
            (GapPolicy::Purge, _) => Coverage::Incomplete,
            (GapPolicy::KeepAsSuspect, _) => Coverage::Suspect,
        };
        notice(Notice::Gap { stream: id, first: gap.first, last: gap.last });
        if gap.policy == GapPolicy::Purge {
            self.applying(stream, gap.last, gap.at_ms, notice, outcome).drop_blocks(None, Cause::Purged);
        }
    }

    /// What other threads may read while this index changes.
    pub(crate) fn share_view(&self) -> Reader<View> {
        self.view.reader()
    }

    fn applying<'a>(
        &'a mut self,
        stream: u32,
        batch: BatchSeq,
        at_ms: u64,
        notice: &'a mut dyn FnMut(Notice<'_>),
        outcome: &'a mut Outcome,
    ) -> Applying<'a> {
        Applying { index: self, stream, batch, at_ms, notice, outcome }
    }
}

#[derive(Clone, Copy)]
struct LostBatches {
    first: BatchSeq,
    last: BatchSeq,
    policy: GapPolicy,
    at_ms: u64,
}
