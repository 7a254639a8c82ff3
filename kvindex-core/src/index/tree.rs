//! The prefix structure: path-compressed runs of blocks, found by their first sequence hash.
//!
//! A sequence hash names a block with its whole prefix, so a block has one place per namespace, children need
//! no map in their parent (one table of run heads finds them), and one comparison with a run's last hash
//! proves the whole run. Chains may branch off in the middle of a run: the run stays as it is, so a place
//! stays valid for as long as somebody holds the block, and nothing ever has to be re-pointed.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::ops::Range;

use super::holders::Holders;
use super::owner_set::OwnerSlot;
use super::sizes::{Size, Sizes, difference};
use super::usage::{allocated, vec_bytes};
use crate::hash::SequenceHash;
use crate::limits::MAX_RUN_BLOCKS;

/// Most borders between holders that are looked at for the place where chains part.
const BORDERS: usize = 8;

/// Number of an interned namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Space(pub(crate) u32);

/// Where a block lies: valid while at least one owner holds the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) run: u32,
    pub(crate) offset: u32,
}

/// A chain of consecutive blocks.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) space: u32,
    pub(crate) blocks: Vec<SequenceHash>,
    pub(crate) holders: Holders,
}

/// Consecutive blocks of a chain that lie in one run, from `place` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) place: Place,
    pub(crate) n: usize,
    /// Whether they are not there yet.
    pub(crate) new: bool,
}

/// What [`RunTree::create`] needs.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// A run of its own.
    Run(Run),
    /// Their parent's run, with them.
    Longer(Vec<SequenceHash>),
    /// Nothing: there is room for them.
    Room,
}

/// All runs of an index.
#[derive(Debug, Default)]
pub(crate) struct RunTree {
    runs: Vec<Run>,
    free: Vec<u32>,
    heads: HashTable<u32>,
    sizes: Sizes,
}

/// Hash of a run head in the table. Fixed, because equal commands must make equal indexes.
fn head_hash(space: u32, first: SequenceHash) -> u64 {
    FixedState::with_seed(u64::from(space)).hash_one(first.0)
}

