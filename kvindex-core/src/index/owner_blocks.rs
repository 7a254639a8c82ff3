//! What one owner holds, by the engine's own block hashes: how many copies, and where in the tree.
//!
//! Engines store and remove each physical copy on its own, so copies are counted. Two engine hashes may stand
//! for one block (an adapter name re-pointed to another path), and the block stays until both are gone.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;

use super::names::{MAX_NAMES, Names};
use super::tree::{Place, Space};
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};

pub(crate) type Map<K, V> = HashMap<K, V, FixedState>;

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

/// What adding or taking one copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copies {
    /// The first copy came.
    First,
    /// One more copy, or one fewer with some left.
    Other,
    /// The last copy went; the block lay here (`None`: known by its engine hash only).
    Last(Option<Place>),
    /// There was none to take.
    Unknown,
}

/// One owner's blocks.
#[derive(Debug, Default)]
pub(crate) struct OwnerBlocks {
    /// Every held engine hash and its place.
    held: Names,
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
    claimed: HashSet<(Space, SequenceHash), FixedState>,
}

impl OwnerBlocks {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.len() == 0
    }

    pub(crate) fn holds(&self, block: EngineBlockHash) -> bool {
        self.held.holds(block)
    }

    pub(crate) fn place(&self, block: EngineBlockHash) -> Option<Place> {
        self.held.place(block).flatten()
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

    /// Whether so many more blocks can be told apart.
    pub(crate) fn has_room(&self, blocks: usize) -> bool {
        self.held.len() + blocks <= MAX_NAMES
    }

    /// Gets ready to take copies of these blocks away.
    pub(crate) fn warm(&self, blocks: &[EngineBlockHash]) {
        self.held.warm(blocks);
    }

    /// Adds a copy; with `counted` false a block is there or not.
    pub(crate) fn add_copy(&mut self, block: EngineBlockHash, counted: bool) -> Copies {
        if self.held.insert(block) {
            return Copies::First;
        }
        if counted {
            *self.more_copies.entry(block).or_default() += 1;
        }
        Copies::Other
    }

    /// Sets the number of copies of a held block, for a snapshot being read back.
    pub(crate) fn set_copies(&mut self, block: EngineBlockHash, copies: u32) {
        if copies > 1 {
            self.more_copies.insert(block, copies - 1);
        }
    }

    /// Takes a copy away.
    pub(crate) fn take_copy(&mut self, block: EngineBlockHash) -> Copies {
        if !self.more_copies.is_empty()
            && let Some(more) = self.more_copies.get_mut(&block)
        {
            *more -= 1;
            if *more == 0 {
                self.more_copies.remove(&block);
            }
            return Copies::Other;
        }
        let Some(place) = self.held.remove(block) else {
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
        let Some(more) = self.more_names.get_mut(&place) else {
            return true;
        };
        *more -= 1;
        if *more == 0 {
            self.more_names.remove(&place);
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

    /// Everything held, in no particular order: (engine hash, place, copies).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (EngineBlockHash, Option<Place>, u32)> {
        self.held
            .iter()
            .map(|(block, place)| (block, place, 1 + self.more_copies.get(&block).copied().unwrap_or(0)))
    }

    pub(crate) fn iter_waiting(&self) -> impl Iterator<Item = (EngineBlockHash, &Orphan)> {
        self.waiting.iter().flat_map(|(parent, list)| list.values().map(|orphan| (*parent, orphan)))
    }

    pub(crate) fn iter_contents(&self) -> impl Iterator<Item = (EngineBlockHash, &Content)> {
        self.contents.iter().map(|(block, content)| (*block, content))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        fn table<K, V>(map: &Map<K, V>) -> usize {
            // hashbrown keeps one control byte a bucket and fills at most 7/8 of a power of two.
            (map.capacity() * 8 / 7) * (size_of::<(K, V)>() + 1)
        }
        let orphans = self.parent_of.len() * size_of::<Orphan>();
        let positions = self.contents.values().map(|c| c.positions.capacity() * 16).sum::<usize>();
        self.held.heap_bytes()
            + table(&self.more_copies)
            + table(&self.more_names)
            + table(&self.waiting)
            + table(&self.parent_of)
            + table(&self.contents)
            + orphans
            + positions
    }

    /// Whether the side tables speak only of what is held.
    pub(crate) fn check(&self) -> Result<(), String> {
        let stray_copy = self.more_copies.iter().find(|(b, n)| **n == 0 || !self.held.holds(**b));
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
