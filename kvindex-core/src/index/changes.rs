//! Applying one sealed event to the tree and to the owner's blocks.

use super::Index;
use super::journal::{Cause, Departure};
use super::outcome::{Notice, Outcome};
use super::owner_blocks::{Copies, Orphan};
use super::owner_set::OwnerSlot;
use super::registry::{Coverage, Owner};
use super::spaces::Family;
use super::tree::{Place, Space};
use crate::command::{Change, StoredRun};
use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};
use crate::ids::{BatchSeq, Group, Tier};
use crate::worker::CopyPolicy;

/// Most positions remembered for one block of an engine that hashes content alone.
const MAX_POSITIONS: usize = 64;

/// The index in the middle of one batch of one stream.
pub(super) struct Applying<'a> {
    pub(super) index: &'a mut Index,
    pub(super) stream: u32,
    pub(super) batch: BatchSeq,
    pub(super) at_ms: u64,
    pub(super) notice: &'a mut dyn FnMut(Notice<'_>),
    pub(super) outcome: &'a mut Outcome,
}

impl Applying<'_> {
    pub(super) fn change(&mut self, change: &Change) {
        match change {
            Change::Stored(run) => self.store(run),
            Change::Removed { tier, group, hashes } => self.remove(tier, *group, hashes),
            Change::Cleared { tier } => self.clear(tier.as_ref()),
            Change::Unreadable => self.suspect(),
        }
    }

    fn store(&mut self, run: &StoredRun) {
        let Some((space, owner, counted)) = self.room_for(run) else {
            self.outcome.refused += run.engine_hashes.len() as u64;
            self.doubt();
            return;
        };
        if let Some(owner) = self.index.registry.owner_mut(owner) {
            owner.block_size = run.block_size;
        }
        let known = run.local_hashes.len() == run.engine_hashes.len();
        let new_copies: Vec<bool> =
            run.engine_hashes.iter().map(|b| self.add_copy(owner, *b, counted)).collect();
        if !known {
            return;
        }
        if run.scheme.content_only {
            self.store_content(space, owner, run, &new_copies);
            return;
        }
        match run.parent.map(|parent| self.parent_place(space, owner, parent)) {
            None => self.place_chain(space, owner, None, &run.engine_hashes, &run.local_hashes),
            Some(Some(at)) => self.place_chain(space, owner, Some(at), &run.engine_hashes, &run.local_hashes),
            Some(None) => self.orphan(space, owner, run),
        }
    }

    /// Namespace and owner of a run, and whether copies count; `None` when the index may not grow by it.
    fn room_for(&mut self, run: &StoredRun) -> Option<(Space, OwnerSlot, bool)> {
        let room = self.index.limits.max_entries.saturating_sub(self.index.entries);
        if run.engine_hashes.len() > room {
            return None;
        }
        let id = &self.index.registry.stream(self.stream)?.id;
        let spec = &self.index.registry.worker(&id.worker)?.spec;
        let family = Family { tenant: &spec.tenant, model: &spec.model, lora: run.lora.as_deref() };
        let counted = spec.copies == CopyPolicy::Count;
        let space = self.index.spaces.intern(family, run.block_size, run.scheme)?;
        let owner = self.index.registry.open_owner(self.stream, &run.tier, run.group)?;
        Some((space, owner, counted))
    }

    fn add_copy(&mut self, owner: OwnerSlot, block: EngineBlockHash, counted: bool) -> bool {
        let Some(owner) = self.index.registry.owner_mut(owner) else { return false };
        let first = owner.blocks.add_copy(block, counted) == Copies::First;
        if first {
            self.index.entries += 1;
            self.outcome.stored += 1;
        } else {
            self.outcome.copies += 1;
        }
        first
    }

    fn place(&self, owner: OwnerSlot, block: EngineBlockHash) -> Option<Place> {
        self.index.registry.owner(owner)?.blocks.place(block)
    }

    /// The owners of the same stream and group, one a tier: they speak of the same chains, and a block's
    /// parent may lie on another tier than the block.
    fn siblings(&self, owner: OwnerSlot) -> impl Iterator<Item = OwnerSlot> + '_ {
        let registry = &self.index.registry;
        let group = registry.owner(owner).map(|o| o.group);
        let slots = registry.stream(self.stream).map_or(&[][..], |s| s.slots.as_slice());
        slots.iter().copied().filter(move |slot| registry.owner(*slot).map(|o| o.group) == group)
    }

    fn parent_place(&self, space: Space, owner: OwnerSlot, parent: EngineBlockHash) -> Option<Place> {
        let elsewhere = || self.siblings(owner).find_map(|slot| self.place(slot, parent));
        let place = self.place(owner, parent).or_else(elsewhere);
        place.filter(|at| self.index.tree.run(at.run).is_some_and(|run| run.space == space.0))
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
        let orphans = |slot: &OwnerSlot| self.index.registry.owner(*slot).map_or(0, |o| o.blocks.orphans());
        let siblings: Vec<OwnerSlot> = self.siblings(owner).filter(|slot| orphans(slot) > 0).collect();
        let awaited = !siblings.is_empty();
        let placed = self.settle_chain(space, owner, after, engine, local, awaited);
        if !awaited {
            return;
        }
        let mut todo = placed;
        while let Some((parent, at)) = todo.pop() {
            for slot in &siblings {
                let Some(holder) = self.index.registry.owner_mut(*slot) else { continue };
                let orphans = holder.blocks.take_waiting(parent);
                for orphan in orphans.into_iter().filter(|orphan| orphan.space == space) {
                    self.outcome.joined += 1;
                    let (block, local) = ([orphan.block], [orphan.local]);
                    let placed = self.settle_chain(orphan.space, *slot, Some(at), &block, &local, true);
                    todo.extend(placed);
                }
            }
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
        let Owner { blocks, tier, .. } = registry.owner_mut(owner)?;
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
                (self.notice)(Notice::Stored { stream: &stream, batch: self.batch, tier, namespace, blocks });
            }
            at += n;
        });
        strays.into_iter().for_each(|stray| tree.release(stray, owner));
        last
    }

    /// Keeps a chain whose parent is not known; every block waits for the one before it.
    fn orphan(&mut self, space: Space, owner: OwnerSlot, run: &StoredRun) {
        let max = self.index.limits.max_orphans_per_owner;
        let Some(holder) = self.index.registry.owner_mut(owner) else { return };
        let mut parent = run.parent;
        let mut placed = None;
        for (i, (block, local)) in run.engine_hashes.iter().zip(&run.local_hashes).enumerate() {
            // A further copy of a block with a place: the rest of the chain hangs below it.
            if let Some(at) = holder.blocks.place(*block) {
                placed = Some((i + 1, at));
                break;
            }
            if let Some(parent) = parent {
                if holder.blocks.orphans() < max {
                    holder.blocks.wait_for(parent, Orphan { block: *block, space, local: *local });
                    self.outcome.orphaned += 1;
                } else {
                    self.outcome.unjoinable += 1;
                }
            }
            parent = Some(*block);
        }
        if let Some((next, at)) = placed {
            self.place_chain(space, owner, Some(at), &run.engine_hashes[next..], &run.local_hashes[next..]);
        }
    }

    /// Stores blocks of an engine that hashes content alone: a block stands at every position it was ever
    /// announced at, where a position is (content of the block before, own content).
    fn store_content(&mut self, space: Space, owner: OwnerSlot, run: &StoredRun, new: &[bool]) {
        let max = self.index.limits.max_orphans_per_owner;
        let Some(holder) = self.index.registry.owner_mut(owner) else { return };
        let content_of = |parent| holder.blocks.content_of(parent).and_then(|c| c.local);
        let mut before = run.parent.map(content_of);
        let mut changed = Vec::new();
        for ((block, local), new) in run.engine_hashes.iter().zip(&run.local_hashes).zip(new) {
            if holder.blocks.content_of(*block).is_some() || holder.blocks.contents_known() < max {
                let content = holder.blocks.content(*block);
                content.local = Some(*local);
                let position = match before {
                    None => Some(SequenceHash::chain(None, *local)),
                    Some(known) => known.map(|k| SequenceHash::chain(Some(SequenceHash(k.0)), *local)),
                };
                let position = position.map(|hash| (space, hash));
                let fresh = position.filter(|p| !content.positions.contains(p));
                let fresh = fresh.filter(|_| content.positions.len() < MAX_POSITIONS);
                if let Some(position) = fresh.filter(|position| holder.blocks.claim(*position)) {
                    holder.blocks.content(*block).positions.push(position);
                    changed.push(position);
                }
                if *new {
                    changed.extend(&holder.blocks.content(*block).positions);
                }
            } else {
                self.outcome.unjoinable += 1;
            }
            before = Some(Some(*local));
        }
        if holder.blocks.contents_known() >= max {
            self.doubt();
        }
        for (space, hash) in changed {
            self.index.tree.hold_chain(space, None, &[hash], owner, |_, _, _| {});
        }
    }

    fn remove(&mut self, tier: &Tier, group: Group, hashes: &[EngineBlockHash]) {
        let Some(slot) = self.index.registry.find_owner(self.stream, tier, group) else {
            self.outcome.removed_unknown += hashes.len() as u64;
            return;
        };
        for block in hashes {
            let Some(owner) = self.index.registry.owner_mut(slot) else { return };
            match owner.blocks.take_copy(*block) {
                Copies::Unknown => self.outcome.removed_unknown += 1,
                Copies::First | Copies::Other => {}
                Copies::Last(place) => {
                    self.index.entries -= 1;
                    self.outcome.removed += 1;
                    let gone = place.is_some_and(|at| owner.blocks.leave(at));
                    if let Some(at) = place.filter(|_| gone) {
                        self.depart(slot, at, Cause::Removed, tier);
                    }
                    self.forget_content(slot, *block);
                }
            }
        }
    }

    fn forget_content(&mut self, slot: OwnerSlot, block: EngineBlockHash) {
        let Some(owner) = self.index.registry.owner(slot) else { return };
        let Some(content) = owner.blocks.content_of(block) else { return };
        for (space, hash) in content.positions.clone() {
            if let Some(run) = self.index.tree.head(space, hash) {
                self.index.tree.release(Place { run, offset: 0 }, slot);
            }
        }
    }

    /// Takes an owner off a block, with a note for `explain` and for followers.
    fn depart(&mut self, slot: OwnerSlot, at: Place, cause: Cause, tier: &Tier) {
        let Index { tree, registry, spaces, journal, .. } = &mut *self.index;
        let Some(stream) = registry.stream(self.stream) else { return };
        if let (Some(block), Some(run)) = (tree.hash_at(at), tree.run(at.run)) {
            let (batch, at_ms) = (self.batch, self.at_ms);
            journal.note(Departure { block, at_ms, batch, stream: stream.serial, owner: slot, cause });
            if let (Cause::Removed, Some(namespace)) = (cause, spaces.get(Space(run.space))) {
                let stream = &stream.id;
                (self.notice)(Notice::Removed { stream, batch, tier, namespace, block });
            }
        }
        tree.release(at, slot);
    }

    /// The engine says that it cleared its cache. What it holds is known again when nothing of it is left.
    fn clear(&mut self, tier: Option<&Tier>) {
        self.drop_blocks(tier, Cause::Cleared);
        if let Some(stream) = self.index.registry.stream_mut(self.stream)
            && stream.slots.is_empty()
            && !stream.other_tiers
        {
            stream.stamp.coverage = Coverage::Complete;
        }
    }

    /// Drops everything the stream holds, on one tier or all.
    pub(super) fn drop_blocks(&mut self, tier: Option<&Tier>, cause: Cause) {
        let Some(stream) = self.index.registry.stream(self.stream) else { return };
        let (slots, id) = (stream.slots.clone(), stream.id.clone());
        let mut dropped = 0;
        for slot in slots {
            let Some(owner) = self.index.registry.owner(slot) else { continue };
            if tier.is_some_and(|tier| owner.tier != *tier) {
                continue;
            }
            dropped += self.drop_owner(slot, cause);
        }
        self.outcome.dropped += dropped;
        if dropped > 0 {
            (self.notice)(Notice::Cleared { stream: &id, tier, blocks: dropped });
        }
    }

    fn drop_owner(&mut self, slot: OwnerSlot, cause: Cause) -> u64 {
        let Some(owner) = self.index.registry.close_owner(slot) else { return 0 };
        // Deepest first, so that runs shrink from their ends; and not in the order of a map.
        let mut places: Vec<Place> = owner.blocks.iter().filter_map(|(_, place, _)| place).collect();
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        for at in places {
            self.depart(slot, at, cause, &owner.tier);
        }
        for (_, content) in owner.blocks.iter_contents() {
            for (space, hash) in &content.positions {
                if let Some(run) = self.index.tree.head(*space, *hash) {
                    self.index.tree.release(Place { run, offset: 0 }, slot);
                }
            }
        }
        self.index.entries -= owner.blocks.len();
        owner.blocks.len() as u64
    }

    fn suspect(&mut self) {
        if let Some(stream) = self.index.registry.stream_mut(self.stream) {
            stream.stamp.coverage = Coverage::Suspect;
        }
    }

    fn doubt(&mut self) {
        if let Some(stream) = self.index.registry.stream_mut(self.stream)
            && stream.stamp.coverage == Coverage::Complete
        {
            stream.stamp.coverage = Coverage::Incomplete;
        }
    }
}
