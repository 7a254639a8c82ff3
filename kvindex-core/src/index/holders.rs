//! Who holds which part of a run: the run is cut into segments, each with the set of owners that hold all of
//! it. Holes are ordinary; neighbours with equal sets are one segment, so a chain that everybody holds is one
//! set, and a thousand owners at a thousand depths are a thousand segments in order of depth.

use super::owner_set::{OwnerSet, OwnerSlot};
use super::sizes::difference;
use super::usage::vec_bytes;
use std::ops::Range;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// One past the segment's last block, as an offset into the run.
    pub(crate) end: u32,
    pub(crate) owners: OwnerSet,
}

/// Segments of one run. Most runs are one conversation's and have one, which needs no room of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segments {
    /// None when it ends at 0.
    One(Segment),
    /// At least two.
    Many(Vec<Segment>),
}

impl Default for Segments {
    fn default() -> Self {
        Self::One(Segment { end: 0, owners: OwnerSet::Empty })
    }
}

impl Segments {
    fn as_slice(&self) -> &[Segment] {
        match self {
            Self::One(none) if none.end == 0 => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(segments) => segments,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Segment] {
        match self {
            Self::One(none) if none.end == 0 => &mut [],
            Self::One(only) => std::slice::from_mut(only),
            Self::Many(segments) => segments,
        }
    }

    fn insert(&mut self, at: usize, segment: Segment) {
        match self {
            Self::One(none) if none.end == 0 => *self = Self::One(segment),
            Self::One(_) => {
                let Self::One(only) = std::mem::take(self) else { return };
                *self = Self::Many(if at == 0 { vec![segment, only] } else { vec![only, segment] });
            }
            Self::Many(segments) => {
                if segments.len() == segments.capacity() {
                    // By half instead of double: there are many runs.
                    segments.reserve_exact(segments.len() / 2 + 1);
                }
                segments.insert(at, segment);
            }
        }
    }

    /// Drops the segments of this range.
    fn drop_range(&mut self, range: Range<usize>) {
        match self {
            Self::Many(segments) => {
                segments.drain(range);
                if segments.len() < 2 {
                    *self = segments.pop().map_or_else(Self::default, Self::One);
                }
            }
            Self::One(_) if range.is_empty() => {}
            Self::One(_) => *self = Self::default(),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(segments) => vec_bytes::<Segment>(segments.capacity()),
        }
    }
}

/// The holders of one run, covering it from offset 0 without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    segments: Segments,
}

/// Index of the segment that covers `offset`.
fn find(segments: &[Segment], offset: u32) -> usize {
    match segments {
        [only] => usize::from(offset >= only.end),
        segments => segments.partition_point(|s| s.end <= offset),
    }
}

impl Holders {
    /// Holders of a run of `len` blocks that nobody holds yet.
    pub(crate) fn none(len: u32) -> Self {
        Self { segments: Segments::One(Segment { end: len, owners: OwnerSet::Empty }) }
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        self.segments.as_slice()
    }

    /// One past the last block covered.
    pub(crate) fn len(&self) -> u32 {
        self.segments().last().map_or(0, |s| s.end)
    }

    pub(crate) fn contains(&self, offset: u32, owner: OwnerSlot) -> bool {
        self.segments().get(find(self.segments(), offset)).is_some_and(|s| s.owners.contains(owner))
    }

    /// How far from `offset` on (up to `end`) it stays the same whether `owner` holds, and whether it does.
    pub(crate) fn uniform(&self, offset: u32, end: u32, owner: OwnerSlot) -> (u32, bool) {
        let all = self.segments();
        let mut segments = all[find(all, offset)..].iter();
        let Some(first) = segments.next() else {
            return (end, false);
        };
        let held = first.owners.contains(owner);
        let same = segments.take_while(|s| s.owners.contains(owner) == held).last().unwrap_or(first);
        let border = if same.end == self.len() && !held { end } else { same.end };
        (border.min(end), held)
    }

    /// (Block, owner) pairs in the run.
    pub(crate) fn held(&self) -> usize {
        let mut start = 0;
        let sizes = self.segments().iter().map(|s| {
            let blocks = (s.end - std::mem::replace(&mut start, s.end)) as usize;
            blocks * s.owners.iter().count()
        });
        sizes.sum()
    }

    /// Makes `owner` a holder of `range`, growing the run's cover when the range goes past its end. Answers how many
    /// bytes more are held than before.
    pub(crate) fn insert(&mut self, range: Range<u32>, owner: OwnerSlot) -> isize {
        let (len, before) = (self.len(), self.segments.heap_bytes());
        if range.start > len {
            self.grow(range.start, None);
        }
        if range.end > len {
            self.grow(range.end, (range.start..range.end).contains(&self.len()).then_some(owner));
        }
        let end = range.end.min(len);
        let sets =
            if range.start < end { self.edit(range.start..end, |owners| owners.insert(owner)) } else { 0 };
        sets + difference(before, self.segments.heap_bytes())
    }

    fn grow(&mut self, end: u32, owner: Option<OwnerSlot>) {
        let owners = owner.map_or(OwnerSet::Empty, OwnerSet::one);
        match self.segments.as_mut_slice().last_mut() {
            Some(last) if last.owners == owners => last.end = end,
            _ => self.segments.insert(self.segments().len(), Segment { end, owners }),
        }
    }

