//! Where stored blocks go in the tree. A chain goes below its parent, found by its engine hash on whatever tier
//! and in whatever group of the stream; blocks without a known parent wait; blocks that come as names alone
//! are placed where the stream holds the same name.

use super::changes::Applying;
use super::owner_blocks::{Orphan, Set};
use super::owner_set::OwnerSlot;
use super::tree::{Place, Space};
use crate::command::StoredRun;
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};
use crate::ids::Tier;

impl Applying<'_> {
    pub(super) fn place(&self, owner: OwnerSlot, block: EngineBlockHash) -> Option<Place> {
        self.index.holdings().place(owner, block).flatten()
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
    pub(super) fn place_within(
        &self,
        space: Space,
        owner: OwnerSlot,
        block: EngineBlockHash,
    ) -> Option<Place> {
        let inside = |at: &Place| self.index.view.tree.run(at.run).is_some_and(|run| run.space == space.0);
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
    pub(super) fn place_run(&mut self, space: Space, owner: OwnerSlot, run: &StoredRun, counted: bool) {
        let device = run.tier == Tier::Device;
        let whole = run.stride == 1 && run.local_hashes.len() == run.engine_hashes.len();
        let parent = run.parent.map(|parent| self.place_within(space, owner, parent));
        if let Some(Some(at)) = parent {
            self.index.ages.touch(at.run);
        }
        if device && whole && parent != Some(None) {
            return self.store_chain(space, owner, parent.flatten(), run, counted);
        }
        self.add_copies(owner, &run.engine_hashes, counted);
        if !device {
            self.place_by_name(owner, &run.engine_hashes);
            let unplaced = run.engine_hashes.iter().any(|block| self.place(owner, *block).is_none());
            if let Some(owner) = self.index.registry.owner_mut(owner).filter(|_| unplaced) {
                owner.by_tokens = true;
            }
        }
        // Once more: a run may be its own parent's.
        let after = match run.parent.map(|parent| self.place_within(space, owner, parent)) {
            None => None,
            Some(Some(at)) => Some(at),
            Some(None) => return self.orphan(space, owner, run),
        };
        if whole {
            self.place_chain(space, owner, after, &run.engine_hashes, &run.local_hashes);
        } else {
            self.place_marked(space, owner, after, run);
        }
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
        let placed = self.settle_chain(space, owner, after, engine, local, Set::default());
        self.wake(owner, placed);
    }

    /// Whether somebody may find a place when `owner` places blocks.
    pub(super) fn is_awaited(&self, owner: OwnerSlot) -> bool {
        self.siblings().iter().any(|slot| self.awaits(*slot, owner))
    }

    /// Whether `slot` has blocks that may find their place when `owner` places some.
    fn awaits(&self, slot: OwnerSlot, owner: OwnerSlot) -> bool {
        self.index.registry.owner(slot).is_some_and(|holder| {
            let by_name = slot != owner && (holder.blocks.unplaced() > 0 || holder.by_tokens);
            by_name || holder.blocks.orphans() > 0
        })
    }

    /// Places what waited for one of the `todo` blocks of `owner`: orphans below it, and the same block held
    /// elsewhere under its name alone.
    pub(super) fn wake(&mut self, owner: OwnerSlot, placed: Vec<(EngineBlockHash, Place)>) {
        if placed.is_empty() || !self.is_awaited(owner) {
            return;
        }
        // The owner too may have names without place, which come up as orphans of its siblings are joined.
        let siblings: Vec<OwnerSlot> = self.siblings().to_vec();
        let mut todo: Vec<_> = placed.into_iter().map(|(block, at)| (owner, block, at)).collect();
        while let Some((by, block, at)) = todo.pop() {
            let space = self.index.view.tree.run(at.run).map(|run| Space(run.space));
            for slot in &siblings {
                self.correct(by, *slot, block, at);
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
                    let below = Some(at);
                    let placed =
                        self.settle_chain(orphan.space, *slot, below, &block, &local, Set::default());
                    todo.extend(placed.into_iter().map(|(block, at)| (*slot, block, at)));
                }
            }
        }
    }

    /// What the device says of a block moves a copy that `slot` placed by tokens alone.
    fn correct(&mut self, owner: OwnerSlot, slot: OwnerSlot, block: EngineBlockHash, at: Place) {
        let registry = &self.index.registry;
        let device = registry.owner(owner).is_some_and(|owner| owner.tier == Tier::Device);
        if !device || !registry.owner(slot).is_some_and(|holder| holder.by_tokens) {
            return;
        }
        let Some(old) = self.place(slot, block).filter(|old| *old != at) else { return };
        self.index.set_apart(old.run, slot);
        let Some(holder) = self.index.registry.owner_mut(slot) else { return };
        if holder.blocks.leave(old) {
            self.tell_removed(slot, old);
            self.index.release(old, slot);
        }
        self.hold_at(slot, block, at);
    }

    /// Makes `owner` hold a block at a place that another owner of the stream gave it.
    fn hold_at(&mut self, owner: OwnerSlot, block: EngineBlockHash, at: Place) {
        let Some(space) = self.index.view.tree.run(at.run).map(|run| Space(run.space)) else { return };
        let Some(hash) = self.index.view.tree.hash_at(at) else { return };
        if self.index.seat(owner, block, at) {
            self.tell_stored(owner, space, &[hash]);
        }
    }

    /// Puts held blocks into the tree, one below the other; answers every newly placed one with its place. `fresh`
    /// are blocks that the same event placed just before: where their names come again they mean nothing.
    pub(super) fn settle_chain(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        mut after: Option<Place>,
        engine: &[EngineBlockHash],
        local: &[LocalBlockHash],
        mut fresh: Set<EngineBlockHash>,
    ) -> Vec<(EngineBlockHash, Place)> {
        let mut placed = Vec::new();
        let mut from = 0;
        while from < engine.len() {
            // A further copy of a placed block stays where it is; the chain goes on below it.
            let known = if fresh.contains(&engine[from]) { None } else { self.place(owner, engine[from]) };
            if let Some(place) = known {
                if self.index.view.tree.run(place.run).is_none_or(|run| run.space != space.0) {
                    // One name in two namespaces: what follows cannot hang below the other one's block.
                    break;
                }
                self.index.ages.touch(place.run);
                after = Some(place);
                from += 1;
                fresh.clear();
                continue;
            }
            let new =
                |block: &&EngineBlockHash| fresh.contains(*block) || self.place(owner, **block).is_none();
            let range = from..from + engine[from..].iter().take_while(new).count();
            let blocks = &engine[range.clone()];
            // Chained from where the block before really lies, so that a run never holds a block that does
            // not follow the one before it, whatever hashes an engine repeats.
            let mut before = after.and_then(|at| self.index.view.tree.hash_at(at));
            let chained = local[range.clone()].iter().map(|local| {
                let hash = SequenceHash::chain(before, *local);
                before = Some(hash);
                hash
            });
            let hashes: Vec<SequenceHash> = chained.collect();
            after = self.seat_all(space, owner, after, blocks, &hashes);
            placed.extend(blocks.iter().filter_map(|block| Some((*block, self.place(owner, *block)?))));
            from = range.end;
            fresh.clear();
        }
        placed
    }

    /// Settles held blocks of unknown position on the chain `hashes`; answers where the last one lies.
    fn seat_all(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        after: Option<Place>,
        engine: &[EngineBlockHash],
        hashes: &[SequenceHash],
    ) -> Option<Place> {
        let (mut at, mut parent, mut last) = (0, after, after);
        while at < hashes.len() {
            let stretch = self.index.stretch(space, parent, &hashes[at..]);
            let run = stretch.place.run;
            for offset in stretch.place.offset..stretch.place.offset + stretch.n as u32 {
                // The same engine hash twice in one event names one place: the first.
                let here = Place { run, offset };
                if self.place(owner, engine[at]).is_none() && self.index.seat(owner, engine[at], here) {
                    self.tell_stored(owner, space, &hashes[at..=at]);
                }
                last = self.place(owner, engine[at]);
                (at, parent) = (at + 1, Some(here));
            }
            self.index.trim(run);
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
