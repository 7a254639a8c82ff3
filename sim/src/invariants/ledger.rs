//! What is known of a run from outside the nodes: what engines published, and what the shards' logs say, written down
//! the first time that any node applies it.

use kvindex_core::replication::{LogPosition, ShardCommand, ShardId, encode, shard_of};
use kvindex_core::{
    Batch, BatchSeq, BlockHasher, Change, Command, EngineBlockHash, Generation, Registration, StreamEvents,
    StreamId, Tier, WorkerId,
};
use kvindex_server::WorkerDefinition;
use kvindex_server::cluster::HostCommand;
use kvindex_server::node::WorkerChange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::Applied;
use crate::cache::Truth;
use crate::engine::{EnginePlan, Publication};
use crate::question::spec;
use crate::witness::Reached;

/// An entry of a shard's log.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) at: LogPosition,
    pub(crate) chain: u64,
    /// What it makes of the index, with changes of workers resolved into commands.
    pub(crate) said: Vec<Command>,
    /// What it changes of streams, duplicates left out.
    pub(crate) effects: Vec<Effect>,
}

/// What an entry changes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Batch { stream: StreamId, generation: Generation, seq: u64, changes: Said, lives: BTreeSet<u64> },
    Generation { stream: StreamId, generation: Generation },
    Gap { stream: StreamId, generation: Generation, first: u64, last: u64 },
    Hole { stream: StreamId, generation: Generation, expected: u64, found: u64 },
}

/// Changes, shared.
pub(crate) type Said = Arc<Vec<ChangeOf>>;

/// What one change says of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeOf {
    Stores(Tier, Vec<EngineBlockHash>),
    Removes,
    Clears(Option<Tier>),
}

/// Where a stream stands by the log alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    pub(crate) generation: Generation,
    pub(crate) applied: Option<u64>,
    /// Every batch of this generation was there, from 0 on.
    pub(crate) whole: bool,
    /// Lives of the engine that this generation may be.
    pub(crate) lives: Option<BTreeSet<u64>>,
    /// An engine without a replay socket restarted, and its numbers went on where those of the life before had ended:
    /// from the wire nobody can tell. What such a stream holds until it is known anew is a mix of both.
    pub(crate) mixed: bool,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    shards: u16,
    without_replay: BTreeSet<StreamId>,
    pub(crate) logs: BTreeMap<ShardId, BTreeMap<u64, Committed>>,
    pub(crate) standings: BTreeMap<StreamId, Standing>,
    /// Workers, each with the number of its registration: the entry that made it known.
    registered: BTreeMap<WorkerId, (Registration, WorkerDefinition)>,
    /// Where each entry is, by its digest; the last one of equal ones.
    places: BTreeMap<(ShardId, u64), u64>,
    contents: BTreeMap<(StreamId, u64), BTreeSet<u64>>,
    truths: BTreeMap<(StreamId, u64, u64), Arc<Truth>>,
    stored: BTreeMap<(StreamId, u64), BTreeSet<(Tier, EngineBlockHash)>>,
    hasher: BlockHasher,
}

impl Ledger {
    pub(crate) fn of(shards: u16, engines: &[EnginePlan]) -> Self {
        let without = engines.iter().filter(|engine| engine.buffer == 0);
        let without_replay = without.map(|engine| engine.stream.clone()).collect();
        Self { shards, without_replay, ..Self::default() }
    }

    /// Whether a stream is a mix of lives that nobody can tell apart.
    pub(crate) fn is_mixed(&self, stream: &StreamId) -> bool {
        self.standings.get(stream).is_some_and(|standing| standing.mixed)
    }

    pub(crate) fn shard_of(&self, stream: &StreamId) -> ShardId {
        shard_of(&stream.worker, self.shards)
    }

    pub(crate) fn publish(&mut self, stream: &StreamId, publication: &Publication, truth: Truth) {
        let profile = spec(stream.worker.clone()).profile();
        let batch = Batch {
            seq: BatchSeq(publication.seq),
            changes: publication.batch.seal(&profile, &mut self.hasher),
        };
        let stored = self.stored.entry((stream.clone(), publication.life)).or_default();
        for change in &batch.changes {
            if let Change::Stored(run) = change {
                stored.extend(run.engine_hashes.iter().map(|name| (run.tier.clone(), *name)));
            }
        }
        let content = content(stream, batch);
        self.contents.entry((stream.clone(), content)).or_default().insert(publication.life);
        self.truths.insert((stream.clone(), publication.life, publication.seq), Arc::new(truth));
    }

