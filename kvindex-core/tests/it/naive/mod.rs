//! The naive model: what ordinary models' engines hold, kept for every stream and tier on its own in plain maps,
//! from the same commands as the index. It shares nothing between owners and packs nothing, so that whatever the
//! index shares or packs is compared with what it stands for.
//!
//! It knows ordinary models only: one group, a name for every block or names alone, blocks named by their prefix.
//! Hits that are announced again (vLLM's report mode) are not told from copies here, so histories must not have
//! what gives that mode away.

mod answers;
mod commands;
mod compare;
mod evicting;
pub(crate) mod fleet;
pub(crate) mod history;
mod placing;

use std::collections::BTreeMap;

use kvindex_core::{
    BatchSeq, Command, DpRank, EngineBlockHash, ForgottenBlocks, GapPolicy, Generation, LocalBlockHash,
    Namespace, Outcome, Registration, SequenceHash, StreamEvents, StreamId, Tier, WorkerId, WorkerSpec,
};

pub(crate) use answers::{Followed, View};
pub(crate) use compare::{compare, hold};
use placing::Applying;

/// A namespace, by its number in the model, and a block in it.
type Place = (usize, SequenceHash);

/// What is known of one name.
#[derive(Debug, Clone, Copy)]
struct Name {
    copies: u32,
    place: Option<Place>,
}

/// What a block waits for, and where it will go then.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    parent: EngineBlockHash,
    space: usize,
    local: LocalBlockHash,
}

/// What one stream holds on one tier.
#[derive(Debug, Default)]
struct Held {
    names: BTreeMap<EngineBlockHash, Name>,
    orphans: BTreeMap<EngineBlockHash, Waiting>,
    /// Whether blocks came here, behind the device, that only their tokens could place.
    by_tokens: bool,
}

/// One life of one engine rank's cache.
#[derive(Debug, Default)]
struct Stream {
    generation: Generation,
    applied: Option<BatchSeq>,
    /// Whether it ever said how many tokens its blocks have.
    size_known: bool,
    tiers: BTreeMap<Tier, Held>,
}

#[derive(Debug)]
struct Worker {
    spec: WorkerSpec,
    registration: Registration,
    streams: BTreeMap<DpRank, Stream>,
}

/// All that is announced.
#[derive(Debug)]
pub(crate) struct Naive {
    max_orphans: usize,
    spaces: Vec<Namespace>,
    workers: BTreeMap<WorkerId, Worker>,
    /// What workers get that become known from now on.
    pub(crate) registration: Registration,
}

impl Naive {
    pub(crate) fn new(max_orphans: usize) -> Self {
        let (spaces, workers) = (Vec::new(), BTreeMap::new());
        Self { max_orphans, spaces, workers, registration: Registration(0) }
    }

