//! What one owner holds, by the engine's own block hashes: how many copies, and where in the tree.
//!
//! Engines store and remove each physical copy on its own, so copies are counted. Two engine hashes may stand
//! for one block (an adapter name re-pointed to another path), and the block stays until both are gone.
//!
//! Blocks that the owner calls by their shared name ([`naming`](super::naming)) are not listed here: the runs know
//! them, and only their number and further copies are kept. [`holding`](super::holding) puts both together.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;

use super::names::{MAX_NAMES, Names};
use super::tree::{Place, Space};
use super::usage::{allocated, tree_bytes, vec_bytes};
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;
pub(crate) type Set<K> = HashSet<K, FixedState>;

/// A block that waits for its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) block: EngineBlockHash,
    pub(crate) space: Space,
    pub(crate) local: LocalBlockHash,
}

/// A block of an engine that hashes content alone: its content, and every place it was announced at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) local: Option<LocalBlockHash>,
    pub(crate) positions: Vec<(Space, SequenceHash)>,
}

/// What taking one copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// One copy fewer, with some left.
    Other,
    /// The last copy went; the block lay here (`None`: known by its engine hash only).
    Last(Option<Place>),
    /// There was none to take.
    Unknown,
}

/// One owner's blocks.
#[derive(Debug, Default)]
pub(crate) struct OwnerBlocks {
    /// Every engine hash that is held under a name of the owner's own, and its place.
    held: Names,
    /// Blocks held under their shared names.
    shared: usize,
    /// Copies beyond the first.
    more_copies: Map<EngineBlockHash, u32>,
    /// Engine hashes beyond the first at one place.
    more_names: Map<Place, u32>,
    /// Orphans by the parent they wait for, and the parent by orphan.
    waiting: Map<EngineBlockHash, BTreeMap<EngineBlockHash, Orphan>>,
    parent_of: Map<EngineBlockHash, EngineBlockHash>,
    /// Only for engines that hash content alone.
    contents: Map<EngineBlockHash, Content>,
    /// Positions that one of the contents has: a position has one engine hash.
    claimed: Set<(Space, SequenceHash)>,
}

/// Gives back what a much smaller table does not need.
fn shrink<K: Eq + std::hash::Hash, V>(map: &mut Map<K, V>) {
    if map.capacity() > 64 && map.len() * 8 < map.capacity() {
        map.shrink_to(map.len() * 2);
    }
}

