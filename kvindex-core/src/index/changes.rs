//! Applying one sealed event: copies, removals, clears. Where stored blocks go is in [`placing`](super::placing).

use std::sync::Arc;

use super::Index;
use super::journal::{Cause, Departure};
use super::outcome::{Notice, Outcome};
use super::owner_blocks::Copies;
use super::owner_set::OwnerSlot;
use super::registry::Coverage;
use super::reports::Reports;
use super::spaces::Family;
use super::tree::{Place, Space};
use crate::command::{Change, StoredRun};
use crate::engine::{EngineKind, gcd};
use crate::hash::EngineBlockHash;
use crate::ids::{BatchSeq, Group, Tier};
use crate::limits::MAX_BLOCK_SIZE;
use crate::worker::CopyPolicy;

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
            Change::Stored(run) => {
                self.index.ages.tick();
                self.store(run);
            }
            Change::Removed { tier, group, hashes } => self.remove(tier, *group, hashes),
            Change::Cleared { tier } => self.clear(tier.as_ref()),
            Change::Unreadable => self.suspect(),
        }
    }

    fn store(&mut self, run: &StoredRun) {
        if run.block_size.saturating_mul(run.stride) > MAX_BLOCK_SIZE {
            self.outcome.refused += run.engine_hashes.len() as u64;
            return self.doubt();
        }
        if self.learn(run) {
            self.unseat();
        }
        if run.engine_hashes.is_empty() {
            return;
        }
        let room = self.index.limits.max_entries.saturating_sub(self.index.entries);
        let fits = run.engine_hashes.len() <= room;
        if fits && self.only_reports(run) {
            return;
        }
        let Some((space, owner, counted)) = self.room_for(run).filter(|_| fits) else {
            self.outcome.refused += run.engine_hashes.len() as u64;
            self.doubt();
            return;
        };
        let by_content = self.names_content(owner).unwrap_or(run.scheme.content_only);
        // An owner's blocks are named one way or the other; a run of the other kind is known by its names.
        let whole = run.local_hashes.len() == run.engine_hashes.len();
        let space = space.filter(|_| run.scheme.content_only == by_content && (whole || !by_content));
        if by_content {
            let copies = run.engine_hashes.iter().map(|block| self.add_copy(owner, *block, counted));
            let new: Vec<bool> = copies.collect();
            return self.store_content(space, owner, run, &new);
        }
        match space {
            None => {
                self.add_copies(owner, &run.engine_hashes, counted);
                self.place_by_name(owner, &run.engine_hashes);
            }
            Some(space) => self.place_run(space, owner, run, counted),
        }
    }

    /// Whether what an owner holds is named by content alone; `None` when it holds nothing.
    fn names_content(&self, owner: OwnerSlot) -> Option<bool> {
        let blocks = &self.index.registry.owner(owner)?.blocks;
        let known = blocks.contents_known() > 0;
        (known || !blocks.is_empty()).then_some(known)
    }

    /// Takes note of what the run says of its group and tier; whether the stream's chains are cut in other
    /// units from now on.
    fn learn(&mut self, run: &StoredRun) -> bool {
        let Some(stream) = self.index.registry.stream_mut(self.stream) else { return false };
        let simple = stream.groups.is_simple(&stream.spec.groups);
        let recut = stream.groups.learn(run, &stream.spec.groups);
        if simple != stream.groups.is_simple(&stream.spec.groups) {
            self.index.review(self.stream);
            self.index.allow_holes(self.stream);
        }
        recut
    }

    /// Whether the run repeats what is held and is not to be counted, see [`reports`](super::reports).
    fn only_reports(&mut self, run: &StoredRun) -> bool {
        let Some(stream) = self.index.registry.stream(self.stream) else { return false };
        let counted = stream.spec.copies == CopyPolicy::Count && stream.spec.engine == EngineKind::Vllm;
        if run.tier != Tier::Device || !counted {
            return false;
        }
        let (batch, group, blocks) = (self.batch, run.group, run.engine_hashes.as_slice());
        let repeats = run.parent.is_none() && blocks.iter().all(|block| self.on_device(group, *block));
        let goes_on = run.parent.is_some() && stream.reports.awaits(batch, group);
        let new = goes_on && blocks.first().is_some_and(|first| !self.on_device(group, *first));
        let Some(stream) = self.index.registry.stream_mut(self.stream) else { return false };
        if repeats {
            return stream.reports.repeated(batch, group, blocks);
        }
        if run.parent.is_none() && stream.reports.echoed(batch, group, blocks) {
            return true;
        }
        for (group, block) in stream.reports.went_on(batch, group, run.parent, new) {
            self.remove(&Tier::Device, group, &[block]);
        }
        false
    }

    fn on_device(&self, group: Group, block: EngineBlockHash) -> bool {
        let registry = &self.index.registry;
        let owner = registry.find_owner(self.stream, &Tier::Device, group);
        owner.is_some_and(|owner| self.index.holdings().place(owner, block).is_some())
    }

    /// Namespace (none when the run says nothing that could be placed in one) and owner of a run, and whether
    /// copies count; `None` when the index may not grow by it.
    fn room_for(&mut self, run: &StoredRun) -> Option<(Option<Space>, OwnerSlot, bool)> {
        let stream = self.index.registry.stream(self.stream)?;
        let spec = Arc::clone(&stream.spec);
        let family = Family { tenant: &spec.tenant, model: &spec.model, lora: run.lora.as_deref() };
        let counted = spec.copies == CopyPolicy::Count;
        let simple = stream.groups.is_simple(&spec.groups);
        let placeable = simple || run.block_size == stream.groups.unit(&spec.groups);
        let space = if run.local_hashes.is_empty() || !placeable {
            None
        } else {
            Some(self.index.intern(family, run.block_size, run.scheme)?)
        };
        if let Some(space) = space.filter(|_| !simple) {
            self.index.allow_holes_in(space);
        }
        let in_chunks = spec.engine == EngineKind::Vllm && run.tier != Tier::Device;
        let owner = self.index.open_owner(self.stream, &run.tier, run.group)?;
        let registry = &mut self.index.registry;
        registry.owner(owner).filter(|owner| owner.blocks.has_room(run.engine_hashes.len()))?;
        if let Some(owner) = registry.owner_mut(owner).filter(|_| in_chunks) {
            owner.chunk = gcd(owner.chunk, u32::try_from(run.engine_hashes.len()).unwrap_or(u32::MAX));
        }
        Some((space, owner, counted))
    }

    /// Adds copies of blocks, those that are not held at unknown positions.
    pub(super) fn add_copies(&mut self, owner: OwnerSlot, blocks: &[EngineBlockHash], counted: bool) {
        for block in blocks {
            self.add_copy(owner, *block, counted);
        }
    }

    /// Adds a copy, with `counted` false only the first; answers whether it is the first.
    pub(super) fn add_copy(&mut self, slot: OwnerSlot, block: EngineBlockHash, counted: bool) -> bool {
        let held = self.index.holdings().place(slot, block).is_some();
        let Some(owner) = self.index.registry.owner_mut(slot) else { return false };
        if held {
            self.outcome.copies += 1;
            if counted {
                owner.blocks.add_copy(block);
            }
        } else {
            owner.blocks.add(block);
            self.index.entries += 1;
            self.outcome.stored += 1;
        }
        !held
    }

    fn remove(&mut self, tier: &Tier, group: Group, hashes: &[EngineBlockHash]) {
        let Some(slot) = self.index.registry.find_owner(self.stream, tier, group) else {
            self.outcome.removed_unknown += hashes.len() as u64;
            return;
        };
        let own = self.index.registry.owner(slot).filter(|owner| hashes.len() > 1 && owner.blocks.own() > 0);
        if let Some(owner) = own {
            owner.blocks.warm(hashes);
        }
        let mut rest = hashes;
        while let Some(block) = rest.first() {
            let n = self.remove_row(slot, rest, (tier, group));
            rest = &rest[n.max(1)..];
            if n > 0 {
                continue;
            }
            match self.index.take_copy(slot, *block) {
                Copies::Unknown => self.outcome.removed_unknown += 1,
                Copies::Other => {}
                Copies::Last(place) => {
                    self.outcome.removed += 1;
                    self.lose(slot, *block, place, Cause::Removed, (tier, group));
                }
            }
        }
    }

    /// The last copy of a block, which lay at `place`, was taken from an owner.
    pub(super) fn lose(
        &mut self,
        slot: OwnerSlot,
        block: EngineBlockHash,
        place: Option<Place>,
        cause: Cause,
        (tier, group): (&Tier, Group),
    ) {
        if let Some(stream) = self.index.registry.stream_mut(self.stream) {
            stream.reports.gone(group, block);
        }
        let Some(owner) = self.index.registry.owner_mut(slot) else { return };
        self.index.entries -= 1;
        let gone = place.is_some_and(|at| owner.blocks.leave(at));
        if let Some(at) = place.filter(|_| gone) {
            self.depart(slot, at, cause, (tier, group));
        }
        self.forget_content(slot, block);
    }

    fn forget_content(&mut self, slot: OwnerSlot, block: EngineBlockHash) {
        let Some(owner) = self.index.registry.owner(slot) else { return };
        if owner.blocks.contents_known() == 0 {
            return;
        }
        let Some(content) = owner.blocks.content_of(block) else { return };
        for (space, hash) in content.positions.clone() {
            if let Some(run) = self.index.view.tree.head(space, hash) {
                self.index.release(Place { run, offset: 0 }, slot);
            }
        }
    }

    /// Takes an owner off a block, with a note for `explain` and for followers.
    fn depart(&mut self, slot: OwnerSlot, at: Place, cause: Cause, (tier, group): (&Tier, Group)) {
        let Index { view, registry, journal, heard, .. } = &mut *self.index;
        let Some(stream) = registry.stream(self.stream) else { return };
        if let (Some(block), Some(run)) = (view.tree.hash_at(at), view.tree.run(at.run)) {
            let (batch, at_ms) = (self.batch, self.at_ms);
            journal.note(Departure::new((block, batch, at_ms), (stream.serial, slot), cause));
            let heard = matches!(cause, Cause::Removed | Cause::Evicted) && *heard;
            if let Some(namespace) = view.spaces.get(Space(run.space)).filter(|_| heard) {
                let stream = &stream.id;
                (self.notice)(Notice::Removed { stream, batch, tier, group, namespace, block });
            }
        }
        self.index.release(at, slot);
    }

    /// The engine says that it cleared its cache. What it holds is known again when nothing of it is left: after a
    /// clear of every tier, or of the only one that can hold anything.
    fn clear(&mut self, tier: Option<&Tier>) {
        self.drop_blocks(tier, Cause::Cleared);
        let Some(stream) = self.index.registry.stream_mut(self.stream) else { return };
        stream.reports = Reports::default();
        stream.silent_clear |= stream.other_tiers;
        stream.missed &= tier.is_some();
        if tier.is_none() || stream.slots.is_empty() && !stream.other_tiers && !stream.missed {
            stream.stamp.coverage = Coverage::Complete;
        } else if stream.slots.is_empty() && stream.stamp.coverage == Coverage::Suspect {
            // Nothing is left that could be too much.
            stream.stamp.coverage = Coverage::Incomplete;
        }
    }

    /// Forgets where the stream's blocks lie: their hashes are known, but count in other units from now on.
    pub(super) fn unseat(&mut self) {
        let Some(stream) = self.index.registry.stream(self.stream) else { return };
        for slot in stream.slots.clone() {
            self.index.set_apart_everywhere(slot);
            let Some(owner) = self.index.registry.owner_mut(slot) else { continue };
            for at in owner.blocks.unseat() {
                self.tell_removed(slot, at);
                self.index.release(at, slot);
            }
        }
    }

    /// Tells followers that an owner leaves a place.
    pub(super) fn tell_removed(&mut self, slot: OwnerSlot, at: Place) {
        let Self { index, notice, batch, .. } = self;
        let Some((run, block)) = index.view.tree.run(at.run).zip(index.view.tree.hash_at(at)) else { return };
        let stream = index.registry.stream(self.stream);
        let parts = stream.zip(index.registry.owner(slot)).zip(index.view.spaces.get(Space(run.space)));
        if let Some(((stream, owner), namespace)) = parts {
            let (stream, tier, group, batch) = (&stream.id, &owner.tier, owner.group, *batch);
            notice(Notice::Removed { stream, batch, tier, group, namespace, block });
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
        if let Some(stream) = self.index.registry.stream_mut(self.stream).filter(|_| tier.is_none()) {
            (stream.reports, stream.silent_clear) = (Reports::default(), false);
        }
        if dropped > 0 {
            (self.notice)(Notice::Cleared { stream: &id, tier, blocks: dropped });
        }
    }

    fn drop_owner(&mut self, slot: OwnerSlot, cause: Cause) -> u64 {
        let blocks = self.index.holdings().blocks_of(slot);
        let Some(owner) = self.index.close_owner(slot) else { return 0 };
        // Deepest first, so that runs shrink from their ends; and not in the order of a map.
        let mut places: Vec<Place> = blocks.into_iter().filter_map(|(_, place, _)| place).collect();
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        for at in places {
            self.depart(slot, at, cause, (&owner.tier, owner.group));
        }
        for (_, content) in owner.blocks.iter_contents() {
            for (space, hash) in &content.positions {
                if let Some(run) = self.index.view.tree.head(*space, *hash) {
                    self.index.release(Place { run, offset: 0 }, slot);
                }
            }
        }
        self.index.naming.leave(slot);
        self.index.entries -= owner.blocks.len();
        owner.blocks.len() as u64
    }

    fn suspect(&mut self) {
        if let Some(stream) = self.index.registry.stream_mut(self.stream) {
            (stream.stamp.coverage, stream.missed) = (Coverage::Suspect, true);
        }
    }

    pub(super) fn doubt(&mut self) {
        if let Some(stream) = self.index.registry.stream_mut(self.stream)
            && stream.stamp.coverage == Coverage::Complete
        {
            stream.stamp.coverage = Coverage::Incomplete;
        }
    }
}
