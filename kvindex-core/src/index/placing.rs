//! Where stored blocks go in the tree. A chain goes below its parent, found by its engine hash on whatever tier
//! and in whatever group of the stream; blocks without a known parent wait; blocks that come as names alone
//! are placed where the stream holds the same name.

use super::Index;
use super::changes::Applying;
use super::outcome::Notice;
use super::owner_blocks::Orphan;
use super::owner_set::OwnerSlot;
use super::registry::Owner;
use super::tree::{Place, Space};
use crate::command::StoredRun;
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};
use crate::ids::Tier;

impl Applying<'_> {
    pub(super) fn place(&self, owner: OwnerSlot, block: EngineBlockHash) -> Option<Place> {
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
    pub(super) fn place_within(
        &self,
        space: Space,
        owner: OwnerSlot,
        block: EngineBlockHash,
    ) -> Option<Place> {
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
    /// a name that the stream has placed tells more than the tokens do. `new` is the number of the run's first
    /// block, when the owner held none of its blocks.
    pub(super) fn place_run(&mut self, space: Space, owner: OwnerSlot, run: &StoredRun, new: Option<usize>) {
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
        if run.stride != 1 || run.local_hashes.len() != run.engine_hashes.len() {
            return self.place_marked(space, owner, after, run);
        }
        match new {
            Some(from) => self.place_new(space, owner, after, run, from),
            None => self.place_chain(space, owner, after, &run.engine_hashes, &run.local_hashes),
        }
    }

    /// Places a chain of blocks that were all unknown to the owner: the ordinary case, and the quick one.
    fn place_new(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        after: Option<Place>,
        run: &StoredRun,
        from: usize,
    ) {
        let mut chain = std::mem::take(&mut self.index.chain);
        let mut before = after.and_then(|at| self.index.tree.hash_at(at));
        chain.extend(run.local_hashes.iter().map(|local| {
            let hash = SequenceHash::chain(before, *local);
            before = Some(hash);
            hash
        }));
        let Index { registry, tree, spaces, .. } = &mut *self.index;
        let parts = registry.stream_and_owner(self.stream, owner).zip(spaces.get(space));
        if let Some(((stream, Owner { blocks, tier, group, .. }), namespace)) = parts {
            let (mut at, batch, group) = (0, self.batch, *group);
            tree.hold_chain(space, after, &chain, owner, |place, n, held| {
                blocks.settle_new(from + at, place, n, held);
                if !held {
                    let blocks = &chain[at..at + n];
                    (self.notice)(Notice::Stored { stream, batch, tier, group, namespace, blocks });
                }
                at += n;
            });
        }
        chain.clear();
        self.index.chain = chain;
        if self.siblings().iter().any(|slot| self.awaits(*slot, owner)) {
            let place = |block: &EngineBlockHash| Some((*block, self.place(owner, *block)?));
            let placed = run.engine_hashes.iter().filter_map(place).collect();
            self.wake(owner, placed);
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
        let awaited = self.siblings().iter().any(|slot| self.awaits(*slot, owner));
        let placed = self.settle_chain(space, owner, after, engine, local, awaited);
        self.wake(owner, placed);
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
    pub(super) fn wake(&mut self, owner: OwnerSlot, mut todo: Vec<(EngineBlockHash, Place)>) {
        if todo.is_empty() {
            return;
        }
        let siblings = self.siblings().iter().copied();
        let siblings: Vec<OwnerSlot> = siblings.filter(|slot| self.awaits(*slot, owner)).collect();
        while let Some((block, at)) = todo.pop() {
            let space = self.index.tree.run(at.run).map(|run| Space(run.space));
            for slot in &siblings {
                self.correct(owner, *slot, block, at);
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

    /// What the device says of a block moves a copy that `slot` placed by tokens alone.
    fn correct(&mut self, owner: OwnerSlot, slot: OwnerSlot, block: EngineBlockHash, at: Place) {
        let registry = &mut self.index.registry;
        let device = registry.owner(owner).is_some_and(|owner| owner.tier == Tier::Device);
        let Some(holder) = registry.owner_mut(slot).filter(|holder| device && holder.by_tokens) else {
            return;
        };
        let Some(old) = holder.blocks.place(block).filter(|old| *old != at) else { return };
        if holder.blocks.leave(old) {
            self.index.tree.release(old, slot);
        }
        self.hold_at(slot, block, at);
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
                if self.index.tree.run(place.run).is_none_or(|run| run.space != space.0) {
                    // One name in two namespaces: what follows cannot hang below the other one's block.
                    break;
                }
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