impl OwnerBlocks {
    pub(crate) fn len(&self) -> usize {
        self.held.len() + self.shared
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Blocks held under names of the owner's own.
    pub(crate) fn own(&self) -> usize {
        self.held.len()
    }

    /// Blocks held under their shared names.
    pub(crate) fn shared(&self) -> usize {
        self.shared
    }

    /// Whether all that is held is held under its shared name, and in one copy.
    pub(crate) fn shares_all_once(&self) -> bool {
        self.shared > 0 && self.held.len() == 0 && self.more_copies.is_empty() && self.contents.is_empty()
    }

    /// So many blocks more, or fewer, are held under their shared names.
    pub(crate) fn share(&mut self, more: usize) {
        self.shared += more;
    }

    pub(crate) fn unshare(&mut self, fewer: usize) {
        self.shared -= fewer;
    }

    /// Where a block lies that is held under a name of the owner's own; `None` when there is none such, `Some(None)`
    /// when its position is unknown.
    pub(crate) fn own_place(&self, block: EngineBlockHash) -> Option<Option<Place>> {
        self.held.place(block)
    }

    /// Whether one of these is held under a name of the owner's own.
    pub(crate) fn owns_any(&self, blocks: &[EngineBlockHash]) -> bool {
        self.held.len() > 0 && blocks.iter().any(|block| self.held.holds(*block))
    }

    /// Held blocks whose position is unknown.
    pub(crate) fn unplaced(&self) -> usize {
        self.held.unplaced()
    }

    /// Whether the block is held without a known position.
    pub(crate) fn is_unplaced(&self, block: EngineBlockHash) -> bool {
        self.held.unplaced() > 0 && self.held.place(block) == Some(None)
    }

    pub(crate) fn orphans(&self) -> usize {
        self.parent_of.len()
    }

    /// Adds the first copies of blocks none of which is held, and none twice; answers the number of the first one.
    /// Otherwise nothing changes.
    pub(crate) fn add_new(&mut self, blocks: &[EngineBlockHash]) -> Option<usize> {
        self.held.insert_all(blocks)
    }

    /// Whether so many more blocks can be told apart. All that are held count, so that it makes no difference which
    /// of them are held under shared names.
    pub(crate) fn has_room(&self, blocks: usize) -> bool {
        self.len() + blocks <= MAX_NAMES
    }

    /// Gets ready to take copies of these blocks away.
    pub(crate) fn warm(&self, blocks: &[EngineBlockHash]) {
        self.held.warm(blocks);
    }

    /// Adds a block that is not held, at an unknown position.
    pub(crate) fn add(&mut self, block: EngineBlockHash) {
        self.held.insert(block);
    }

    /// Adds a copy of a held block.
    pub(crate) fn add_copy(&mut self, block: EngineBlockHash) {
        *self.more_copies.entry(block).or_default() += 1;
    }

    /// Forgets all copies of a held block but one.
    pub(crate) fn drop_copies(&mut self, block: EngineBlockHash) {
        if !self.more_copies.is_empty() {
            self.more_copies.remove(&block);
            shrink(&mut self.more_copies);
        }
    }

    /// Engine hashes beyond the first at a place that the owner holds.
    pub(crate) fn more_names(&self, place: Place) -> usize {
        if self.more_names.is_empty() { 0 } else { self.more_names.get(&place).map_or(0, |n| *n as usize) }
    }

    /// Whether some place has more than one engine hash.
    pub(crate) fn has_more_names(&self) -> bool {
        !self.more_names.is_empty()
    }

    /// Gives back what removed names left, when that is a good part.
    pub(crate) fn tighten(&mut self) {
        let (live, kept) = (self.held.len(), self.held.stretches().map(|(_, n)| n).sum::<usize>());
        if kept > live + live / 16 + 64 {
            self.held.pack(0);
        }
    }

    /// A block is held under its shared name from now on.
    pub(crate) fn give_up_own(&mut self, block: EngineBlockHash) {
        self.forget_orphan(block);
        if self.held.len() > 0 {
            self.held.remove(block);
        }
    }

    /// Sets the number of copies of a held block, for a snapshot being read back.
    pub(crate) fn set_copies(&mut self, block: EngineBlockHash, copies: u32) {
        if copies > 1 {
            self.more_copies.insert(block, copies - 1);
        }
    }

    /// Takes a copy away; `Unknown` when the block is not held under a name of the owner's own, and there is no
    /// further copy of it.
    pub(crate) fn take_copy(&mut self, block: EngineBlockHash) -> Copies {
        if !self.more_copies.is_empty()
            && let Some(more) = self.more_copies.get_mut(&block)
        {
            *more -= 1;
            if *more == 0 {
                self.more_copies.remove(&block);
                shrink(&mut self.more_copies);
            }
            return Copies::Other;
        }
        let Some(place) = (self.held.len() > 0).then(|| self.held.remove(block)).flatten() else {
            return Copies::Unknown;
        };
        self.forget_orphan(block);
        Copies::Last(place)
    }

    /// Notes where a held block lies. Answers whether the owner is new to that place.
    pub(crate) fn settle(&mut self, block: EngineBlockHash, place: Place, already_there: bool) {
        self.forget_orphan(block);
        self.held.settle(block, place);
        if already_there {
            *self.more_names.entry(place).or_default() += 1;
        }
    }

    /// Notes where the newest blocks lie: `n` from number `from` on, at `place` and after it.
    pub(crate) fn settle_new(&mut self, from: usize, place: Place, n: usize, already_there: bool) {
        self.held.settle_new(from, place, n);
        for i in (0..n as u32).filter(|_| already_there) {
            let here = Place { run: place.run, offset: place.offset + i };
            *self.more_names.entry(here).or_default() += 1;
        }
    }

    /// Forgets where every block lies, for chains that are cut in other units from now on; answers the places.
    pub(crate) fn unseat(&mut self) -> Vec<Place> {
        let mut places = self.held.unseat();
        self.more_names.clear();
        self.waiting.clear();
        self.parent_of.clear();
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        places
    }

    /// Gives up one name of a place; answers whether it was the last, so that the place must be released.
    pub(crate) fn leave(&mut self, place: Place) -> bool {
        if self.more_names.is_empty() {
            return true;
        }
        let Some(more) = self.more_names.get_mut(&place) else {
            return true;
        };
        *more -= 1;
        if *more == 0 {
            self.more_names.remove(&place);
            shrink(&mut self.more_names);
        }
        false
    }

    /// Remembers that a held block waits for `parent`.
    pub(crate) fn wait_for(&mut self, parent: EngineBlockHash, orphan: Orphan) {
        self.forget_orphan(orphan.block);
        self.parent_of.insert(orphan.block, parent);
        self.waiting.entry(parent).or_default().insert(orphan.block, orphan);
    }

    /// The orphans of `parent`, which are none any more.
    pub(crate) fn take_waiting(&mut self, parent: EngineBlockHash) -> Vec<Orphan> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let orphans = self.waiting.remove(&parent).unwrap_or_default();
        for orphan in orphans.keys() {
            self.parent_of.remove(orphan);
        }
        self.shrink_waiting();
        orphans.into_values().collect()
    }

