//! The table under shared names: from an engine's hash to a place, in five and a half bytes a slot.
//!
//! Slots come in buckets of eight, with a byte of each name's hash in front, so that one comparison of eight bytes
//! says which of them may be meant; the name itself is kept once, beside the block in its run
//! ([`naming`](super::naming)). What does not fit into its bucket goes to the next one that has room, and every
//! bucket counts what passed it: a search that finds nothing ends at the first bucket that nothing passed. So names
//! can be taken away without a trace.

use super::tree::Place;
use super::usage::vec_bytes;

const SLOTS: usize = 8;
const OFFSET_BITS: u32 = 12;
/// Runs from this number on cannot be named here.
const MAX_RUN: u32 = 1 << 24;
const ONES: u64 = 0x0101_0101_0101_0101;
const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Eight slots. A tag of 0 is an empty one.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    tags: [u8; SLOTS],
    /// 24 bits of run and the lower 8 of the offset.
    low: [u32; SLOTS],
    /// The upper 4 bits of each offset.
    high: u32,
}

#[derive(Debug, Default)]
pub(crate) struct NameTable {
    buckets: Vec<Bucket>,
    /// How many names passed each bucket on their way to another; one that has reached 255 stays there.
    passed: Vec<u8>,
    live: usize,
}

fn tag(spread: u64) -> u8 {
    (spread as u8).max(1)
}

/// The top bit of every byte of `tags` that equals `tag`.
fn equal(tags: [u8; SLOTS], tag: u8) -> u64 {
    let differs = u64::from_le_bytes(tags) ^ (ONES * u64::from(tag));
    !(((differs & LOW_BITS) + LOW_BITS) | differs | LOW_BITS)
}

/// The numbers of the slots that [`equal`] found.
fn numbers(mut found: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = (found != 0).then(|| found.trailing_zeros() as usize / 8);
        found &= found.wrapping_sub(1);
        slot
    })
}

impl Bucket {
    fn place(&self, slot: usize) -> Place {
        let (low, high) = (self.low[slot], self.high >> (4 * slot) & 0xf);
        Place { run: low >> 8, offset: high << 8 | low & 0xff }
    }

    fn put(&mut self, slot: usize, tag: u8, place: Place) {
        self.tags[slot] = tag;
        self.low[slot] = place.run << 8 | place.offset & 0xff;
        self.high = self.high & !(0xf << (4 * slot)) | (place.offset >> 8) << (4 * slot);
    }
}

impl NameTable {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Whether so many more names need another table, of [`NameTable::with_room`].
    pub(crate) fn is_full(&self, more: usize) -> bool {
        (self.live + more) * 20 > self.buckets.len() * SLOTS * 17
    }

    /// Whether a much smaller table would do.
    pub(crate) fn is_sparse(&self) -> bool {
        self.buckets.len() > 128 && self.live * 5 < self.buckets.len() * SLOTS
    }

    /// An empty table for so many names, and half as many more.
    pub(crate) fn with_room(names: usize) -> Self {
        let buckets = names * 12 / (5 * SLOTS) + 2;
        Self { buckets: vec![Bucket::default(); buckets], passed: vec![0; buckets], live: 0 }
    }

    fn home(&self, spread: u64) -> usize {
        ((u128::from(spread) * self.buckets.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    /// The place of a name, where `is_it` says which of the likely ones.
    pub(crate) fn find(&self, spread: u64, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        self.find_slot(spread, is_it).map(|(bucket, slot)| self.buckets[bucket].place(slot))
    }

    fn find_slot(&self, spread: u64, is_it: impl Fn(Place) -> bool) -> Option<(usize, usize)> {
        if self.live == 0 {
            return None;
        }
        let mut at = self.home(spread);
        // A table is never full, but every bucket may have been passed.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let found = numbers(equal(bucket.tags, tag(spread))).find(|slot| is_it(bucket.place(*slot)));
            if let Some(slot) = found {
                return Some((at, slot));
            }
            if self.passed[at] == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a name to a table with room. False when `is_it` finds it there, or the place is out of reach.
    pub(crate) fn insert(&mut self, spread: u64, place: Place, is_it: impl Fn(Place) -> bool) -> bool {
        if place.run >= MAX_RUN || place.offset >= 1 << OFFSET_BITS {
            return false;
        }
        let home = self.home(spread);
        let bucket = &self.buckets[home];
        if numbers(equal(bucket.tags, tag(spread))).any(|slot| is_it(bucket.place(slot)))
            || self.passed[home] > 0 && self.find_slot(spread, is_it).is_some()
        {
            return false;
        }
        self.add(spread, place);
        true
    }

    /// Adds a name that is not there, at a place within reach, to a table with room.
    pub(crate) fn add(&mut self, spread: u64, place: Place) {
        let mut at = self.home(spread);
        loop {
            let bucket = &mut self.buckets[at];
            let empty = equal(bucket.tags, 0);
            if empty != 0 {
                bucket.put(empty.trailing_zeros() as usize / 8, tag(spread), place);
                self.live += 1;
                return;
            }
            self.passed[at] = self.passed[at].saturating_add(1);
            at = self.after(at);
        }
    }

    /// Takes the name of a place away.
    pub(crate) fn remove(&mut self, spread: u64, place: Place) {
        let Some((bucket, slot)) = self.find_slot(spread, |found| found == place) else { return };
        self.buckets[bucket].tags[slot] = 0;
        self.live -= 1;
        let mut at = self.home(spread);
        while at != bucket {
            if self.passed[at] < u8::MAX {
                self.passed[at] -= 1;
            }
            at = self.after(at);
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        vec_bytes::<Bucket>(self.buckets.capacity()) + vec_bytes::<u8>(self.passed.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::EngineBlockHash;
    use crate::index::names::spread;
    use std::collections::BTreeMap;

    #[test]
    fn a_bucket_takes_forty_four_bytes() {
        assert_eq!(size_of::<Bucket>(), 44);
    }

    #[test]
    fn behaves_like_a_map() {
        let (mut table, mut model) = (NameTable::with_room(400), BTreeMap::new());
        let mut x = 3u64;
        for _ in 0..40_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let name = (x >> 33) % 600;
            let hash = spread(EngineBlockHash(name));
            let place = Place { run: (name as u32) << 14, offset: (name as u32 * 7) % 4096 };
            assert_eq!(table.find(hash, |at| at == place), model.get(&name).copied());
            if model.remove(&name).is_some() {
                table.remove(hash, place);
            } else if !table.is_full(1) {
                assert!(table.insert(hash, place, |at| at == place));
                assert!(!table.insert(hash, place, |at| at == place));
                model.insert(name, place);
            }
            assert_eq!(table.len(), model.len());
        }
    }

    #[test]
    fn a_place_out_of_reach_is_refused() {
        let mut table = NameTable::with_room(1);
        assert!(!table.insert(1, Place { run: MAX_RUN, offset: 0 }, |_| false));
        assert!(table.insert(1, Place { run: MAX_RUN - 1, offset: 4095 }, |_| false));
        assert_eq!(table.find(1, |_| true), Some(Place { run: MAX_RUN - 1, offset: 4095 }));
    }
}
