//! The implementations side by side, behind one trait.

pub(crate) mod block_maps;
pub(crate) mod dynamo;
pub(crate) mod kvindex;
pub(crate) mod smg;

use clap::ValueEnum;

use crate::work::Credit;
use crate::work::stream::{Block, Op, Stream};

/// What an implementation has to provide. Events and questions take its own form outside the timed part; events
/// of one worker are applied in the order submitted.
pub(crate) trait KvIndex: 'static {
    /// Whether `apply` only queues an event for the implementation's own threads.
    const QUEUES: bool = false;
    type Event: Send;
    type Query: Send + Sync;
    type Answer;
    fn store(&self, worker: u32, id: u64, parent: Option<u64>, blocks: &[Block]) -> Self::Event;
    fn remove(&self, worker: u32, id: u64, hashes: &[u64]) -> Self::Event;
    fn query(&self, locals: &[u64]) -> Self::Query;
    fn apply(&self, event: Self::Event);
    /// Returns once everything applied so far is visible.
    fn barrier(&self) {}
    fn find(&self, query: &Self::Query) -> Self::Answer;
    /// The answer by worker, those without a block left out.
    fn credits(answer: &Self::Answer) -> Vec<Credit>;
}

/// All of a stream's events in the implementation's own form.
pub(crate) fn prepare<I: KvIndex>(index: &I, stream: &Stream) -> Vec<I::Event> {
    (0..stream.events.len()).map(|at| prepare_one(index, stream, at)).collect()
}

/// One event in the implementation's own form.
pub(crate) fn prepare_one<I: KvIndex>(index: &I, stream: &Stream, at: usize) -> I::Event {
    let event = &stream.events[at];
    match &event.op {
        Op::Store { parent, blocks } => {
            index.store(event.worker, at as u64, *parent, &stream.blocks[blocks.clone()])
        }
        Op::Remove { hashes } => index.remove(event.worker, at as u64, &stream.hashes[hashes.clone()]),
    }
}

/// One of the implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Implementation {
    /// kvindex-core; engines hash alike.
    Kvindex,
    /// The same, each engine with block hashes of its own.
    KvindexPrivate,
    /// Dynamo's `ConcurrentRadixTreeCompressed` behind one writer thread.
    Crtc,
    /// Dynamo's single-threaded `RadixTree`.
    Radix,
    /// Dynamo's `PositionalIndexer` behind one writer thread.
    Pos,
    /// Shepherd Model Gateway's `RadixTree`.
    Smg,
    /// Baseline: a `radix_trie` with an entry a block.
    Trie,
    /// Baseline: a `DashMap` with an entry a block.
    Dashmap,
}

impl Implementation {
    pub(crate) const ALL: [Self; 8] = [
        Self::Kvindex,
        Self::KvindexPrivate,
        Self::Crtc,
        Self::Radix,
        Self::Pos,
        Self::Smg,
        Self::Trie,
        Self::Dashmap,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvindex => "kvindex",
            Self::KvindexPrivate => "kvindex-private",
            Self::Crtc => "crtc",
            Self::Radix => "radix",
            Self::Pos => "pos",
            Self::Smg => "smg",
            Self::Trie => "trie",
            Self::Dashmap => "dashmap",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Kvindex | Self::KvindexPrivate)
    }

    /// Whether the targets are set against it. The baselines are not: they trust every engine's hashes to be the
    /// same chain, which no peer does, and are there to show what a structure buys.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Crtc | Self::Radix | Self::Pos | Self::Smg)
    }
}

impl std::fmt::Display for Implementation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A measurement that is the same for every implementation.
pub(crate) trait Visitor {
    fn visit<I: KvIndex>(
        &mut self,
        which: Implementation,
        make: &dyn Fn() -> I,
        shared: Option<Shared<I>>,
    ) -> anyhow::Result<()>;
}

/// Asks questions while events are applied; answers the nanoseconds of each.
type Mixed<I> = fn(&I, Vec<<I as KvIndex>::Event>, &[<I as KvIndex>::Query]) -> Vec<f64>;

/// What only an index can do that several threads may use at once.
pub(crate) struct Shared<I: KvIndex> {
    /// Questions a second of so many threads.
    pub(crate) rate: fn(&I, &[I::Query], usize) -> f64,
    /// Questions while events are applied.
    pub(crate) mixed: Mixed<I>,
}

impl<I: KvIndex + Sync> Shared<I> {
    fn new() -> Option<Self> {
        Some(Self { rate: crate::threads::rate::<I>, mixed: crate::threads::mixed::<I> })
    }
}

/// Runs a measurement on one implementation.
pub(crate) fn visit(which: Implementation, visitor: &mut impl Visitor) -> anyhow::Result<()> {
    use Implementation as Is;
    match which {
        Is::Kvindex => visitor.visit(which, &|| kvindex::Kvindex::new(false), Shared::new()),
        Is::KvindexPrivate => visitor.visit(which, &|| kvindex::Kvindex::new(true), Shared::new()),
        Is::Crtc => visitor.visit(which, &dynamo::compressed, Shared::new()),
        Is::Radix => visitor.visit(which, &dynamo::Radix::default, None),
        Is::Pos => visitor.visit(which, &dynamo::positional, Shared::new()),
        Is::Smg => visitor.visit(which, &smg::Smg::default, None),
        Is::Trie => visitor.visit(which, &block_maps::Trie::default, Shared::new()),
        Is::Dashmap => visitor.visit(which, &block_maps::Sharded::default, Shared::new()),
    }
}