    /// What an engine held after a batch.
    pub(crate) fn truth(&self, stream: &StreamId, life: u64, seq: u64) -> Option<&Arc<Truth>> {
        self.truths.get(&(stream.clone(), life, seq))
    }

    /// Whether an engine ever stored a block in one of these lives.
    pub(crate) fn ever_stored(
        &self,
        stream: &StreamId,
        lives: &BTreeSet<u64>,
        block: &(Tier, EngineBlockHash),
    ) -> bool {
        let stored =
            |life: &u64| self.stored.get(&(stream.clone(), *life)).is_some_and(|s| s.contains(block));
        lives.iter().any(stored)
    }

    pub(crate) fn entry(&self, shard: ShardId, index: u64) -> Option<&Committed> {
        self.logs.get(&shard)?.get(&index)
    }

    /// Whether this very entry is the log's latest, so that [`Self::standings`] are those after it.
    pub(crate) fn is_latest(&self, shard: ShardId, index: u64) -> bool {
        self.logs.get(&shard).and_then(|log| log.last_key_value()).is_some_and(|(last, _)| *last == index)
    }

    /// Commands of an entry.
    pub(crate) fn said(&self, shard: ShardId, index: u64) -> &[Command] {
        self.entry(shard, index).map(|entry| &entry.said[..]).unwrap_or_default()
    }

    /// Where an entry with this digest is.
    pub(crate) fn place_of(&self, shard: ShardId, entry: u64) -> Option<u64> {
        self.places.get(&(shard, entry)).copied()
    }

    /// How far somebody is who has everything up to this entry.
    pub(crate) fn reached(&self, shard: ShardId, at: LogPosition) -> Reached {
        let log = self.logs.get(&shard).and_then(|log| log.range(..=at.index).next_back());
        log.map(|(_, entry)| Reached { at: Some(entry.at), chain: entry.chain }).unwrap_or_default()
    }

    /// Writes an entry down, if no node applied it before.
    pub(crate) fn record(&mut self, applied: &Applied<'_>) -> Result<(), String> {
        let (shard, at) = (applied.share.shard, applied.at);
        let latest = self.logs.get(&shard).and_then(|log| log.last_key_value()).map(|(last, _)| *last);
        if latest.is_some_and(|latest| at.index <= latest) {
            return Ok(());
        }
        let (mut said, mut effects) = (Vec::new(), Vec::new());
        for command in applied.commands {
            let resolved = match command {
                ShardCommand::Index(command) => vec![command.clone()],
                ShardCommand::Host(bytes) => self.resolve(HostCommand::from_bytes(bytes)?, at),
            };
            resolved.iter().for_each(|command| self.follow(command, &mut effects));
            said.extend(resolved);
        }
        let entry = digest(applied.commands);
        let committed = Committed { at, chain: applied.share.reached.chain, said, effects };
        self.logs.entry(shard).or_default().insert(at.index, committed);
        self.places.insert((shard, entry), at.index);
        Ok(())
    }

    /// What a change of workers means for the index. Simulated workers never change how they are followed.
    fn resolve(&mut self, change: HostCommand, at: LogPosition) -> Vec<Command> {
        match change {
            HostCommand::Worker(WorkerChange::Register { definition, replace, .. }) => {
                let id = definition.spec.id.clone();
                let known = self.registered.get(&id);
                if known.is_some_and(|(_, known)| !replace || *known == *definition) {
                    return Vec::new();
                }
                let registration = known.map_or(Registration(at.index), |(registration, _)| *registration);
                let spec = Box::new(definition.spec.clone());
                self.registered.insert(id, (registration, *definition));
                vec![Command::Register(spec)]
            }
            HostCommand::Worker(WorkerChange::Unregister { worker }) => {
                self.registered.remove(&worker);
                vec![Command::Unregister { worker }]
            }
            HostCommand::Worker(WorkerChange::Publish { .. }) | HostCommand::Directory(_) => Vec::new(),
        }
    }

