//! Read access to an index: everything a query may see, and nothing that changes it.

use std::sync::Arc;

use super::ages::Ages;
use super::holding::{HeldBlock, Holdings};
use super::journal::Journal;
use super::registry::{Owner, Registry};
use super::spaces::Spaces;
use super::tree::RunTree;
use super::view::View;
use super::{Index, OwnerSlot, StreamStamp};
use crate::hash::{EngineBlockHash, SequenceHash};
use crate::ids::{DpRank, Group, Registration, StreamId, Tier, WorkerId};
use crate::worker::{Namespace, WorkerSpec};

/// Sizes of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexStats {
    /// Registered workers.
    pub workers: usize,
    /// Their event streams heard of so far.
    pub streams: usize,
    /// (Block, owner) entries.
    pub entries: usize,
    /// Distinct blocks at known positions.
    pub blocks: usize,
    /// Runs they are packed into.
    pub runs: usize,
    /// Blocks that wait for an unknown parent.
    pub orphans: usize,
    /// Namespaces seen.
    pub namespaces: usize,
    /// Bytes that it occupies, to within a few per cent; see [`IndexReader::usage`].
    pub bytes: usize,
}

/// A worker and its streams.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStreams {
    /// What is known of it.
    pub worker: Arc<WorkerSpec>,
    /// Its streams by dp rank: stamp and held blocks.
    pub streams: Vec<(DpRank, StreamStamp, usize)>,
}

/// Shared, read-only view of an [`Index`].
#[derive(Debug, Clone, Copy)]
pub struct IndexReader<'a> {
    index: &'a Index,
}

impl<'a> IndexReader<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        Self { index }
    }

    pub(super) fn index(&self) -> &'a Index {
        self.index
    }

    pub(crate) fn registry(&self) -> &'a Registry {
        &self.index.registry
    }

    pub(crate) fn spaces(&self) -> &'a Spaces {
        &self.index.view.spaces
    }

    pub(crate) fn holdings(&self) -> Holdings<'a> {
        self.index.holdings()
    }

    pub(crate) fn view(&self) -> &'a View {
        &self.index.view
    }

    pub(crate) fn tree(&self) -> &'a RunTree {
        &self.index.view.tree
    }

    pub(crate) fn ages(&self) -> &'a Ages {
        &self.index.ages
    }

    pub(crate) fn journal(&self) -> &'a Journal {
        &self.index.journal
    }

    /// Where a stream stands; `None` when nothing was ever applied for it.
    #[must_use]
    pub fn stream(&self, stream: &StreamId) -> Option<StreamStamp> {
        self.registry().find_stream(stream).map(|s| s.stamp)
    }

    /// A registered worker.
    #[must_use]
    pub fn worker(&self, worker: &WorkerId) -> Option<Arc<WorkerSpec>> {
        self.registry().worker(worker).map(|w| Arc::clone(&w.spec))
    }

    /// The number of a worker's registration, see [`Index::number_registrations`]; `None` for an unknown worker.
    #[must_use]
    pub fn registration(&self, worker: &WorkerId) -> Option<Registration> {
        self.registry().worker(worker).map(|worker| worker.registration)
    }

    /// (Block, owner) entries of one worker; 0 for an unknown one.
    #[must_use]
    pub fn entries_of(&self, worker: &WorkerId) -> usize {
        let registry = self.registry();
        let slots = registry.streams_of(worker).into_iter().filter_map(|stream| registry.stream(stream));
        slots
            .flat_map(|stream| &stream.slots)
            .filter_map(|slot| registry.owner(*slot))
            .map(|o| o.blocks.len())
            .sum()
    }

    /// All registered workers in order of their ids.
    pub fn workers(&self) -> impl Iterator<Item = WorkerStreams> + 'a {
        let registry = self.registry();
        registry.workers().map(move |worker| {
            let streams = worker.streams.iter().filter_map(|(rank, stream)| {
                let stream = registry.stream(*stream)?;
                let held = stream.slots.iter().filter_map(|s| registry.owner(*s)).map(|o| o.blocks.len());
                Some((*rank, stream.stamp, held.sum()))
            });
            WorkerStreams { worker: Arc::clone(&worker.spec), streams: streams.collect() }
        })
    }

    /// Every held block at a known position: (stream, tier, group, namespace, sequence hash, copies), in
    /// order of streams and owners. For dumps and tests; walks the whole index.
    pub fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a StreamId, &'a Tier, Group, &'a Namespace, SequenceHash, u32)> {
        let (registry, tree, spaces) = (self.registry(), self.tree(), self.spaces());
        self.sorted_owners().into_iter().flat_map(move |(stream, owner, mut blocks)| {
            blocks.sort_unstable();
            blocks.into_iter().filter_map(move |(_, place, copies)| {
                let (place, run) = (place?, tree.run(place?.run)?);
                let namespace = spaces.get(super::Space(run.space))?;
                let hash = tree.hash_at(place)?;
                Some((&registry.stream(stream)?.id, &owner.tier, owner.group, namespace, hash, copies))
            })
        })
    }

    /// Every held block by the engine's own hash, whether its position is known or not: (stream, tier, group, engine
    /// hash, copies), in order of streams and owners. For dumps and tests; walks the whole index.
    pub fn names(&self) -> impl Iterator<Item = (&'a StreamId, &'a Tier, Group, EngineBlockHash, u32)> {
        let registry = self.registry();
        self.sorted_owners().into_iter().flat_map(move |(stream, owner, mut blocks)| {
            blocks.sort_unstable();
            let stream = registry.stream(stream);
            blocks.into_iter().filter_map(move |(block, _, copies)| {
                Some((&stream?.id, &owner.tier, owner.group, block, copies))
            })
        })
    }

    /// Owners and what they hold, in an order that does not depend on history: by stream id, tier and group.
    fn sorted_owners(&self) -> Vec<(u32, &'a Owner, Vec<HeldBlock>)> {
        let registry = self.registry();
        let mut held = self.holdings().blocks_of_all();
        let mut owners: Vec<(OwnerSlot, &Owner)> = registry.owners().collect();
        owners.sort_by_key(|(_, owner)| {
            (registry.stream(owner.stream).map(|s| &s.id), &owner.tier, owner.group)
        });
        let mut held = |slot: OwnerSlot| std::mem::take(&mut held[slot.index()]);
        owners.into_iter().map(|(slot, owner)| (owner.stream, owner, held(slot))).collect()
    }

    /// (Block, owner) entries; unlike [`stats`](Self::stats) it walks nothing.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.index.entries
    }

    /// Sizes. Looks at every worker and owner, but at no block or run.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        let owners = || self.registry().owners().map(|(_, owner)| &owner.blocks);
        IndexStats {
            workers: self.registry().workers().count(),
            streams: self.registry().workers().map(|w| w.streams.len()).sum(),
            entries: self.index.entries,
            blocks: self.tree().sizes().all().blocks,
            runs: self.tree().run_count(),
            orphans: owners().map(super::owner_blocks::OwnerBlocks::orphans).sum(),
            namespaces: self.spaces().all().len(),
            bytes: self.bytes(),
        }
    }
}

