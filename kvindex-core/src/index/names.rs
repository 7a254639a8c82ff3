//! The blocks that one owner holds, by the engine's own hashes, packed: most of an index's memory is here.
//!
//! Blocks get ordinals in the order in which they come. A column keeps their hashes (8 bytes), a table of 32-bit
//! slots finds an ordinal by its hash, and because blocks come in chains, stretches of ordinals lie on stretches
//! of a run, which extents say. That is about 15 bytes a block, against 38 for a map from hash to place. What is
//! removed leaves a hole; when the table fills up or holes outnumber blocks, everything is packed anew.

use super::tree::Place;
use super::usage::vec_bytes;
use crate::hash::EngineBlockHash;

/// Bits of a slot that name an ordinal; the others repeat bits of the hash, so that few columns are read in vain.
const ORDINAL_BITS: u32 = 26;
const ORDINAL_MASK: u32 = (1 << ORDINAL_BITS) - 1;
/// Most ordinals, holes included. The two largest slot values mean something else.
const MAX_ORDINALS: usize = ORDINAL_MASK as usize - 1;
/// Most blocks of one owner: 60 million; the rest of the ordinals is for holes.
pub(crate) const MAX_NAMES: usize = MAX_ORDINALS / 10 * 9;
const EMPTY: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;
/// Run of blocks whose position is unknown.
const NOWHERE: u32 = u32::MAX;

/// Ordinals from `first` up to the next extent's lie on `run` from `offset` on, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    first: u32,
    run: u32,
    offset: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    column: Vec<EngineBlockHash>,
    /// One bit an ordinal: nothing is there any more.
    holes: Vec<u64>,
    extents: Vec<Extent>,
    table: Vec<u32>,
    /// Slots of the table that are not empty.
    used: usize,
    live: usize,
    unplaced: usize,
}

