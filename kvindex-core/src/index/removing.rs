//! The ordinary removal: blocks that lie one behind the other, held under their shared names in one copy each, leave
//! together. Engines evict chains from their ends, block by block, so an event mostly is one such row.

use super::changes::Applying;
use super::journal::{Cause, Departure};
use super::outcome::Notice;
use super::owner_set::OwnerSlot;
use super::tree::{Place, Space};
use crate::hash::EngineBlockHash;
use crate::ids::{Group, Tier};

/// Blocks of one run in the order in which an event names them.
#[derive(Debug, Clone, Copy)]
struct Row {
    first: Place,
    n: usize,
    /// Whether each lies before the one named before it.
    backwards: bool,
}

impl Row {
    fn start(self) -> Place {
        let back = if self.backwards { self.n as u32 - 1 } else { 0 };
        Place { run: self.first.run, offset: self.first.offset - back }
    }

    fn offsets(self) -> impl Iterator<Item = u32> {
        let first = self.first.offset;
        (0..self.n as u32).map(move |i| if self.backwards { first - i } else { first + i })
    }
}

impl Applying<'_> {
    /// Removes as many of `hashes` as lie in one row and are held in one copy under their shared names; answers how
    /// many. 0 when the first one takes a closer look.
    pub(super) fn remove_row(
        &mut self,
        slot: OwnerSlot,
        hashes: &[EngineBlockHash],
        (tier, group): (&Tier, Group),
    ) -> usize {
        let Some(row) = self.row(slot, hashes) else { return 0 };
        let index = &mut *self.index;
        let (Some(stream), Some(run)) =
            (index.registry.stream_mut(self.stream), index.view.tree.run(row.first.run))
        else {
            return 0;
        };
        let (batch, at_ms, namespace) = (self.batch, self.at_ms, index.view.spaces.get(Space(run.space)));
        for (offset, name) in row.offsets().zip(hashes) {
            stream.reports.gone(group, *name);
            let block = run.blocks[offset as usize];
            index.journal.note(Departure::new((block, batch, at_ms), (stream.serial, slot), Cause::Removed));
            if let Some(namespace) = namespace.filter(|_| index.heard) {
                let stream = &stream.id;
                (self.notice)(Notice::Removed { stream, batch, tier, group, namespace, block });
            }
        }
        if let Some(owner) = index.registry.owner_mut(slot) {
            owner.blocks.unshare(row.n);
            owner.left_last = Some(row.start());
        }
        index.entries -= row.n;
        self.outcome.removed += row.n as u64;
        index.release_row(row.start(), row.n, slot);
        row.n
    }

    /// The longest row that `hashes` begin with, if the owner holds all of it that way.
    fn row(&self, slot: OwnerSlot, hashes: &[EngineBlockHash]) -> Option<Row> {
        let index = &*self.index;
        let owner = index.registry.owner(slot)?;
        if !owner.blocks.shares_all_once() {
            return None;
        }
        let block = *hashes.first()?;
        // The next block to go mostly lies before the one that went last: no need to search.
        let before = owner.left_last.and_then(|at| Some(Place { offset: at.offset.checked_sub(1)?, ..at }));
        let before = before.filter(|at| index.naming.follow(owner.book, *at, &[block]) == 1);
        let first = before.or_else(|| index.naming.find(owner.book, block))?;
        if index.naming.is_apart(first.run, slot) {
            return None;
        }
        if hashes.len() == 1 {
            let row = Row { first, n: 1, backwards: false };
            return index.view.tree.holds(first, slot).then_some(row);
        }
        let back = index.naming.follow_back(first, hashes);
        let n = if back > 1 { back } else { index.naming.follow(owner.book, first, hashes) };
        let row = Row { first, n, backwards: back > 1 };
        let start = row.start();
        let (end, held) = index.view.tree.uniform(start, n, slot);
        (held && end as usize == start.offset as usize + n).then_some(row)
    }
}
