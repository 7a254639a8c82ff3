//! What an owner holds, put together from its own names and those it shares: where a block lies, where it goes, and
//! how it leaves.

use super::Index;
use super::naming::Naming;
use super::owner_blocks::Copies;
use super::owner_set::OwnerSlot;
use super::registry::{Owner, Registry};
use super::tree::{Place, RunTree, Space, Stretch};
use crate::hash::{EngineBlockHash, SequenceHash};

/// All that is needed to say what an owner holds.
#[derive(Clone, Copy)]
pub(crate) struct Holdings<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) tree: &'a RunTree,
    pub(crate) naming: &'a Naming,
}

/// A held block: its engine hash, where it lies if that is known, and its copies.
pub(crate) type HeldBlock = (EngineBlockHash, Option<Place>, u32);

impl<'a> Holdings<'a> {
    /// Where an owner holds a block: `None` when it does not, `Some(None)` when its position is unknown.
    pub(crate) fn place(&self, slot: OwnerSlot, block: EngineBlockHash) -> Option<Option<Place>> {
        let owner = self.registry.owner(slot)?;
        let own = if owner.blocks.own() > 0 { owner.blocks.own_place(block) } else { None };
        own.or_else(|| self.shared_place(slot, owner, block).map(Some))
    }

    /// Where an owner holds a block under its shared name.
    fn shared_place(&self, slot: OwnerSlot, owner: &Owner, block: EngineBlockHash) -> Option<Place> {
        if owner.blocks.shared() == 0 {
            return None;
        }
        let at = self.naming.find(owner.book, block)?;
        (self.tree.holds(at, slot) && !self.naming.is_apart(at.run, slot)).then_some(at)
    }

    /// What one owner holds, in no particular order. Walks all runs when it shares names.
    pub(crate) fn blocks_of(&self, slot: OwnerSlot) -> Vec<HeldBlock> {
        let Some(owner) = self.registry.owner(slot) else { return Vec::new() };
        let mut blocks = self.own_of(owner);
        if owner.blocks.shared() > 0 {
            blocks.reserve(owner.blocks.shared());
            for (run, _) in self.tree.runs() {
                self.shared_in(run, slot, |name, at| {
                    blocks.push((name, Some(at), owner.blocks.copies(name)));
                });
            }
        }
        blocks
    }

    /// What every owner holds, by slot: one walk over the runs for all of them.
    pub(crate) fn blocks_of_all(&self) -> Vec<Vec<HeldBlock>> {
        let mut all: Vec<Vec<HeldBlock>> = Vec::new();
        all.resize_with(self.registry.slot_count(), Vec::new);
        for (slot, owner) in self.registry.owners() {
            all[slot.index()] = self.own_of(owner);
        }
        for (number, run) in self.tree.runs() {
            let mut from = 0;
            for segment in run.holders.segments() {
                for slot in segment.owners.iter().filter(|slot| !self.naming.is_apart(number, *slot)) {
                    let owner = self.registry.owner(slot).filter(|owner| owner.blocks.shared() > 0);
                    let Some((owner, list)) = owner.zip(all.get_mut(slot.index())) else { continue };
                    list.extend((from..segment.end).filter_map(|offset| {
                        let at = Place { run: number, offset };
                        let name = self.naming.name_at(at)?;
                        Some((name, Some(at), owner.blocks.copies(name)))
                    }));
                }
                from = segment.end;
            }
        }
        all
    }

    fn own_of(&self, owner: &Owner) -> Vec<HeldBlock> {
        let own = owner.blocks.iter_own();
        own.map(|(block, place)| (block, place, owner.blocks.copies(block))).collect()
    }

    /// Calls `each` for every block of a run that an owner holds under its shared name.
    fn shared_in(&self, number: u32, slot: OwnerSlot, mut each: impl FnMut(EngineBlockHash, Place)) {
        let Some(run) = self.tree.run(number) else { return };
        let mut from = 0;
        let mut apart = None;
        for segment in run.holders.segments() {
            if segment.owners.contains(slot)
                && !*apart.get_or_insert_with(|| self.naming.is_apart(number, slot))
            {
                for at in (from..segment.end).map(|offset| Place { run: number, offset }) {
                    if let Some(name) = self.naming.name_at(at) {
                        each(name, at);
                    }
                }
            }
            from = segment.end;
        }
    }
}