    /// Takes `owner` out of `range`. Answers how many bytes more are held than before.
    pub(crate) fn remove(&mut self, range: Range<u32>, owner: OwnerSlot) -> isize {
        if self.recede(&range, owner) {
            return 0;
        }
        let before = self.segments.heap_bytes();
        let sets = self.edit(range, |owners| owners.remove(owner));
        sets + difference(before, self.segments.heap_bytes())
    }

    /// The ordinary removal, an owner's last blocks: only the border between two segments moves. Answers whether
    /// it was one.
    fn recede(&mut self, range: &Range<u32>, owner: OwnerSlot) -> bool {
        let segments = self.segments.as_mut_slice();
        let at = find(segments, range.start);
        let start = at.checked_sub(1).and_then(|i| segments.get(i)).map_or(0, |s| s.end);
        let Some([segment, after @ ..]) = segments.get_mut(at..) else { return false };
        if segment.end != range.end || start >= range.start {
            return false;
        }
        let moves = match after.first() {
            Some(next) => segment.owners.is_with(&next.owners, owner),
            // Nobody else holds the run's end: the cover ends earlier, as if trimmed.
            None => segment.owners == OwnerSet::one(owner),
        };
        if moves {
            segment.end = range.start;
        }
        moves
    }

    /// Answers how many bytes more the sets take than before.
    fn edit(&mut self, range: Range<u32>, change: impl Fn(&mut OwnerSet)) -> isize {
        let mut more = 0;
        let (first, last) = (self.cut(range.start, &mut more), self.cut(range.end, &mut more));
        for segment in &mut self.segments.as_mut_slice()[first..last] {
            let before = segment.owners.heap_bytes();
            change(&mut segment.owners);
            more += difference(before, segment.owners.heap_bytes());
        }
        more + self.join(first.saturating_sub(1), (last + 1).min(self.segments().len()))
    }

    /// Makes `offset` a segment border; answers the index of the segment that starts there. `more` grows by the bytes
    /// of another set.
    fn cut(&mut self, offset: u32, more: &mut isize) -> usize {
        let segments = self.segments();
        let at = find(segments, offset);
        let start = at.checked_sub(1).and_then(|i| segments.get(i)).map_or(0, |s| s.end);
        let Some(segment) = segments.get(at).filter(|_| start < offset) else { return at };
        let owners = segment.owners.clone();
        *more += difference(0, owners.heap_bytes());
        self.segments.insert(at, Segment { end: offset, owners });
        at + 1
    }

    /// Joins equal neighbours among the segments `from..to`. Answers how many bytes more the sets take than before.
    fn join(&mut self, from: usize, to: usize) -> isize {
        let segments = self.segments.as_mut_slice();
        let (mut kept, mut more) = (from, 0);
        for i in from + 1..to {
            if segments[i].owners == segments[kept].owners {
                more -= difference(0, segments[i].owners.heap_bytes());
                segments[kept].end = segments[i].end;
            } else {
                kept += 1;
                segments.swap(kept, i);
            }
        }
        self.segments.drop_range(kept + 1..to.max(kept + 1));
        more
    }

    /// Drops the tail that nobody holds; answers the new length, and how many bytes more are held than before.
    pub(crate) fn trim(&mut self) -> (u32, isize) {
        let segments = self.segments();
        if segments.last().is_some_and(|s| !s.owners.is_empty()) {
            return (self.len(), 0);
        }
        let kept = segments.iter().rposition(|s| !s.owners.is_empty()).map_or(0, |last| last + 1);
        let before = self.segments.heap_bytes();
        // Sets of nobody take no bytes.
        self.segments.drop_range(kept..segments.len());
        (self.len(), difference(before, self.segments.heap_bytes()))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let sets = self.segments().iter().map(|s| s.owners.heap_bytes());
        self.segments.heap_bytes() + sets.sum::<usize>()
    }

    /// Whether segments ascend, neighbours differ and the cover is `len` long.
    pub(crate) fn check(&self, len: usize) -> Result<(), String> {
        let ascending = self.segments().windows(2).all(|w| w[0].end < w[1].end && w[0].owners != w[1].owners);
        let covered = self.len() as usize == len && self.segments().first().is_none_or(|s| s.end > 0);
        (ascending && covered).then_some(()).ok_or_else(|| format!("bad segments for {len}: {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segments_equal_a_matrix(edits in prop::collection::vec((any::<bool>(), 0u32..40, 1u32..12, 0u32..70), 1..60), spread in 1u32..9) {
            let mut holders = Holders::none(40);
            let mut matrix = vec![vec![false; 70]; 52];
            let mut bytes = holders.heap_bytes() as isize;
            for (add, start, n, owner) in edits {
                let end = if add { start + n } else { (start + n).min(holders.len()) };
                if start >= holders.len() { continue; }
                for row in &mut matrix[start as usize..end as usize] { row[owner as usize] = add; }
                let owner = OwnerSlot(owner * spread);
                bytes += if add { holders.insert(start..end, owner) } else { holders.remove(start..end, owner) };
                prop_assert_eq!(bytes, holders.heap_bytes() as isize);
                holders.check(holders.len() as usize).unwrap();
                for (offset, row) in matrix.iter().enumerate().take(holders.len() as usize) {
                    for (o, held) in row.iter().enumerate() {
                        prop_assert_eq!(holders.contains(offset as u32, OwnerSlot(o as u32 * spread)), *held);
                    }
                }
            }
            let (kept, more) = holders.trim();
            prop_assert_eq!(bytes + more, holders.heap_bytes() as isize);
            prop_assert!(matrix[kept as usize..].iter().flatten().all(|held| !held));
        }
    }
}
