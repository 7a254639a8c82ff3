//! The change feed: what the index did, told to watchers through a bounded queue. A watcher that reads too
//! slowly loses events and learns how many; it never holds up ingest.

use std::collections::HashMap;
use std::sync::Arc;

use kvindex_core::{
    BatchSeq, Command, DpRank, Generation, Group, Index, Notice, SequenceHash, StreamId, Tier, WorkerId,
};
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{StreamExt, StreamMap};

use super::unix_ms;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedKind {
    /// Blocks are held from now on.
    Stored,
    /// Blocks are not held any more.
    Removed,
    /// A tier, or a whole stream, is empty.
    Cleared,
    /// Batches were lost.
    Gap,
    /// A new life of the engine's cache began.
    Generation,
    /// A worker was registered or its definition replaced.
    Registered,
    /// A worker is gone.
    Unregistered,
}

impl FeedKind {
    /// The kind's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Removed => "removed",
            Self::Cleared => "cleared",
            Self::Gap => "gap",
            Self::Generation => "generation",
            Self::Registered => "registered",
            Self::Unregistered => "unregistered",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEvent {
    /// The worker.
    pub worker: WorkerId,
    /// Its tenant; `None` when it is not registered.
    pub tenant: Option<Arc<str>>,
    /// Its model; `None` when it is not registered.
    pub model: Option<Arc<str>>,
    /// The rank.
    pub dp_rank: DpRank,
    /// Which life of its cache.
    pub generation: Generation,
    /// The batch that did it, when one did.
    pub seq: Option<BatchSeq>,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub kind: FeedKind,
    /// The tier, when it is about one.
    pub tier: Option<Tier>,
    /// KV-cache group of the blocks.
    pub group: Group,
    /// LoRA adapter of the blocks.
    pub lora: Option<Arc<str>>,
    /// Tokens a block; 0 when no blocks are named.
    pub block_size: u32,
    /// The blocks.
    pub blocks: Vec<SequenceHash>,
    /// How many blocks or batches.
    pub count: u64,
}

/// What a watcher reads.
#[derive(Debug)]
pub struct Watcher {
    /// One for each tenant it is bound to, or the one of all.
    events: StreamMap<usize, BroadcastStream<Arc<FeedEvent>>>,
}

impl Watcher {
    /// The next change, or the number of changes lost because this watcher was slow; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Arc<FeedEvent>, u64>> {
        let (_, event) = self.events.next().await?;
        Some(event.map_err(|BroadcastStreamRecvError::Lagged(lost)| lost))
    }
}

type Queue = broadcast::Sender<Arc<FeedEvent>>;

/// A queue for those who watch everything, and one for each tenant that somebody is bound to: what a watcher of one
/// tenant loses, and how many, must not depend on what happens to another.
#[derive(Debug)]
pub(super) struct Feed {
    all: Queue,
    tenants: RwLock<HashMap<Arc<str>, Queue>>,
    buffer: usize,
}

impl Feed {
    pub(super) fn new(buffer: usize) -> Self {
        Self { all: Queue::new(buffer), tenants: RwLock::default(), buffer }
    }

    pub(super) fn is_watched(&self) -> bool {
        let watched = |queue: &Queue| queue.receiver_count() > 0;
        watched(&self.all) || self.tenants.read().values().any(watched)
    }

    pub(super) fn watch(&self) -> Watcher {
        Watcher { events: StreamMap::from_iter([(0, self.all.subscribe().into())]) }
    }

    /// Of some tenants only.
    pub(super) fn watch_tenants<'a>(&self, tenants: impl Iterator<Item = &'a str>) -> Watcher {
        let mut queues = self.tenants.write();
        // Those whose last watcher has left make room for the next.
        queues.retain(|_, queue| queue.receiver_count() > 0);
        let subscribe = |tenant: &str| {
            let queue = queues.entry(tenant.into()).or_insert_with(|| Queue::new(self.buffer));
            queue.subscribe().into()
        };
        Watcher { events: tenants.map(subscribe).enumerate().collect() }
    }

    /// What a command's notices are collected into, seen before the command is applied.
    pub(super) fn collect(&self, index: &Index, command: &Command) -> Collected {
        let (worker, generation, at_ms) = match command {
            Command::Evict { at_ms, .. } => return Collected::of_many(index, *at_ms),
            Command::Register(spec) => (&spec.id, Generation::default(), unix_ms()),
            Command::Unregister { worker } => (worker, Generation::default(), unix_ms()),
            Command::Forget(blocks) => (&blocks.stream.worker, blocks.generation, blocks.at_ms),
            Command::Events(events) => (&events.stream.worker, events.generation, events.at_ms),
            Command::NewGeneration { stream, generation, at_ms, .. }
            | Command::Gap { stream, generation, at_ms, .. } => (&stream.worker, *generation, *at_ms),
        };
        let reader = index.reader();
        let known = reader.worker(worker);
        let spec = match command {
            Command::Register(spec) => Some(&**spec),
            _ => known.as_deref(),
        };
        let (model, tenant) =
            spec.map(|spec| (spec.model.as_str().into(), spec.tenant.as_str().into())).unzip();
        Collected { model, tenant, generation, generations: HashMap::new(), at_ms, events: Vec::new() }
    }

    pub(super) fn send(&self, collected: Collected) {
        let tenants = self.tenants.read();
        for event in collected.events {
            let event = Arc::new(event);
            // Sending fails only when the last watcher has just left.
            if let Some(queue) = event.tenant.as_ref().and_then(|tenant| tenants.get(tenant)) {
                let _ = queue.send(Arc::clone(&event));
            }
            let _ = self.all.send(event);
        }
    }
}