    fn forget_orphan(&mut self, block: EngineBlockHash) {
        if self.parent_of.is_empty() {
            return;
        }
        let Some(parent) = self.parent_of.remove(&block) else { return };
        if let Some(list) = self.waiting.get_mut(&parent) {
            list.remove(&block);
            if list.is_empty() {
                self.waiting.remove(&parent);
            }
        }
        self.shrink_waiting();
    }

    fn shrink_waiting(&mut self) {
        shrink(&mut self.waiting);
        shrink(&mut self.parent_of);
    }

    pub(crate) fn content(&mut self, block: EngineBlockHash) -> &mut Content {
        self.contents.entry(block).or_default()
    }

    /// Takes a position for one content; false when another has it.
    pub(crate) fn claim(&mut self, position: (Space, SequenceHash)) -> bool {
        self.claimed.insert(position)
    }

    pub(crate) fn content_of(&self, block: EngineBlockHash) -> Option<&Content> {
        self.contents.get(&block)
    }

    pub(crate) fn contents_known(&self) -> usize {
        self.contents.len()
    }

    /// Everything held under names of the owner's own, in no particular order.
    pub(crate) fn iter_own(&self) -> impl Iterator<Item = (EngineBlockHash, Option<Place>)> {
        self.held.iter()
    }

    /// Copies of a held block.
    pub(crate) fn copies(&self, block: EngineBlockHash) -> u32 {
        1 + self.more_copies.get(&block).copied().unwrap_or(0)
    }

    /// Held blocks of which there is more than one copy, and how many there are, in no particular order.
    pub(crate) fn iter_copies(&self) -> impl Iterator<Item = (EngineBlockHash, u32)> {
        self.more_copies.iter().map(|(block, more)| (*block, 1 + more))
    }

    pub(crate) fn iter_waiting(&self) -> impl Iterator<Item = (EngineBlockHash, &Orphan)> {
        self.waiting.iter().flat_map(|(parent, list)| list.values().map(|orphan| (*parent, orphan)))
    }

    pub(crate) fn iter_contents(&self) -> impl Iterator<Item = (EngineBlockHash, &Content)> {
        self.contents.iter().map(|(block, content)| (*block, content))
    }

    /// Walks nothing: where many small lists are kept, their bytes follow from how many they are and hold.
    pub(crate) fn heap_bytes(&self) -> usize {
        fn table<K: Eq + std::hash::Hash, V>(map: &Map<K, V>) -> usize {
            allocated(map.allocation_size())
        }
        // Mostly few wait for one parent, and fit in one node.
        let nodes = self.waiting.len().max(self.parent_of.len() / 7);
        let orphans = nodes * tree_bytes::<EngineBlockHash, Orphan>(1);
        // A list begins with room for four.
        let (lists, all) = (self.contents.len().min(self.claimed.len()), self.claimed.len());
        let beyond = all.saturating_sub(4 * lists);
        let positions =
            lists * vec_bytes::<(Space, SequenceHash)>(4) + beyond * size_of::<(Space, SequenceHash)>();
        self.held.heap_bytes()
            + table(&self.more_copies)
            + table(&self.more_names)
            + table(&self.waiting)
            + table(&self.parent_of)
            + table(&self.contents)
            + allocated(self.claimed.allocation_size())
            + orphans
            + positions
    }

    /// How many of the owner's own names lie in which runs, stretch by stretch.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = (Option<u32>, usize)> {
        self.held.stretches()
    }

    /// Whether the side tables speak only of what is held; `shares` says whether a block is under its shared name.
    pub(crate) fn check(&self, shares: impl Fn(EngineBlockHash) -> bool) -> Result<(), String> {
        let held = |block: EngineBlockHash| self.held.holds(block) || shares(block);
        let stray_copy = self.more_copies.iter().find(|(b, n)| **n == 0 || !held(**b));
        if let Some((block, n)) = stray_copy {
            return Err(format!("{n} more copies of {block}, which is not held"));
        }
        self.held.check()?;
        let mut names: Map<Place, u32> = Map::default();
        for place in self.held.iter().filter_map(|(_, place)| place) {
            *names.entry(place).or_default() += 1;
        }
        for (place, n) in &names {
            if n - 1 != self.more_names.get(place).copied().unwrap_or(0) {
                return Err(format!("{n} names at {place:?} are counted wrong"));
            }
        }
        for (block, parent) in &self.parent_of {
            let waits = self.waiting.get(parent).is_some_and(|l| l.contains_key(block));
            if !waits || self.held.place(*block) != Some(None) {
                return Err(format!("orphan {block} of {parent} is kept wrong"));
            }
        }
        Ok(())
    }
}
