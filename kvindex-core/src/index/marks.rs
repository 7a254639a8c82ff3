//! Blocks of a hybrid model's groups, which stand here and there on a chain of hash units, and which events may name
//! without saying where.

use super::changes::Applying;
use super::owner_blocks::Map;
use super::owner_set::OwnerSlot;
use super::tree::{Place, Space};
use crate::command::StoredRun;
use crate::hash::SequenceHash;

impl Applying<'_> {
    /// Places the blocks of a hybrid model's group on the chain of hash units: each lies at its last unit.
    pub(super) fn place_marked(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        after: Option<Place>,
        run: &StoredRun,
    ) {
        let mut before = after.and_then(|at| self.index.view.tree.hash_at(at));
        let chain = run.local_hashes.iter().map(|local| {
            let hash = SequenceHash::chain(before, *local);
            before = Some(hash);
            hash
        });
        let chain: Vec<SequenceHash> = chain.collect();
        let positions = self.positions(space, owner, run, &chain);
        let (mut blocks, mut marks) = (Vec::new(), Vec::new());
        for (block, position) in run.engine_hashes.iter().zip(positions) {
            let Some(position) = position.filter(|_| self.place(owner, *block).is_none()) else { continue };
            if marks.last().is_none_or(|last| *last < position) {
                blocks.push(*block);
                marks.push(position);
            }
        }
        let (mut at, mut next, mut parent) = (0, 0, after);
        let (mut placed, mut touched) = (Vec::with_capacity(blocks.len()), Vec::new());
        let end = marks.last().map_or(0, |last| last + 1).min(chain.len());
        while at < end {
            let stretch = self.index.stretch(space, parent, &chain[at..end]);
            let (run, offset) = (stretch.place.run, stretch.place.offset);
            while let Some(mark) = marks.get(next).filter(|mark| **mark < at + stretch.n) {
                let here = Place { run, offset: offset + (mark - at) as u32 };
                // The same engine hash twice in one event names one place: the first.
                if self.place(owner, blocks[next]).is_none() {
                    if self.index.seat(owner, blocks[next], here) {
                        self.tell_stored(owner, space, &chain[*mark..=*mark]);
                    }
                    placed.push((blocks[next], here));
                }
                next += 1;
            }
            touched.push(run);
            parent = Some(Place { run, offset: offset + stretch.n as u32 - 1 });
            at += stretch.n;
        }
        // Blocks at a run's end that nobody holds are not kept.
        touched.into_iter().for_each(|run| self.index.trim(run));
        self.wake(owner, placed);
    }

    /// Where each block of a run ends on the run's chain. An event of a hybrid model may name fewer blocks than
    /// its tokens hold, without saying which: blocks that another group named are found by that, and those
    /// between two found ones when there is only one way to fit them in.
    fn positions(
        &self,
        space: Space,
        owner: OwnerSlot,
        run: &StoredRun,
        chain: &[SequenceHash],
    ) -> Vec<Option<usize>> {
        let stride = run.stride.max(1) as usize;
        let (blocks, total) = (run.engine_hashes.len(), chain.len() / stride);
        if total == blocks {
            return (0..blocks).map(|i| Some((i + 1) * stride - 1)).collect();
        }
        let ends = chain.iter().skip(stride - 1).step_by(stride);
        let numbers: Map<SequenceHash, usize> =
            ends.enumerate().map(|(number, hash)| (*hash, number)).collect();
        let mut from = 0;
        let mut found: Vec<Option<usize>> = Vec::with_capacity(blocks);
        for block in &run.engine_hashes {
            let at = self.place_within(space, owner, *block);
            let hash = at.and_then(|at| self.index.view.tree.hash_at(at));
            let number = hash.and_then(|hash| numbers.get(&hash).copied()).filter(|number| *number >= from);
            from = number.map_or(from, |number| number + 1);
            found.push(number);
        }
        fill_gaps(&mut found, total);
        found.into_iter().map(|number| number.map(|n| (n + 1) * stride - 1)).collect()
    }
}

/// Numbers the blocks between found ones (and after the last) where exactly as many numbers are free as there
/// are blocks. `found` ascends and stays below `total`.
fn fill_gaps(found: &mut [Option<usize>], total: usize) {
    let (mut start, mut free_from) = (0, 0);
    while start < found.len() {
        let end = found[start..].iter().position(Option::is_some).map_or(found.len(), |n| start + n);
        let free_to = found.get(end).copied().flatten().unwrap_or(total);
        if end - start == free_to.saturating_sub(free_from) {
            for (number, block) in (free_from..free_to).zip(&mut found[start..end]) {
                *block = Some(number);
            }
        }
        (start, free_from) = (end + 1, free_to + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::fill_gaps;

    fn filled(mut found: Vec<Option<usize>>, total: usize) -> Vec<Option<usize>> {
        fill_gaps(&mut found, total);
        found
    }

    #[test]
    fn blocks_are_numbered_where_there_is_one_way() {
        let all = |numbers: &[usize]| numbers.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(filled(vec![Some(3), None, Some(5)], 6), all(&[3, 4, 5]));
        assert_eq!(filled(vec![None, Some(1), None, None], 4), all(&[0, 1, 2, 3]));
        assert_eq!(filled(vec![None, None], 2), all(&[0, 1]));
        assert_eq!(filled(vec![None, Some(3), None], 6), [None, Some(3), None], "one of several");
        assert_eq!(filled(vec![Some(2), Some(3)], 6), all(&[2, 3]));
        assert_eq!(filled(Vec::new(), 6), []);
    }
}