/// Spreads a hash over 64 bits. Fixed, because equal commands must make equal indexes.
pub(crate) fn spread(block: EngineBlockHash) -> u64 {
    let wide = u128::from(block.0 ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    (wide as u64) ^ ((wide >> 64) as u64)
}

fn slot_value(spread: u64, ordinal: usize) -> u32 {
    ((spread as u32) << ORDINAL_BITS) | ordinal as u32
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn unplaced(&self) -> usize {
        self.unplaced
    }

    pub(crate) fn holds(&self, block: EngineBlockHash) -> bool {
        self.find(block).is_some()
    }

    /// Where a held block lies; `None` when it is not held, `Some(None)` when its position is unknown.
    pub(crate) fn place(&self, block: EngineBlockHash) -> Option<Option<Place>> {
        self.find(block).map(|(_, ordinal)| self.place_of(ordinal))
    }

    /// Makes room for so many new blocks: until they are there, ordinals stay as they are. False when there
    /// cannot be as many.
    fn reserve(&mut self, more: usize) -> bool {
        let full = (self.used + more) * 5 > self.table.len() * 4 || self.column.len() + more > MAX_ORDINALS;
        if full {
            self.pack(more);
        }
        self.column.len() + more <= MAX_ORDINALS
    }

    /// Adds a block at an unknown position; false when it is held already, or there is no room.
    pub(crate) fn insert(&mut self, block: EngineBlockHash) -> bool {
        if !self.reserve(1) {
            return false;
        }
        let spread = spread(block);
        let mut at = self.home(spread);
        let mut free = None;
        loop {
            match self.table[at] {
                EMPTY => break,
                REMOVED => free = free.or(Some(at)),
                slot if self.is_it(slot, spread, block) => return false,
                _ => {}
            }
            at = self.after(at);
        }
        self.used += usize::from(free.is_none());
        self.table[free.unwrap_or(at)] = slot_value(spread, self.column.len());
        self.push(block, NOWHERE, 0);
        self.live += 1;
        self.unplaced += 1;
        true
    }

    /// Adds blocks none of which is held, and none twice; answers the first one's ordinal. Otherwise, or when there
    /// is no room, nothing changes.
    pub(crate) fn insert_all(&mut self, blocks: &[EngineBlockHash]) -> Option<usize> {
        if blocks.is_empty() || !self.reserve(blocks.len()) {
            return None;
        }
        self.warm(blocks);
        let from = self.column.len();
        self.grow(blocks.len());
        self.column.extend_from_slice(blocks);
        for (i, block) in blocks.iter().enumerate() {
            let spread = spread(*block);
            let mut at = self.home(spread);
            loop {
                match self.table[at] {
                    EMPTY => break,
                    slot if self.is_it(slot, spread, *block) => {
                        self.take_back(&blocks[..i], from);
                        return None;
                    }
                    _ => at = self.after(at),
                }
            }
            self.table[at] = slot_value(spread, from + i);
        }
        self.extend(from, NOWHERE, 0);
        self.used += blocks.len();
        self.live += blocks.len();
        self.unplaced += blocks.len();
        Some(from)
    }

    /// Undoes the beginning of [`insert_all`](Self::insert_all): the newest slots go first, so that none is
    /// missed behind an empty one.
    fn take_back(&mut self, blocks: &[EngineBlockHash], from: usize) {
        for (i, block) in blocks.iter().enumerate().rev() {
            let spread = spread(*block);
            let slot = slot_value(spread, from + i);
            let mut at = self.home(spread);
            while self.table[at] != slot {
                at = self.after(at);
            }
            self.table[at] = EMPTY;
        }
        self.column.truncate(from);
    }

    /// Reads where these blocks will be looked for, all at once: the memory behind a table of this size is slow,
    /// but it can be asked for many lines at a time.
    pub(crate) fn warm(&self, blocks: &[EngineBlockHash]) {
        if !self.table.is_empty() && blocks.len() > 1 {
            let slots = blocks.iter().map(|block| self.table[self.home(spread(*block))]);
            std::hint::black_box(slots.fold(0, |all, slot| all ^ slot));
        }
    }

    /// Takes a block away; answers where it lay.
    pub(crate) fn remove(&mut self, block: EngineBlockHash) -> Option<Option<Place>> {
        let (at, ordinal) = self.find(block)?;
        let place = self.place_of(ordinal);
        self.table[at] = REMOVED;
        self.dig(ordinal);
        self.live -= 1;
        self.unplaced -= usize::from(place.is_none());
        if self.live == 0 {
            *self = Self::default();
        } else if self.column.len() > 2 * self.live + 64 {
            self.pack(0);
        }
        Some(place)
    }

    /// Says where a held block of unknown position lies.
    pub(crate) fn settle(&mut self, block: EngineBlockHash, place: Place) {
        let Some((at, ordinal)) = self.find(block) else { return };
        if self.column.len() >= MAX_ORDINALS {
            self.pack(0);
            return self.settle(block, place);
        }
        if self.place_of(ordinal).is_none() {
            self.unplaced -= 1;
        }
        if ordinal + 1 == self.column.len() && self.last_is_nowhere() {
            self.unplaced += 1;
            return self.settle_new(ordinal, place, 1);
        }
        self.dig(ordinal);
        self.table[at] = slot_value(spread(block), self.column.len());
        self.push(block, place.run, place.offset);
    }

    /// Says where the newest blocks lie: `n` from ordinal `from` on, at `place` and after it. Nothing from there
    /// on may have a place yet.
    pub(crate) fn settle_new(&mut self, from: usize, place: Place, n: usize) {
        let Some(tail) = self.extents.pop() else { return };
        if (tail.first as usize) < from {
            self.extents.push(tail);
        }
        self.extend(from, place.run, place.offset);
        if from + n < self.column.len() {
            self.extend(from + n, NOWHERE, 0);
        }
        self.unplaced -= n;
    }

    /// Forgets all places; answers them.
    pub(crate) fn unseat(&mut self) -> Vec<Place> {
        let places = self.iter().filter_map(|(_, place)| place).collect();
        self.extents = vec![Extent { first: 0, run: NOWHERE, offset: 0 }];
        self.unplaced = self.live;
        places
    }

    /// Every held block and its place, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (EngineBlockHash, Option<Place>)> {
        let ends = self.extents.iter().skip(1).map(|next| next.first as usize).chain([self.column.len()]);
        self.extents.iter().zip(ends).flat_map(move |(extent, end)| {
            let live = (extent.first as usize..end).filter(|ordinal| !self.is_hole(*ordinal));
            live.map(|ordinal| (self.column[ordinal], extent.place(ordinal)))
        })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        vec_bytes::<EngineBlockHash>(self.column.capacity())
            + vec_bytes::<u64>(self.holes.capacity())
            + vec_bytes::<Extent>(self.extents.capacity())
            + vec_bytes::<u32>(self.table.capacity())
    }

    /// How many blocks lie in which runs, stretch by stretch; some may have gone. `None` for those without a place.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = (Option<u32>, usize)> {
        let ends = self.extents.iter().skip(1).map(|next| next.first as usize).chain([self.column.len()]);
        self.extents
            .iter()
            .zip(ends)
            .map(|(extent, end)| ((extent.run != NOWHERE).then_some(extent.run), end - extent.first as usize))
    }

    /// Whether table, column, extents and counts agree.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut live, mut unplaced) = (0, 0);
        for (block, place) in self.iter() {
            live += 1;
            unplaced += usize::from(place.is_none());
            if self.place(block) != Some(place) {
                return Err(format!("{block} lies at {place:?} and is found at {:?}", self.place(block)));
            }
        }
        let used = self.table.iter().filter(|slot| **slot != EMPTY).count();
        let ascending = self.extents.windows(2).all(|pair| pair[0].first < pair[1].first);
        if (live, unplaced, used) != (self.live, self.unplaced, self.used) || !ascending {
            return Err(format!(
                "{live} names, {unplaced} without place, {used} slots; counted {}, {}, {}",
                self.live, self.unplaced, self.used
            ));
        }
        Ok(())
    }

    fn home(&self, spread: u64) -> usize {
        ((u128::from(spread) * self.table.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.table.len() { 0 } else { at + 1 }
    }

    fn is_it(&self, slot: u32, spread: u64, block: EngineBlockHash) -> bool {
        let alike = slot >> ORDINAL_BITS == (spread as u32) << ORDINAL_BITS >> ORDINAL_BITS;
        alike && slot < REMOVED && self.column.get((slot & ORDINAL_MASK) as usize) == Some(&block)
    }

    /// A block's slot and ordinal.
    fn find(&self, block: EngineBlockHash) -> Option<(usize, usize)> {
        if self.live == 0 {
            return None;
        }
        let spread = spread(block);
        let mut at = self.home(spread);
        loop {
            match self.table[at] {
                EMPTY => return None,
                slot if self.is_it(slot, spread, block) => return Some((at, (slot & ORDINAL_MASK) as usize)),
                _ => at = self.after(at),
            }
        }
    }

    fn place_of(&self, ordinal: usize) -> Option<Place> {
        let after = self.extents.partition_point(|extent| extent.first as usize <= ordinal);
        self.extents.get(after.checked_sub(1)?)?.place(ordinal)
    }

    fn is_hole(&self, ordinal: usize) -> bool {
        self.holes.get(ordinal / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
    }

    fn dig(&mut self, ordinal: usize) {
        let word = ordinal / 64;
        if self.holes.len() <= word {
            self.holes.resize(word + 1, 0);
        }
        self.holes[word] |= 1 << (ordinal % 64);
    }

    fn last_is_nowhere(&self) -> bool {
        self.extents.last().is_some_and(|extent| extent.run == NOWHERE)
    }

    /// Makes room in the column; growing by a little keeps the slack small, and a copy is cheap.
    fn grow(&mut self, more: usize) {
        let len = self.column.len();
        if len + more > self.column.capacity() {
            self.column.reserve_exact(more.max(if len < 4096 { len / 2 } else { len / 32 } + 16));
        }
    }

    /// Adds a column entry.
    fn push(&mut self, block: EngineBlockHash, run: u32, offset: u32) {
        let ordinal = self.column.len();
        self.grow(1);
        self.column.push(block);
        self.extend(ordinal, run, offset);
    }

    /// Ordinals from `first` on lie on `run` from `offset` on.
    fn extend(&mut self, first: usize, run: u32, offset: u32) {
        let goes_on = self.extents.last().is_some_and(|last| {
            let at = first as u32 - last.first;
            last.run == run && (run == NOWHERE || last.offset.wrapping_add(at) == offset)
        });
        if !goes_on {
            if self.extents.len() == self.extents.capacity() {
                self.extents.reserve_exact(self.extents.len() / 16 + 4);
            }
            self.extents.push(Extent { first: first as u32, run, offset });
        }
    }

    /// Closes the holes and makes a table with room for `more`.
    pub(crate) fn pack(&mut self, more: usize) {
        let room = self.live + more;
        let mut packed = Self {
            column: Vec::with_capacity(room + room / 64),
            // Small tables are cheap to have and dear to make again and again.
            table: vec![EMPTY; if room < 4096 { room * 2 } else { room * 9 / 5 } + 16],
            ..Self::default()
        };
        for (i, extent) in self.extents.iter().enumerate() {
            let end = self.extents.get(i + 1).map_or(self.column.len(), |next| next.first as usize);
            let mut from = extent.first as usize;
            while from < end {
                let whole = (from..end).find(|ordinal| self.is_hole(*ordinal)).unwrap_or(end);
                if whole > from {
                    let offset = extent.offset.wrapping_add(from as u32 - extent.first);
                    packed.extend(packed.column.len(), extent.run, offset);
                    packed.append(&self.column[from..whole]);
                }
                from = whole + 1;
            }
        }
        (packed.used, packed.live, packed.unplaced) = (self.live, self.live, self.unplaced);
        packed.extents.shrink_to_fit();
        *self = packed;
    }

    /// Adds blocks that are not held to the column and the table, both of which have room.
    fn append(&mut self, blocks: &[EngineBlockHash]) {
        for (ordinal, block) in (self.column.len()..).zip(blocks) {
            let spread = spread(*block);
            let mut at = self.home(spread);
            while self.table[at] != EMPTY {
                at = self.after(at);
            }
            self.table[at] = slot_value(spread, ordinal);
        }
        self.column.extend_from_slice(blocks);
    }
}

impl Extent {
    fn place(&self, ordinal: usize) -> Option<Place> {
        let offset = self.offset + (ordinal as u32 - self.first);
        (self.run != NOWHERE).then_some(Place { run: self.run, offset })
    }
}

#[cfg(test)]
#[path = "names_test.rs"]
mod tests;