    fn follow(&mut self, command: &Command, effects: &mut Vec<Effect>) {
        match command {
            Command::Events(events) => {
                let life = (events.registration, events.generation);
                let current = self.enter(&events.stream, life, effects);
                let batches = events.batches.iter().filter(|_| current);
                batches.for_each(|batch| self.follow_batch(events, batch, effects));
            }
            Command::NewGeneration { stream, generation, registration, .. } => {
                self.enter(stream, (*registration, *generation), effects);
            }
            Command::Gap { stream, generation, first, last, registration, .. } => {
                let (first, last) = (first.0, last.0);
                if self.enter(stream, (*registration, *generation), effects)
                    && let Some(standing) = self.standings.get_mut(stream)
                    && standing.applied.is_none_or(|applied| last > applied)
                {
                    (standing.applied, standing.whole) = (Some(last), false);
                    effects.push(Effect::Gap {
                        stream: stream.clone(),
                        generation: *generation,
                        first,
                        last,
                    });
                }
            }
            Command::Forget(blocks) => {
                let present = self.registered.get(&blocks.stream.worker).map(|(number, _)| *number);
                if let Some(standing) = self.standings.get_mut(&blocks.stream)
                    && standing.generation == blocks.generation
                    && present
                        .is_some_and(|present| [present, Registration(0)].contains(&blocks.registration))
                {
                    // The engine holds more from now on.
                    standing.whole = false;
                }
            }
            Command::Unregister { worker } => {
                self.standings.retain(|stream, _| stream.worker != *worker);
            }
            _ => {}
        }
    }

    /// Whether the registration is the current one, and the generation too, or a later one, which begins.
    fn enter(
        &mut self,
        stream: &StreamId,
        (made_for, generation): (Registration, Generation),
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.registered.get(&stream.worker) {
            Some((present, _)) if [*present, Registration(0)].contains(&made_for) => {}
            _ => return false,
        }
        let fresh = || Standing { whole: true, ..Standing::default() };
        let standing = self.standings.entry(stream.clone()).or_insert_with(fresh);
        if generation > standing.generation {
            *standing = Standing { generation, ..fresh() };
            effects.push(Effect::Generation { stream: stream.clone(), generation });
        }
        generation == standing.generation
    }

    fn follow_batch(&mut self, events: &StreamEvents, batch: &Batch, effects: &mut Vec<Effect>) {
        let stream = &events.stream;
        let content = content(stream, batch.clone());
        let lives = self.contents.get(&(stream.clone(), content)).cloned().unwrap_or_default();
        let Some(standing) = self.standings.get_mut(stream) else { return };
        let expected = standing.applied.map_or(0, |applied| applied + 1);
        let (generation, seq) = (events.generation, batch.seq.0);
        if seq < expected {
            return;
        }
        if seq > expected {
            standing.whole = false;
            effects.push(Effect::Hole { stream: stream.clone(), generation, expected, found: seq });
        }
        standing.applied = Some(seq);
        let lives: BTreeSet<u64> = match standing.lives.take() {
            Some(before) if before.is_disjoint(&lives) && self.without_replay.contains(stream) => {
                standing.mixed = true;
                lives
            }
            Some(before) if !standing.mixed => before.intersection(&lives).copied().collect(),
            _ => lives,
        };
        standing.lives = Some(lives.clone());
        let changes = Arc::new(batch.changes.iter().map(change_of).collect());
        let stream = stream.clone();
        effects.push(Effect::Batch { stream, generation, seq, changes, lives });
    }
}

fn change_of(change: &Change) -> ChangeOf {
    match change {
        Change::Stored(run) => ChangeOf::Stores(run.tier.clone(), run.engine_hashes.to_vec()),
        Change::Cleared { tier } => ChangeOf::Clears(tier.clone()),
        _ => ChangeOf::Removes,
    }
}

/// Digest of an entry.
pub(super) fn digest(commands: &[ShardCommand]) -> u64 {
    encode(commands).map_or(0, |bytes| xxh3_64(&bytes))
}

/// What a batch says, whatever generation it is filed under.
fn content(stream: &StreamId, batch: Batch) -> u64 {
    let events = StreamEvents {
        stream: stream.clone(),
        generation: Generation(0),
        at_ms: 0,
        batches: vec![batch].into(),
        payload_digest: None,
        registration: Registration(0),
    };
    encode(&[ShardCommand::Index(Command::Events(events))]).map_or(0, |bytes| xxh3_64(&bytes))
}
