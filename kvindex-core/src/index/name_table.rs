//! The table under shared names: from an engine's hash to a place, in five bytes a slot.
//!
//! A slot holds the place itself (24 bits of run, 12 of offset) and 4 bits of the hash, so that few names are read
//! in vain; the hash itself is kept once, beside the block in its run ([`naming`](super::naming)). Linear probing,
//! at 55 to 82 per cent.

use super::tree::Place;

const SLOT_BYTES: usize = 5;
const SLOT_MASK: u64 = (1 << (8 * SLOT_BYTES)) - 1;
const EMPTY: u64 = SLOT_MASK;
const REMOVED: u64 = SLOT_MASK - 1;
const OFFSET_BITS: u32 = 12;
const TAG_SHIFT: u32 = 36;
/// Runs from this number on cannot be named here; the last number is kept for the two values above.
const MAX_RUN: u32 = (1 << 24) - 1;

#[derive(Debug, Default)]
pub(crate) struct NameTable {
    /// Slots, one after the other, and three bytes more, so that every slot can be read as eight bytes.
    bytes: Vec<u8>,
    slots: usize,
    /// Slots that are not empty.
    used: usize,
    live: usize,
}

/// A slot's content, if it can hold this place.
fn slot_of(spread: u64, at: Place) -> Option<u64> {
    let fits = at.run < MAX_RUN && at.offset < 1 << OFFSET_BITS;
    let place = u64::from(at.run) << OFFSET_BITS | u64::from(at.offset);
    fits.then_some((spread & 0xf) << TAG_SHIFT | place)
}

fn place_of(slot: u64) -> Place {
    let run = (slot >> OFFSET_BITS) as u32 & MAX_RUN;
    Place { run, offset: slot as u32 & ((1 << OFFSET_BITS) - 1) }
}

impl NameTable {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Whether so many more names need another table, of [`NameTable::with_room`].
    pub(crate) fn is_full(&self, more: usize) -> bool {
        (self.used + more) * 50 > self.slots * 41
    }

    /// Whether a much smaller table would do.
    pub(crate) fn is_sparse(&self) -> bool {
        self.slots > 1024 && self.live * 5 < self.slots
    }

    /// An empty table for so many names.
    pub(crate) fn with_room(names: usize) -> Self {
        let slots = names * 9 / 5 + 16;
        Self { bytes: vec![u8::MAX; slots * SLOT_BYTES + 3], slots, used: 0, live: 0 }
    }

    fn home(&self, spread: u64) -> usize {
        ((u128::from(spread) * self.slots as u128) >> 64) as usize
    }

    fn slot(&self, at: usize) -> u64 {
        let bytes = self.bytes.get(at * SLOT_BYTES..).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(EMPTY, |bytes| u64::from_le_bytes(*bytes) & SLOT_MASK)
    }

    fn set(&mut self, at: usize, slot: u64) {
        let bytes = slot.to_le_bytes();
        self.bytes[at * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&bytes[..SLOT_BYTES]);
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots { 0 } else { at + 1 }
    }

    /// Reads where these will be looked for, all at once: memory is slow, but can be asked for many lines at a time.
    pub(crate) fn warm(&self, spreads: impl Iterator<Item = u64>) {
        if self.slots > 0 {
            std::hint::black_box(spreads.fold(0, |all, spread| all ^ self.slot(self.home(spread))));
        }
    }

    /// The place of a name, where `is_it` says which of the likely ones.
    pub(crate) fn find(&self, spread: u64, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        self.find_slot(spread, is_it).map(|at| place_of(self.slot(at)))
    }

    fn find_slot(&self, spread: u64, is_it: impl Fn(Place) -> bool) -> Option<usize> {
        if self.live == 0 {
            return None;
        }
        let mut at = self.home(spread);
        loop {
            match self.slot(at) {
                EMPTY => return None,
                REMOVED => {}
                slot if slot >> TAG_SHIFT == spread & 0xf && is_it(place_of(slot)) => return Some(at),
                _ => {}
            }
            at = self.after(at);
        }
    }

    /// Adds a name that is not there, in a table with room. False when the place is out of reach, or `is_it` finds
    /// the name.
    pub(crate) fn insert(&mut self, spread: u64, place: Place, is_it: impl Fn(Place) -> bool) -> bool {
        let Some(new) = slot_of(spread, place) else { return false };
        let mut at = self.home(spread);
        loop {
            match self.slot(at) {
                EMPTY => break,
                REMOVED => {}
                slot if slot >> TAG_SHIFT == spread & 0xf && is_it(place_of(slot)) => return false,
                _ => {}
            }
            at = self.after(at);
        }
        self.set(at, new);
        self.used += 1;
        self.live += 1;
        true
    }

    /// Takes the name of a place away.
    pub(crate) fn remove(&mut self, spread: u64, place: Place) {
        let Some(at) = self.find_slot(spread, |found| found == place) else { return };
        // Nothing was ever put behind the last slot of a row: it can be empty again.
        let last = self.slot(self.after(at)) == EMPTY;
        self.set(at, if last { EMPTY } else { REMOVED });
        self.used -= usize::from(last);
        self.live -= 1;
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}
