//! Where stored blocks go in the tree. A chain goes below its parent, found by its engine hash on whatever tier
//! and in whatever group of the stream; blocks without a known parent wait; blocks that come as names alone
//! are placed where the stream holds the same name.

use super::Index;
use super::changes::Applying;
use super::outcome::Notice;
use super::owner_blocks::{Map, Orphan};
use super::owner_set::OwnerSlot;
use super::registry::Owner;
use super::tree::{Place, Space};
use crate::command::StoredRun;
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};
use crate::ids::Tier;

impl Applying<'_> {
    fn place(&self, owner: OwnerSlot, block: EngineBlockHash) -> Option<Place> {
        self.index.registry.owner(owner)?.blocks.place(block)
    }

    /// The stream's owners, one for each tier and group: a hash names the same prefix in all of them.
    fn siblings(&self) -> &[OwnerSlot] {
        self.index.registry.stream(self.stream).map_or(&[], |s| s.slots.as_slice())
    }

    /// Where a block lies that the stream holds, on whatever tier and in whatever group.
    fn place_anywhere(&self, owner: OwnerSlot, block: EngineBlockHash) -> Option<Place> {
        let elsewhere = || self.siblings().iter().find_map(|slot| self.place(*slot, block));
        self.place(owner, block).or_else(elsewhere)
    }

    /// [`place_anywhere`](Self::place_anywhere) within one namespace.
    fn place_within(&self, space: Space, owner: OwnerSlot, block: EngineBlockHash) -> Option<Place> {
        let inside = |at: &Place| self.index.tree.run(at.run).is_some_and(|run| run.space == space.0);
        let elsewhere = || self.siblings().iter().find_map(|slot| self.place(*slot, block).filter(inside));
        self.place(owner, block).filter(inside).or_else(elsewhere)
    }

    /// Places blocks of which only the names are known, where the stream holds them elsewhere. The others wait
    /// to be named there.
    pub(super) fn place_by_name(&mut self, owner: OwnerSlot, blocks: &[EngineBlockHash]) {
        for block in blocks {
            if self.place(owner, *block).is_none()
                && let Some(at) = self.place_anywhere(owner, *block)
            {
                self.hold_at(owner, *block, at);
            }
        }
    }

    /// Places a run whose tokens are known. Connectors of tiers behind the device leave out extra keys, so there
    /// a name that the stream has placed tells more than the tokens do.
    pub(super) fn place_run(&mut self, space: Space, owner: OwnerSlot, run: &StoredRun) {
        if run.tier != Tier::Device {
            self.place_by_name(owner, &run.engine_hashes);
            let unplaced = run.engine_hashes.iter().any(|block| self.place(owner, *block).is_none());
            if let Some(owner) = self.index.registry.owner_mut(owner).filter(|_| unplaced) {
                owner.by_tokens = true;
            }
        }
        let after = match run.parent.map(|parent| self.place_within(space, owner, parent)) {
            None => None,
            Some(Some(at)) => Some(at),
            Some(None) => return self.orphan(space, owner, run),
        };
        if run.stride == 1 && run.local_hashes.len() == run.engine_hashes.len() {
            self.place_chain(space, owner, after, &run.engine_hashes, &run.local_hashes);
        } else {
            self.place_marked(space, owner, after, run);
        }
    }

    /// Places the blocks of a hybrid model's group on the chain of hash units: each lies at its last unit.
    fn place_marked(&mut self, space: Space, owner: OwnerSlot, after: Option<Place>, run: &StoredRun) {
        let mut before = after.and_then(|at| self.index.tree.hash_at(at));
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
        let Index { registry, tree, spaces, .. } = &mut *self.index;
        let (Some(stream), Some(namespace)) = (registry.stream(self.stream), spaces.get(space)) else {
            return;
        };
        let stream = stream.id.clone();
        let Some(Owner { blocks: held_blocks, tier, group, .. }) = registry.owner_mut(owner) else { return };
        let (mut placed, mut strays) = (Vec::with_capacity(blocks.len()), Vec::new());
        tree.hold_marked(space, after, &chain, &marks, owner, |i, at, held| {
            // The same engine hash twice in one event names one place: the first.
            if held_blocks.place(blocks[i]).is_some() {
                strays.extend((!held).then_some(at));
                return;
            }
            held_blocks.settle(blocks[i], at, held);
            placed.push((blocks[i], at));
            if !held {
                let blocks = &chain[marks[i]..=marks[i]];
                let (stream, batch, group) = (&stream, self.batch, *group);
                (self.notice)(Notice::Stored { stream, batch, tier, group, namespace, blocks });
            }
        });
        strays.into_iter().for_each(|stray| tree.release(stray, owner));
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
            let hash = at.and_then(|at| self.index.tree.hash_at(at));
            let number = hash.and_then(|hash| numbers.get(&hash).copied()).filter(|number| *number >= from);
            from = number.map_or(from, |number| number + 1);
            found.push(number);
        }
        fill_gaps(&mut found, total);
        found.into_iter().map(|number| number.map(|n| (n + 1) * stride - 1)).collect()
    }

    /// Settles held blocks, consecutive from `after` on, and everything that waited for one of them.
    fn place_chain(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        after: Option<Place>,
        engine: &[EngineBlockHash],
        local: &[LocalBlockHash],
    ) {
        let awaited = self.siblings().iter().any(|slot| self.awaits(*slot, owner));
        let placed = self.settle_chain(space, owner, after, engine, local, awaited);
        self.wake(owner, placed);
    }

    /// Whether `slot` has blocks that may find their place when `owner` places some.
    fn awaits(&self, slot: OwnerSlot, owner: OwnerSlot) -> bool {
        let blocks = self.index.registry.owner(slot).map(|o| &o.blocks);
        blocks.is_some_and(|blocks| blocks.orphans() > 0 || (slot != owner && blocks.unplaced() > 0))
    }

    /// Places what waited for one of the `todo` blocks of `owner`: orphans below it, and the same block held
    /// elsewhere under its name alone.
    fn wake(&mut self, owner: OwnerSlot, mut todo: Vec<(EngineBlockHash, Place)>) {
        if todo.is_empty() {
            return;
        }
        let siblings = self.siblings().iter().copied();
        let siblings: Vec<OwnerSlot> = siblings.filter(|slot| self.awaits(*slot, owner)).collect();
        while let Some((block, at)) = todo.pop() {
            let space = self.index.tree.run(at.run).map(|run| Space(run.space));
            for slot in &siblings {
                let Some(holder) = self.index.registry.owner_mut(*slot) else { continue };
                if holder.blocks.is_unplaced(block) {
                    self.hold_at(*slot, block, at);
                    self.outcome.joined += 1;
                }
                let Some(holder) = self.index.registry.owner_mut(*slot) else { continue };
                let orphans = holder.blocks.take_waiting(block);
                for orphan in orphans.into_iter().filter(|orphan| Some(orphan.space) == space) {
                    self.outcome.joined += 1;
                    let (block, local) = ([orphan.block], [orphan.local]);
                    let placed = self.settle_chain(orphan.space, *slot, Some(at), &block, &local, true);
                    todo.extend(placed);
                }
            }
        }
    }

    /// Makes `owner` hold a block at a place that another owner of the stream gave it.
    fn hold_at(&mut self, owner: OwnerSlot, block: EngineBlockHash, at: Place) {
        let Index { registry, tree, spaces, .. } = &mut *self.index;
        let Some((run, hash)) = tree.run(at.run).zip(tree.hash_at(at)) else { return };
        let (held, namespace) = (run.holders.contains(at.offset, owner), spaces.get(Space(run.space)));
        let Some(stream) = registry.stream(self.stream).map(|stream| stream.id.clone()) else { return };
        let Some(Owner { blocks, tier, group, .. }) = registry.owner_mut(owner) else { return };
        blocks.settle(block, at, held);
        if !held && let Some(namespace) = namespace {
            tree.hold(at.run, at.offset..at.offset + 1, owner);
            let (stream, batch, group, blocks) = (&stream, self.batch, *group, &[hash][..]);
            (self.notice)(Notice::Stored { stream, batch, tier, group, namespace, blocks });
        }
    }

    /// Puts a chain into the tree; answers every newly placed block with its place, when `awaited` by orphans.
    fn settle_chain(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        mut after: Option<Place>,
        engine: &[EngineBlockHash],
        local: &[LocalBlockHash],
        awaited: bool,
    ) -> Vec<(EngineBlockHash, Place)> {
        let mut placed = Vec::new();
        let mut from = 0;
        while from < engine.len() {
            // A further copy of a placed block stays where it is; the chain goes on below it.
            if let Some(place) = self.place(owner, engine[from]) {
                after = Some(place);
                from += 1;
                continue;
            }
            let unplaced = engine[from..].iter().take_while(|b| self.place(owner, **b).is_none()).count();
            let range = from..from + unplaced;
            let blocks = &engine[range.clone()];
            // Chained from where the block before really lies, so that a run never holds a block that does
            // not follow the one before it, whatever hashes an engine repeats.
            let mut before = after.and_then(|at| self.index.tree.hash_at(at));
            let chained = local[range].iter().map(|local| {
                let hash = SequenceHash::chain(before, *local);
                before = Some(hash);
                hash
            });
            let hashes: Vec<SequenceHash> = chained.collect();
            after = self.hold(space, owner, after, blocks, &hashes);
            let noted = blocks.iter().filter(|_| awaited);
            placed.extend(noted.filter_map(|block| Some((*block, self.place(owner, *block)?))));
            from += unplaced;
        }
        placed
    }

    fn hold(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        after: Option<Place>,
        engine: &[EngineBlockHash],
        hashes: &[SequenceHash],
    ) -> Option<Place> {
        let Index { registry, tree, spaces, .. } = &mut *self.index;
        let stream = registry.stream(self.stream)?.id.clone();
        let Owner { blocks, tier, group, .. } = registry.owner_mut(owner)?;
        let namespace = spaces.get(space)?;
        let (mut at, mut last) = (0, after);
        let mut strays = Vec::new();
        tree.hold_chain(space, after, hashes, owner, |place, n, held| {
            for i in 0..n {
                let here = Place { run: place.run, offset: place.offset + i as u32 };
                let block = engine[at + i];
                // The same engine hash twice in one event names one place: the first.
                match blocks.place(block) {
                    None => blocks.settle(block, here, held),
                    Some(_) if !held => strays.push(here),
                    Some(_) => {}
                }
                last = blocks.place(block);
            }
            if !held {
                let blocks = &hashes[at..at + n];
                let (stream, batch, group) = (&stream, self.batch, *group);
                (self.notice)(Notice::Stored { stream, batch, tier, group, namespace, blocks });
            }
            at += n;
        });
        for stray in strays {
            if let Some(block) = tree.hash_at(stray) {
                let (stream, batch, group) = (&stream, self.batch, *group);
                (self.notice)(Notice::Removed { stream, batch, tier, group, namespace, block });
            }
            tree.release(stray, owner);
        }
        last
    }

    /// Keeps a run whose parent is not known. Blocks that the stream holds elsewhere are placed there, and the
    /// rest hangs below them; until one comes up every block waits for the one before it.
    fn orphan(&mut self, space: Space, owner: OwnerSlot, run: &StoredRun) {
        let (engine, local) = (&run.engine_hashes, &run.local_hashes);
        if run.stride != 1 || local.len() != engine.len() {
            return self.place_by_name(owner, engine);
        }
        let max = self.index.limits.max_orphans_per_owner;
        let mut parent = run.parent;
        for (i, block) in engine.iter().enumerate() {
            if let Some(at) = self.place_within(space, owner, *block) {
                if self.place(owner, *block).is_none() {
                    self.hold_at(owner, *block, at);
                }
                return self.place_chain(space, owner, Some(at), &engine[i + 1..], &local[i + 1..]);
            }
            // What lies in another namespace, or below what does, cannot be joined here.
            let elsewhere = |block| self.place_anywhere(owner, block).is_some();
            if elsewhere(*block) || parent.is_some_and(elsewhere) {
                parent = Some(*block);
                continue;
            }
            let Some(holder) = self.index.registry.owner_mut(owner) else { return };
            if let Some(parent) = parent {
                if holder.blocks.orphans() < max {
                    holder.blocks.wait_for(parent, Orphan { block: *block, space, local: local[i] });
                    self.outcome.orphaned += 1;
                } else {
                    self.outcome.unjoinable += 1;
                }
            }
            parent = Some(*block);
        }
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