impl Run {
    /// How many of `hashes` follow each other from block `offset` on. Hashes are cumulative: equal at the end means
    /// equal all the way, and the first difference can be searched by halving. Chains mostly part where holders
    /// change, so those borders are looked at first: a long prompt's hashes are not in the processor's cache.
    fn shared(&self, offset: usize, hashes: &[SequenceHash]) -> usize {
        let blocks = self.blocks.get(offset..).unwrap_or_default();
        let n = blocks.len().min(hashes.len());
        let (blocks, hashes) = (&blocks[..n], &hashes[..n]);
        if blocks.last() == hashes.last() {
            return n;
        }
        let (mut low, mut high) = (0, n - 1);
        for segment in self.holders.segments().iter().take(BORDERS) {
            let border = (segment.end as usize).saturating_sub(offset);
            if border > high {
                break;
            }
            if blocks[border] != hashes[border] {
                high = border;
                if border > low && blocks[border - 1] == hashes[border - 1] {
                    low = border;
                }
                break;
            }
            low = border + 1;
        }
        while low < high {
            let middle = (low + high) / 2;
            if blocks[middle] == hashes[middle] { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl Run {
    pub(crate) fn heap_bytes(&self) -> usize {
        self.block_bytes() + self.holders.heap_bytes()
    }

    fn block_bytes(&self) -> usize {
        vec_bytes::<SequenceHash>(self.blocks.capacity())
    }

    fn size(&self) -> Size {
        Size { runs: 1, blocks: self.blocks.len(), bytes: self.heap_bytes() }
    }
}

impl RunTree {
    pub(crate) fn run(&self, run: u32) -> Option<&Run> {
        self.runs.get(run as usize).filter(|r| !r.blocks.is_empty())
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (u32, &Run)> {
        (0u32..).zip(&self.runs).filter(|(_, r)| !r.blocks.is_empty())
    }

    pub(crate) fn run_count(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn hash_at(&self, place: Place) -> Option<SequenceHash> {
        self.run(place.run)?.blocks.get(place.offset as usize).copied()
    }

    pub(crate) fn head(&self, space: Space, first: SequenceHash) -> Option<u32> {
        let is_it = |run: &u32| {
            let run = &self.runs[*run as usize];
            run.space == space.0 && run.blocks.first() == Some(&first)
        };
        self.heads.find(head_hash(space.0, first), is_it).copied()
    }

    /// The run that the first of `hashes` heads, and how many of them it has.
    pub(crate) fn follow(&self, space: Space, hashes: &[SequenceHash]) -> Option<(&Run, usize)> {
        let run = self.runs.get(self.head(space, *hashes.first()?)? as usize)?;
        Some((run, run.shared(0, hashes)))
    }

    /// The place of block `hash`, whose parent lies at `after` (`None`: a first block, or one whose parent
    /// is in no run).
    pub(crate) fn find(&self, space: Space, after: Option<Place>, hash: SequenceHash) -> Option<Place> {
        if let Some(parent) = after
            && let Some(run) = self.run(parent.run)
            && run.blocks.get(parent.offset as usize + 1) == Some(&hash)
        {
            return Some(Place { run: parent.run, offset: parent.offset + 1 });
        }
        self.head(space, hash).map(|run| Place { run, offset: 0 })
    }

    /// The first stretch of the chain `hashes` below `after` that lies in one run, or will: where the first block is
    /// not there, as many as can be [created](Self::create) together. They go to the end of their parent's run when
    /// there is room, else they make a run of their own, and end before a block that already heads one (its parent
    /// had gone).
    pub(crate) fn stretch(&self, space: Space, after: Option<Place>, hashes: &[SequenceHash]) -> Stretch {
        if let Some(place) = hashes.first().and_then(|first| self.find(space, after, *first)) {
            return Stretch { place, n: self.common(place, hashes), new: false };
        }
        let n = hashes.len().min(MAX_RUN_BLOCKS);
        let known = |hash: &SequenceHash| self.head(space, *hash).is_some();
        let n = hashes[1..n].iter().position(known).map_or(n, |i| i + 1);
        let parent = after.and_then(|at| Some((at, self.run(at.run)?)));
        let room = |(at, run): &(Place, &Run)| {
            run.blocks.len() == at.offset as usize + 1 && run.blocks.len() < MAX_RUN_BLOCKS
        };
        if let Some((at, run)) = parent.filter(room) {
            let place = Place { run: at.run, offset: at.offset + 1 };
            return Stretch { place, n: n.min(MAX_RUN_BLOCKS - run.blocks.len()), new: true };
        }
        let run = self.free.last().copied().unwrap_or(self.runs.len() as u32);
        Stretch { place: Place { run, offset: 0 }, n, new: true }
    }

    /// Gets blocks of a new [`stretch`](Self::stretch) ready: what takes memory is done before readers are kept out.
    pub(crate) fn prepare(&self, space: Space, place: Place, blocks: &[SequenceHash]) -> Prepared {
        let old = self.runs.get(place.run as usize).map_or(&[][..], |run| &run.blocks);
        if place.offset == 0 {
            let holders = Holders::default();
            return Prepared::Run(Run { space: space.0, blocks: blocks.to_vec(), holders });
        }
        let room = self.runs[place.run as usize].blocks.capacity() - old.len();
        if blocks.len() <= room {
            return Prepared::Room;
        }
        // Growing by a sixteenth instead of double: there are many runs, and most grow little.
        let mut longer = Vec::with_capacity(old.len() + blocks.len().max(old.len() / 16));
        longer.extend_from_slice(old);
        longer.extend_from_slice(blocks);
        Prepared::Longer(longer)
    }

    /// Makes the blocks of a new [`stretch`](Self::stretch). Somebody must come to hold them, or the run be trimmed.
    /// Answers memory to be freed.
    pub(crate) fn create(
        &mut self,
        place: Place,
        blocks: &[SequenceHash],
        prepared: Prepared,
    ) -> Vec<SequenceHash> {
        if let Prepared::Run(run) = prepared {
            self.insert_run(run);
            return Vec::new();
        }
        let run = &mut self.runs[place.run as usize];
        let before = run.block_bytes();
        let freed = match prepared {
            Prepared::Longer(longer) => std::mem::replace(&mut run.blocks, longer),
            _ => {
                run.blocks.extend_from_slice(blocks);
                Vec::new()
            }
        };
        let more = difference(before, run.block_bytes());
        self.sizes.change(run.space, 0, blocks.len() as isize, more);
        freed
    }

    /// How far from `place` on, up to `n` blocks, it stays the same whether `owner` holds, as an offset, and whether
    /// it does.
    pub(crate) fn uniform(&self, place: Place, n: usize, owner: OwnerSlot) -> (u32, bool) {
        let end = place.offset + n as u32;
        self.run(place.run).map_or((end, false), |run| run.holders.uniform(place.offset, end, owner))
    }

    /// How many of `hashes` follow each other from `place` on.
    pub(crate) fn common(&self, place: Place, hashes: &[SequenceHash]) -> usize {
        self.run(place.run).map_or(0, |run| run.shared(place.offset as usize, hashes))
    }

    pub(crate) fn insert_run(&mut self, run: Run) -> u32 {
        let hash = head_hash(run.space, run.blocks[0]);
        self.sizes.change(run.space, 1, run.blocks.len() as isize, run.heap_bytes() as isize);
        let id = match self.free.pop() {
            Some(id) => {
                self.runs[id as usize] = run;
                id
            }
            None => {
                if self.runs.len() == self.runs.capacity() {
                    // By a little instead of double: it is much memory.
                    self.runs.reserve_exact(self.runs.len() / 16 + 16);
                }
                self.runs.push(run);
                (self.runs.len() - 1) as u32
            }
        };
        let runs = &self.runs;
        let rehash = |id: &u32| head_hash(runs[*id as usize].space, runs[*id as usize].blocks[0]);
        self.heads.insert_unique(hash, id, rehash);
        id
    }

    /// Makes `owner` a holder of a part of an existing run.
    pub(crate) fn hold(&mut self, run: u32, range: Range<u32>, owner: OwnerSlot) {
        let run = &mut self.runs[run as usize];
        let more = run.holders.insert(range, owner);
        if more != 0 {
            self.sizes.change(run.space, 0, 0, more);
        }
    }

    /// Whether `owner` holds the block at a place.
    pub(crate) fn holds(&self, place: Place, owner: OwnerSlot) -> bool {
        self.run(place.run).is_some_and(|run| run.holders.contains(place.offset, owner))
    }

    /// Takes `owner` off `n` blocks from `place` on; forgets what nobody holds any more at the end of their run.
    /// Answers the run's length when that has changed.
    pub(crate) fn release(&mut self, place: Place, n: usize, owner: OwnerSlot) -> Option<usize> {
        let run = self.runs.get_mut(place.run as usize)?;
        let end = place.offset as usize + n;
        let more = run.holders.remove(place.offset..end as u32, owner);
        if more != 0 {
            self.sizes.change(run.space, 0, 0, more);
        }
        let last = end == run.blocks.len();
        if last || run.holders.segments().iter().all(|s| s.owners.is_empty()) {
            return self.trim(place.run);
        }
        None
    }

    /// Whether a run ends in blocks that nobody holds.
    pub(crate) fn is_loose(&self, run: u32) -> bool {
        self.run(run).is_some_and(|run| {
            let last = run.holders.segments().last();
            last.is_none_or(|last| last.owners.is_empty()) || (run.holders.len() as usize) < run.blocks.len()
        })
    }

    /// Forgets the end of a run, as far as nobody holds it; answers the run's length when that has changed.
    pub(crate) fn trim(&mut self, id: u32) -> Option<usize> {
        let run = self.runs.get_mut(id as usize).filter(|run| !run.blocks.is_empty())?;
        let before = run.blocks.len();
        let (kept, mut more) = run.holders.trim();
        let kept = kept as usize;
        if kept > 0 {
            run.blocks.truncate(kept);
            if run.blocks.capacity() > 4 * kept {
                more -= run.block_bytes() as isize;
                run.blocks.shrink_to(2 * kept);
                more += run.block_bytes() as isize;
            }
            self.sizes.change(run.space, 0, kept as isize - before as isize, more);
            return (kept < before).then_some(kept);
        }
        self.sizes.change(run.space, -1, -(before as isize), more - run.block_bytes() as isize);
        let hash = head_hash(run.space, run.blocks[0]);
        if let Ok(entry) = self.heads.find_entry(hash, |r| *r == id) {
            entry.remove();
        }
        self.runs[id as usize] = Run::default();
        self.free.push(id);
        self.shrink();
        Some(0)
    }

    /// Gives back what a much smaller tree does not need.
    fn shrink(&mut self) {
        if self.heads.is_empty() {
            (self.runs, self.free, self.heads) = (Vec::new(), Vec::new(), HashTable::new());
        } else if self.heads.capacity() > 1024 && self.heads.len() * 8 < self.heads.capacity() {
            let runs = &self.runs;
            let rehash = |id: &u32| head_hash(runs[*id as usize].space, runs[*id as usize].blocks[0]);
            self.heads.shrink_to(self.heads.len() * 2, rehash);
        }
    }

    /// Bytes of the runs, their tables and holders.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.sizes.all().bytes
            + self.sizes.heap_bytes()
            + vec_bytes::<Run>(self.runs.capacity())
            + self.heads_bytes()
            + vec_bytes::<u32>(self.free.capacity())
    }

    /// Bytes of the table of heads.
    pub(crate) fn heads_bytes(&self) -> usize {
        allocated(self.heads.allocation_size())
    }

    /// What runs take, by namespace and together.
    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.sizes.check(self.runs().map(|(_, run)| (run.space, run.size())))?;
        let mut blocks: Vec<(u32, SequenceHash)> = Vec::new();
        self.runs().for_each(|(_, run)| blocks.extend(run.blocks.iter().map(|block| (run.space, *block))));
        blocks.sort_unstable();
        if let Some(pair) = blocks.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("block {} lies twice in namespace {}", pair[0].1, pair[0].0));
        }
        for (id, run) in self.runs() {
            run.holders.check(run.blocks.len())?;
            if self.head(Space(run.space), run.blocks[0]) != Some(id) {
                return Err(format!("run {id} is not found by its head"));
            }
            if run.holders.segments().last().is_none_or(|s| s.owners.is_empty()) {
                return Err(format!("run {id} ends in blocks that nobody holds"));
            }
        }
        (self.runs().count() == self.heads.len()).then_some(()).ok_or("heads without runs".to_owned())
    }
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
