//! The walk: from a prompt's sequence hashes to the stretches of runs that they lead through, and from those
//! to how far each owner holds them.

use crate::hash::SequenceHash;
use crate::index::{IndexReader, OwnerSlot, Place, Space, bits};

/// Consecutive prompt blocks that lie in one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    pub(crate) run: u32,
    /// First prompt block of the stretch, which is the run's first.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
}

/// Finds the stretches of `hashes`, from the first block on, for as long as the tree has them; in a namespace
/// with holes also those behind one. Every stretch starts at its run's head: a block inside a run is reached
/// through the one before it, whose hash the prompt has as well.
pub(crate) fn walk(reader: &IndexReader<'_>, space: Space, hashes: &[SequenceHash], path: &mut Vec<Stretch>) {
    path.clear();
    let (tree, holes) = (reader.tree(), reader.spaces().has_holes(space));
    let mut at = 0;
    while let Some(head) = hashes.get(at) {
        match tree.head(space, *head) {
            Some(run) => {
                let n = tree.common(Place { run, offset: 0 }, &hashes[at..]);
                path.push(Stretch { run, start: at, end: at + n });
                at += n;
            }
            None if holes => at += 1,
            None => return,
        }
    }
}

/// How many blocks from the first on each owner holds; owners that hold none do not appear.
#[derive(Debug, Default)]
pub(crate) struct Depths {
    depth: Vec<u32>,
    touched: Vec<OwnerSlot>,
    alive: Vec<u64>,
}

impl Depths {
    pub(crate) fn of(&self, owner: OwnerSlot) -> usize {
        self.depth.get(owner.index()).map_or(0, |depth| *depth as usize)
    }

    /// Every owner that holds some.
    pub(super) fn all(&self) -> impl Iterator<Item = (OwnerSlot, u32)> {
        self.touched.iter().filter_map(|owner| Some((*owner, *self.depth.get(owner.index())?)))
    }

    pub(crate) fn clear(&mut self) {
        for owner in self.touched.drain(..) {
            if let Some(depth) = self.depth.get_mut(owner.index()) {
                *depth = 0;
            }
        }
    }

    /// Fills the depths along a path.
    pub(crate) fn measure(&mut self, reader: &IndexReader<'_>, path: &[Stretch]) {
        self.clear();
        self.depth.resize(reader.registry().slot_count(), 0);
        self.alive.clear();
        let mut first = true;
        let mut reached = 0;
        for stretch in path {
            if stretch.start > reached {
                break;
            }
            let Some(run) = reader.tree().run(stretch.run) else { break };
            for segment in run.holders.segments() {
                if first {
                    self.alive.extend((0..segment.owners.word_count()).map(|i| segment.owners.word(i)));
                    first = false;
                } else {
                    self.drop_missing(reached, |i| segment.owners.word(i));
                }
                reached = (stretch.start + segment.end as usize).min(stretch.end);
                if reached == stretch.end {
                    break;
                }
            }
            if self.alive.iter().all(|word| *word == 0) {
                return;
            }
        }
        self.drop_missing(reached, |_| 0);
    }

    /// Ends at `depth` all owners still alive that are not in the set given by its words.
    fn drop_missing(&mut self, depth: usize, keep: impl Fn(usize) -> u64) {
        for (i, alive) in self.alive.iter_mut().enumerate() {
            let gone = *alive & !keep(i);
            *alive &= !gone;
            for owner in bits(i, gone) {
                if let Some(slot) = self.depth.get_mut(owner.index()) {
                    *slot = u32::try_from(depth).unwrap_or(u32::MAX);
                    self.touched.push(owner);
                }
            }
        }
    }
}