pub(super) struct Collected {
    tenant: Option<Arc<str>>,
    model: Option<Arc<str>>,
    generation: Generation,
    /// Of each stream, when the command is about many.
    generations: HashMap<StreamId, Generation>,
    at_ms: u64,
    events: Vec<FeedEvent>,
}

impl Collected {
    /// For a command that is about no one worker.
    fn of_many(index: &Index, at_ms: u64) -> Self {
        let workers = index.reader().workers();
        let generations = workers.flat_map(|it| {
            let worker = it.worker.id.clone();
            let id = move |dp_rank| StreamId { worker: worker.clone(), dp_rank };
            it.streams.into_iter().map(move |(rank, stamp, _)| (id(rank), stamp.generation))
        });
        let generations = generations.collect();
        Self {
            tenant: None,
            model: None,
            generation: Generation::default(),
            generations,
            at_ms,
            events: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, notice: Notice<'_>) {
        let event = match notice {
            Notice::Stored { stream, batch, tier, group, namespace, blocks } => FeedEvent {
                seq: Some(batch),
                tier: Some(tier.clone()),
                group,
                lora: namespace.lora.clone(),
                block_size: namespace.block_size,
                blocks: blocks.to_vec(),
                count: blocks.len() as u64,
                ..self.about(stream, FeedKind::Stored)
            },
            Notice::Removed { stream, batch, tier, group, namespace, block } => {
                let event = FeedEvent {
                    tenant: self.tenant.clone().or_else(|| Some(Arc::clone(&namespace.tenant))),
                    model: self.model.clone().or_else(|| Some(Arc::clone(&namespace.model))),
                    seq: Some(batch),
                    tier: Some(tier.clone()),
                    group,
                    lora: namespace.lora.clone(),
                    block_size: namespace.block_size,
                    blocks: vec![block],
                    count: 1,
                    ..self.about(stream, FeedKind::Removed)
                };
                return self.removed(event);
            }
            Notice::Cleared { stream, tier, blocks } => {
                FeedEvent { tier: tier.cloned(), count: blocks, ..self.about(stream, FeedKind::Cleared) }
            }
            Notice::Gap { stream, first, last } => FeedEvent {
                seq: Some(last),
                count: (last.0 - first.0).saturating_add(1),
                ..self.about(stream, FeedKind::Gap)
            },
            Notice::Generation { stream, .. } => self.about(stream, FeedKind::Generation),
            Notice::Registered { worker } => self.about_worker(worker, FeedKind::Registered),
            Notice::Unregistered { worker } => self.about_worker(worker, FeedKind::Unregistered),
        };
        self.events.push(event);
    }

    /// Removals come block by block; neighbours of one batch become one event.
    fn removed(&mut self, event: FeedEvent) {
        match self.events.last_mut() {
            Some(last)
                if last.kind == FeedKind::Removed
                    && (&last.worker, last.dp_rank, last.seq)
                        == (&event.worker, event.dp_rank, event.seq)
                    && (&last.tier, last.group, &last.lora, last.block_size)
                        == (&event.tier, event.group, &event.lora, event.block_size) =>
            {
                last.blocks.extend(event.blocks);
                last.count += 1;
            }
            _ => self.events.push(event),
        }
    }

    fn about(&self, stream: &StreamId, kind: FeedKind) -> FeedEvent {
        let generation = self.generations.get(stream).copied().unwrap_or(self.generation);
        FeedEvent { dp_rank: stream.dp_rank, generation, ..self.about_worker(&stream.worker, kind) }
    }

    fn about_worker(&self, worker: &WorkerId, kind: FeedKind) -> FeedEvent {
        FeedEvent {
            worker: worker.clone(),
            tenant: self.tenant.clone(),
            model: self.model.clone(),
            dp_rank: DpRank::default(),
            generation: self.generation,
            seq: None,
            at_ms: self.at_ms,
            kind,
            tier: None,
            group: Group(0),
            lora: None,
            block_size: 0,
            blocks: Vec::new(),
            count: 0,
        }
    }
}