impl Index {
    /// Sizes; see [`IndexReader::stats`].
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        self.reader().stats()
    }

    /// Checks that tree, owners and counters agree. For tests, simulation and snapshot loads: walks the
    /// whole index.
    ///
    /// # Errors
    /// A sentence on the first thing that does not agree.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.view.tree.check()?;
        let mut entries = 0;
        let mut held = 0usize;
        self.naming.check(|run| self.view.tree.run(run).map_or(0, |run| run.blocks.len()))?;
        let blocks = self.holdings().blocks_of_all();
        for (slot, owner) in self.registry.owners() {
            let shares = |block| {
                owner.blocks.own_place(block).is_none() && self.holdings().place(slot, block).is_some()
            };
            owner.blocks.check(shares)?;
            let blocks = &blocks[slot.index()];
            if blocks.len() != owner.blocks.len() {
                return Err(format!(
                    "{slot:?} holds {} blocks, counted {}",
                    blocks.len(),
                    owner.blocks.len()
                ));
            }
            entries += owner.blocks.len();
            let mut places: Vec<_> = blocks.iter().filter_map(|(_, place, _)| *place).collect();
            places.sort_unstable();
            places.dedup();
            held += places.len();
            for place in places {
                let run = self.view.tree.run(place.run).ok_or_else(|| format!("{place:?} is in no run"))?;
                if !run.holders.contains(place.offset, slot) {
                    return Err(format!("{slot:?} holds {place:?} but the run does not know"));
                }
            }
            held += owner
                .blocks
                .iter_contents()
                .filter(|(b, _)| owner.blocks.own_place(*b).is_some())
                .map(|(_, c)| c.positions.len())
                .sum::<usize>();
        }
        if entries != self.entries {
            return Err(format!("{entries} entries, counted {}", self.entries));
        }
        let in_runs: usize = self.view.tree.runs().map(|(_, run)| run.holders.held()).sum();
        (held == in_runs).then_some(()).ok_or_else(|| format!("owners hold {held}, runs say {in_runs}"))
    }
}
