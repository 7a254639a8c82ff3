//! The scores that a race notes, in a buffer that fills from its end: who drops out first goes last, so nothing has
//! to be sorted or turned around, and what the buffer held before is written over once.

use super::score::{Score, StreamSlot};
use crate::index::bits;

/// The scores noted so far.
pub(super) struct Notes<'a> {
    /// Noted are those from `first` on. What lies before is of older questions.
    pub(super) scores: &'a mut Vec<Score>,
    pub(super) first: usize,
    /// The stream of each owner.
    pub(super) streams: &'a [u32],
}

impl Notes<'_> {
    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        if let Some(missing) = more.checked_sub(self.first).filter(|missing| *missing > 0) {
            let blank = Score { stream: StreamSlot(0), blocks: 0 };
            self.scores.splice(..0, std::iter::repeat_n(blank, missing));
            self.first += missing;
        }
    }

    /// Notes the owners of these words, of which `i` is the first, that do not stay, and takes them out.
    /// Always inlined: a race calls it for a number of words that is known, and once a segment.
    #[inline(always)]
    pub(super) fn end(&mut self, i: usize, alive: &mut [u64], stay: &[u64], blocks: u32) {
        for (i, (alive, stay)) in (i..).zip(alive.iter_mut().zip(stay)) {
            let gone = *alive & !stay;
            if gone != 0 {
                *alive &= stay;
                self.add(i, gone, blocks);
            }
        }
    }

    /// Notes these owners of word `i`.
    #[inline]
    pub(super) fn add(&mut self, i: usize, owners: u64, blocks: u32) {
        let free = self.scores.get_mut(..self.first).unwrap_or_default();
        let start = owners.trailing_zeros() as usize;
        let run = owners >> (start % 64);
        if run > u64::from(u8::MAX) && run & run.wrapping_add(1) == 0 {
            // Neighbours, as where everybody holds a prompt: copied without looking at bits.
            let from = i * 64 + start;
            let to = from + run.trailing_ones() as usize;
            let streams = self.streams.get(from..to).unwrap_or_default();
            let (_, places) = free.split_at_mut(free.len().saturating_sub(streams.len()));
            copy(places, streams, blocks);
            self.first -= streams.len();
            return;
        }
        let mut noted = 0;
        for (score, slot) in free.iter_mut().rev().zip(bits(i, owners)) {
            let stream = StreamSlot(self.streams.get(slot.index()).copied().unwrap_or(u32::MAX));
            *score = Score { stream, blocks };
            noted += 1;
        }
        self.first -= noted;
    }
}

/// Never inlined, because the compiler vectorises it only where it sees that the slices are apart.
#[inline(never)]
fn copy(places: &mut [Score], streams: &[u32], blocks: u32) {
    for (score, stream) in places.iter_mut().zip(streams) {
        *score = Score { stream: StreamSlot(*stream), blocks };
    }
}