impl Index {
    pub(super) fn holdings(&self) -> Holdings<'_> {
        Holdings { registry: &self.registry, tree: &self.view.tree, naming: &self.naming }
    }

    /// Says where a block lies that an owner holds, or comes to hold, under a name that is nowhere yet. Answers
    /// whether the owner is new to that place, whose holder it is not yet.
    fn settle(&mut self, slot: OwnerSlot, block: EngineBlockHash, at: Place) -> bool {
        let held = self.view.tree.holds(at, slot);
        if !held && self.share(slot, block, at) {
            return true;
        }
        self.set_apart(at.run, slot);
        if let Some(owner) = self.registry.owner_mut(slot) {
            owner.blocks.settle(block, at, held);
        }
        !held
    }

    /// Lets an owner hold a block under its shared name, when it has that name or none.
    fn share(&mut self, slot: OwnerSlot, block: EngineBlockHash, at: Place) -> bool {
        let Self { registry, naming, .. } = self;
        let Some(owner) = registry.owner_mut(slot) else { return false };
        // Names of content stand for no one place.
        let agrees = owner.blocks.contents_known() == 0
            && !naming.is_apart(at.run, slot)
            && (naming.follow(owner.book, at, &[block]) == 1 || naming.adopt(owner.book, at, &[block]));
        if agrees {
            owner.blocks.give_up_own(block);
            owner.blocks.share(1);
        }
        agrees
    }

    /// From now on the owner keeps its names of blocks in the run itself.
    pub(super) fn set_apart(&mut self, run: u32, slot: OwnerSlot) {
        if self.naming.is_apart(run, slot) {
            return;
        }
        let mut shared = Vec::new();
        if self.registry.owner(slot).is_some_and(|owner| owner.blocks.shared() > 0) {
            self.holdings().shared_in(run, slot, |name, at| shared.push((name, at)));
        }
        self.naming.set_apart(run, slot);
        let Some(owner) = self.registry.owner_mut(slot) else { return };
        owner.blocks.unshare(shared.len());
        for (name, at) in shared {
            owner.blocks.add(name);
            owner.blocks.settle(name, at, false);
        }
    }

    /// Makes an owner keep all its names itself.
    pub(super) fn set_apart_everywhere(&mut self, slot: OwnerSlot) {
        let runs: Vec<u32> = self.view.tree.runs().map(|(run, _)| run).collect();
        for run in runs {
            let holds = |holders: &super::holders::Holders| {
                holders.segments().iter().any(|segment| segment.owners.contains(slot))
            };
            if self.view.tree.run(run).is_some_and(|run| holds(&run.holders)) {
                self.set_apart(run, slot);
            }
        }
    }

    /// Takes a copy of a block away from an owner. With the last one the owner is still among the holders of the
    /// place.
    pub(super) fn take_copy(&mut self, slot: OwnerSlot, block: EngineBlockHash) -> Copies {
        let Some(owner) = self.registry.owner_mut(slot) else { return Copies::Unknown };
        let taken = owner.blocks.take_copy(block);
        if taken != Copies::Unknown || owner.blocks.shared() == 0 {
            return taken;
        }
        let shared = self.registry.owner(slot);
        let shared = shared.and_then(|owner| self.holdings().shared_place(slot, owner, block));
        let Some((at, owner)) = shared.zip(self.registry.owner_mut(slot)) else { return Copies::Unknown };
        owner.blocks.unshare(1);
        Copies::Last(Some(at))
    }

    /// Says where a block lies, as [`settle`](Self::settle) does, and puts the owner there. Answers whether it is new
    /// to that place.
    pub(super) fn seat(&mut self, slot: OwnerSlot, block: EngineBlockHash, at: Place) -> bool {
        let new = self.settle(slot, block, at);
        self.ages.touch(at.run);
        if new {
            self.view.edit(|view| view.tree.hold(at.run, at.offset..at.offset + 1, slot));
        }
        new
    }

    /// Makes an owner hold blocks at a place and after it under these names, none of which it holds. `None` when it
    /// has no room for them.
    pub(super) fn put(&mut self, slot: OwnerSlot, place: Place, names: &[EngineBlockHash]) -> Option<()> {
        let mut from = 0;
        while from < names.len() {
            let at = Place { run: place.run, offset: place.offset + from as u32 };
            let rest = &names[from..];
            let (end, held) = self.view.tree.uniform(at, rest.len(), slot);
            let rest = &rest[..(end - at.offset) as usize];
            let shared = if held { 0 } else { self.share_row(slot, at, rest) };
            let n = if shared > 0 { shared } else { rest.len() };
            if shared == 0 {
                self.own_row(slot, at, rest, held)?;
            }
            if !held {
                self.view.edit(|view| view.tree.hold(at.run, at.offset..at.offset + n as u32, slot));
            }
            self.entries += n;
            from += n;
        }
        self.ages.touch(place.run);
        Some(())
    }

    /// How many of the names, from the first on, the owner has in common with the blocks, which it is to hold.
    fn share_row(&mut self, slot: OwnerSlot, at: Place, names: &[EngineBlockHash]) -> usize {
        let Self { registry, naming, .. } = self;
        let Some(owner) = registry.owner_mut(slot) else { return 0 };
        if owner.blocks.contents_known() > 0 || naming.is_apart(at.run, slot) {
            return 0;
        }
        let mut n = naming.follow(owner.book, at, names);
        if n == 0 && naming.adopt(owner.book, at, names) {
            n = names.len();
        }
        owner.blocks.share(n);
        n
    }

    /// Notes the owner's own names of blocks that it is to hold, or holds already under another name.
    fn own_row(&mut self, slot: OwnerSlot, at: Place, names: &[EngineBlockHash], held: bool) -> Option<()> {
        self.set_apart(at.run, slot);
        let owner = self.registry.owner_mut(slot)?;
        let first = owner.blocks.add_new(names)?;
        owner.blocks.settle_new(first, at, names.len(), held);
        if owner.blocks.contents_known() > 0 {
            names.iter().for_each(|block| self.stand_by_content(slot, *block));
        }
        Some(())
    }

    /// The next stretch of a chain, created where it is not there: somebody must come to hold it, or the run be
    /// trimmed.
    pub(super) fn stretch(&mut self, space: Space, after: Option<Place>, hashes: &[SequenceHash]) -> Stretch {
        let stretch = self.view.tree.stretch(space, after, hashes);
        if stretch.new {
            let blocks = &hashes[..stretch.n];
            let prepared = self.view.tree.prepare(space, stretch.place, blocks);
            drop(self.view.edit(|view| view.tree.create(stretch.place, blocks, prepared)));
        }
        stretch
    }

    /// Forgets the end of a run, as far as nobody holds it.
    pub(super) fn trim(&mut self, run: u32) {
        if let Some(len) = self.view.edit(|view| view.tree.trim(run)) {
            self.cut(run, len);
        }
    }

    /// Takes an owner off one block.
    pub(super) fn release(&mut self, at: Place, slot: OwnerSlot) {
        self.release_row(at, 1, slot);
    }

    /// Takes an owner off blocks that follow each other in a run.
    pub(super) fn release_row(&mut self, at: Place, n: usize, slot: OwnerSlot) {
        if let Some(len) = self.view.edit(|view| view.tree.release(at, n, slot)) {
            self.cut(at.run, len);
        }
    }

    /// A run is shorter from now on, or gone.
    fn cut(&mut self, run: u32, len: usize) {
        if self.view.tree.run_count() == 0 {
            // Runs begin at number 0 again, and nothing of the old ones may be found there.
            self.naming.clear();
            return self.ages.clear();
        }
        self.naming.forget(run, len);
    }
}