    /// Applies what the index applies, and says the same of it.
    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        let mut outcome = Outcome::default();
        match command {
            Command::Register(spec) => {
                let (registration, streams) = (self.registration, BTreeMap::new());
                let new = || Worker { spec: (**spec).clone(), registration, streams };
                self.workers.entry(spec.id.clone()).or_insert_with(new).spec = (**spec).clone();
            }
            Command::Unregister { worker } => {
                let gone = self.workers.remove(worker);
                let streams = gone.into_iter().flat_map(|worker| worker.streams.into_values());
                outcome.dropped = streams.map(|stream| stream.entries() as u64).sum();
            }
            Command::Events(events) => self.events(events, &mut outcome),
            Command::NewGeneration { stream, generation, registration, .. } => {
                self.enter(stream, (*registration, *generation), &mut outcome);
            }
            Command::Gap { stream, generation, first, last, policy, registration, .. } => {
                if let Some((_, stream)) = self.enter(stream, (*registration, *generation), &mut outcome) {
                    stream.gap(*first, *last, *policy, &mut outcome);
                }
            }
            Command::Forget(blocks) => self.forget(blocks, &mut outcome),
            Command::Evict { .. } => unreachable!("the model is told what goes, see `evict`"),
        }
        outcome
    }

    /// The stream in this generation, which clears it when it is a later one.
    fn enter(
        &mut self,
        id: &StreamId,
        (made_for, generation): (Registration, Generation),
        outcome: &mut Outcome,
    ) -> Option<(&WorkerSpec, &mut Stream)> {
        let Some(Worker { spec, registration, streams }) = self.workers.get_mut(&id.worker) else {
            outcome.unknown_worker += 1;
            return None;
        };
        if ![*registration, Registration(0)].contains(&made_for) {
            outcome.other_registration += 1;
            return None;
        }
        let stream = streams.entry(id.dp_rank).or_default();
        if generation < stream.generation {
            outcome.stale += 1;
            return None;
        }
        if generation > stream.generation {
            stream.clear(None, outcome);
            *stream = Stream { generation, ..Stream::default() };
            outcome.generations += 1;
        }
        Some((spec, stream))
    }

    fn events(&mut self, events: &StreamEvents, outcome: &mut Outcome) {
        let life = (events.registration, events.generation);
        let (mut spaces, max_orphans) = (std::mem::take(&mut self.spaces), self.max_orphans);
        if let Some((spec, stream)) = self.enter(&events.stream, life, outcome) {
            for batch in &events.batches {
                if stream.applied.is_some_and(|applied| batch.seq <= applied) {
                    outcome.duplicates += 1;
                    continue;
                }
                stream.applied = Some(batch.seq);
                outcome.batches += 1;
                let spaces = &mut spaces;
                let mut applying = Applying { spec, max_orphans, spaces, stream, outcome };
                batch.changes.iter().for_each(|change| applying.change(change));
            }
        }
        self.spaces = spaces;
    }

    fn forget(&mut self, blocks: &ForgottenBlocks, outcome: &mut Outcome) {
        let worker = self.workers.get_mut(&blocks.stream.worker);
        let stream = worker.and_then(|worker| {
            let stream = worker.streams.get_mut(&blocks.stream.dp_rank)?;
            Some((worker.registration, stream))
        });
        let Some((registration, stream)) = stream else {
            outcome.unknown_worker += 1;
            return;
        };
        if ![registration, Registration(0)].contains(&blocks.registration) {
            outcome.other_registration += 1;
            return;
        }
        if stream.generation != blocks.generation {
            outcome.stale += 1;
            return;
        }
        let Some(held) = stream.tiers.get_mut(&blocks.tier) else { return };
        for block in &blocks.hashes {
            held.orphans.remove(block);
            outcome.evicted += u64::from(held.names.remove(block).is_some());
        }
    }

    /// Where a stream stands; `None` when nothing was heard of it.
    pub(crate) fn stands(&self, id: &StreamId) -> Option<(Generation, Option<BatchSeq>)> {
        let stream = self.workers.get(&id.worker)?.streams.get(&id.dp_rank)?;
        Some((stream.generation, stream.applied))
    }

    fn streams(&self) -> impl Iterator<Item = (&WorkerSpec, DpRank, &Stream)> {
        self.workers
            .values()
            .flat_map(|worker| worker.streams.iter().map(|(rank, stream)| (&worker.spec, *rank, stream)))
    }

    /// Names held, wherever they lie.
    pub(crate) fn entries(&self) -> usize {
        self.streams().map(|(_, _, stream)| stream.entries()).sum()
    }

    /// Blocks that wait for their parent.
    pub(crate) fn orphans(&self) -> usize {
        let tiers = self.streams().flat_map(|(_, _, stream)| stream.tiers.values());
        tiers.map(|held| held.orphans.len()).sum()
    }
}

impl Stream {
    fn entries(&self) -> usize {
        self.tiers.values().map(|held| held.names.len()).sum()
    }

    /// Forgets one tier, or all.
    fn clear(&mut self, tier: Option<&Tier>, outcome: &mut Outcome) {
        let before = self.entries();
        self.tiers.retain(|other, _| tier.is_some_and(|tier| other != tier));
        outcome.dropped += (before - self.entries()) as u64;
    }

    fn gap(&mut self, first: BatchSeq, last: BatchSeq, policy: GapPolicy, outcome: &mut Outcome) {
        if self.applied.is_some_and(|applied| last <= applied) || last < first {
            outcome.duplicates += 1;
            return;
        }
        self.applied = Some(last);
        if policy == GapPolicy::Purge {
            self.clear(None, outcome);
        }
    }
}
