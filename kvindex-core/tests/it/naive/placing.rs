//! The rules of one event in the naive model: copies, and where blocks go.

use std::collections::BTreeMap;

use kvindex_core::{
    Change, CopyPolicy, EngineBlockHash, LocalBlockHash, Namespace, Outcome, SequenceHash, StoredRun, Tier,
    WorkerSpec,
};

use super::{Held, Name, Place, Stream, Waiting};

/// One event being applied.
pub(super) struct Applying<'a> {
    pub(super) spec: &'a WorkerSpec,
    pub(super) max_orphans: usize,
    pub(super) spaces: &'a mut Vec<Namespace>,
    pub(super) stream: &'a mut Stream,
    pub(super) outcome: &'a mut Outcome,
}

/// A block that found its place.
struct Found {
    name: EngineBlockHash,
    at: Place,
    /// Whether the device found it.
    on_device: bool,
}

impl Applying<'_> {
    pub(super) fn change(&mut self, change: &Change) {
        match change {
            Change::Stored(run) => self.store(run),
            Change::Removed { tier, hashes, .. } => {
                hashes.iter().for_each(|name| self.remove(tier, *name));
            }
            Change::Cleared { tier } => self.stream.clear(tier.as_ref(), self.outcome),
            Change::Unreadable => {}
        }
    }

    fn store(&mut self, run: &StoredRun) {
        self.stream.size_known |= run.block_size > 0;
        if run.engine_hashes.is_empty() {
            return;
        }
        let (tier, engine, local) = (&run.tier, run.engine_hashes.as_slice(), run.local_hashes.as_slice());
        engine.iter().for_each(|name| self.add_copy(tier, *name));
        if local.is_empty() {
            return self.place_by_name(tier, engine);
        }
        let space = self.space_of(run);
        if *tier != Tier::Device {
            // Connectors leave out extra keys: a name that the stream has placed tells more than tokens do.
            self.place_by_name(tier, engine);
            let unplaced = engine.iter().any(|name| self.place(tier, *name).is_none());
            self.held(tier).by_tokens |= unplaced;
        }
        match run.parent.map(|parent| self.place_within(space, tier, parent)) {
            None => self.chain(space, None, tier, engine, local),
            Some(Some((_, parent))) => self.chain(space, Some(parent), tier, engine, local),
            Some(None) => self.orphan(space, run),
        }
    }

    fn add_copy(&mut self, tier: &Tier, name: EngineBlockHash) {
        let counted = self.spec.copies == CopyPolicy::Count;
        match self.held(tier).names.get_mut(&name) {
            Some(known) => {
                known.copies += u32::from(counted);
                self.outcome.copies += 1;
            }
            None => {
                self.held(tier).names.insert(name, Name { copies: 1, place: None });
                self.outcome.stored += 1;
            }
        }
    }

    fn remove(&mut self, tier: &Tier, name: EngineBlockHash) {
        let held = self.stream.tiers.get_mut(tier).filter(|held| held.names.contains_key(&name));
        let Some(Held { names, orphans, .. }) = held else {
            self.outcome.removed_unknown += 1;
            return;
        };
        match names.get_mut(&name) {
            Some(known) if known.copies > 1 => known.copies -= 1,
            _ => {
                names.remove(&name);
                orphans.remove(&name);
                self.outcome.removed += 1;
            }
        }
    }

    fn held(&mut self, tier: &Tier) -> &mut Held {
        self.stream.tiers.entry(tier.clone()).or_default()
    }

    fn tiers(&self) -> Vec<Tier> {
        self.stream.tiers.keys().cloned().collect()
    }

    fn space_of(&mut self, run: &StoredRun) -> usize {
        let (tenant, model) = (self.spec.tenant.as_str(), self.spec.model.as_str());
        let is_it = |space: &Namespace| {
            let family = *space.tenant == *tenant && *space.model == *model && space.lora == run.lora;
            family && space.block_size == run.block_size && space.scheme == run.scheme
        };
        self.spaces.iter().position(is_it).unwrap_or_else(|| {
            let (tenant, model, lora) = (tenant.into(), model.into(), run.lora.clone());
            let (block_size, scheme) = (run.block_size, run.scheme);
            self.spaces.push(Namespace { tenant, model, lora, block_size, scheme });
            self.spaces.len() - 1
        })
    }

    fn place(&self, tier: &Tier, name: EngineBlockHash) -> Option<Place> {
        self.stream.tiers.get(tier)?.names.get(&name)?.place
    }

    /// Where the stream holds a name: on this tier, or else on the fastest that knows, if it is a place of `wanted`.
    fn place_where(
        &self,
        tier: &Tier,
        name: EngineBlockHash,
        wanted: impl Fn(&Place) -> bool,
    ) -> Option<Place> {
        let everywhere = [tier].into_iter().chain(self.stream.tiers.keys());
        everywhere.filter_map(|tier| self.place(tier, name)).find(wanted)
    }

    fn place_anywhere(&self, tier: &Tier, name: EngineBlockHash) -> Option<Place> {
        self.place_where(tier, name, |_| true)
    }

    fn place_within(&self, space: usize, tier: &Tier, name: EngineBlockHash) -> Option<Place> {
        self.place_where(tier, name, |place| place.0 == space)
    }

    fn put(&mut self, tier: &Tier, name: EngineBlockHash, place: Place) {
        let held = self.held(tier);
        held.orphans.remove(&name);
        held.names.entry(name).and_modify(|known| known.place = Some(place));
    }

    fn place_by_name(&mut self, tier: &Tier, names: &[EngineBlockHash]) {
        for name in names {
            if self.place(tier, *name).is_none()
                && let Some(at) = self.place_anywhere(tier, *name)
            {
                self.put(tier, *name, at);
            }
        }
    }

    /// Places a chain after `before`, and what waited for it.
    fn chain(
        &mut self,
        space: usize,
        before: Option<SequenceHash>,
        tier: &Tier,
        engine: &[EngineBlockHash],
        local: &[LocalBlockHash],
    ) {
        let placed = self.settle(space, before, tier, engine, local);
        self.wake(placed);
    }

    /// A further copy of a placed block stays where it is, and the chain goes on below it, unless it is in another
    /// namespace. A name that comes twice among blocks without place has the first of them.
    fn settle(
        &mut self,
        space: usize,
        mut before: Option<SequenceHash>,
        tier: &Tier,
        engine: &[EngineBlockHash],
        local: &[LocalBlockHash],
    ) -> Vec<Found> {
        let (mut placed, mut at, on_device) = (Vec::new(), 0, *tier == Tier::Device);
        while at < engine.len() {
            if let Some((elsewhere, hash)) = self.place(tier, engine[at]) {
                if elsewhere != space {
                    break;
                }
                (before, at) = (Some(hash), at + 1);
                continue;
            }
            let without = engine[at..].iter().take_while(|name| self.place(tier, **name).is_none());
            let end = at + without.count();
            for i in at..end {
                let hash = SequenceHash::chain(before, local[i]);
                before = Some(hash);
                if self.place(tier, engine[i]).is_none() {
                    self.put(tier, engine[i], (space, hash));
                }
                let name = engine[i];
                placed.extend(self.place(tier, name).map(|at| Found { name, at, on_device }));
            }
            // What follows hangs below where the last block really lies.
            before = self.place(tier, engine[end - 1]).map(|(_, hash)| hash);
            at = end;
        }
        placed
    }

    /// Keeps a run whose parent is nowhere. From the first block on that the stream holds elsewhere, the rest hangs
    /// below that one; before it, every block waits for the one before it.
    fn orphan(&mut self, space: usize, run: &StoredRun) {
        let (tier, engine, local) = (&run.tier, &run.engine_hashes, &run.local_hashes);
        let mut parent = run.parent;
        for (i, name) in engine.iter().enumerate() {
            if let Some(at) = self.place_within(space, tier, *name) {
                if self.place(tier, *name).is_none() {
                    self.put(tier, *name, at);
                }
                return self.chain(space, Some(at.1), tier, &engine[i + 1..], &local[i + 1..]);
            }
            // Another namespace's blocks, and what follows them, cannot be joined in this one.
            let elsewhere = |name| self.place_anywhere(tier, name).is_some();
            if let Some(parent) = parent.filter(|parent| !elsewhere(*name) && !elsewhere(*parent)) {
                let (room, local) = (self.max_orphans, local[i]);
                let orphans = &mut self.held(tier).orphans;
                if orphans.len() < room {
                    orphans.insert(*name, Waiting { parent, space, local });
                    self.outcome.orphaned += 1;
                } else {
                    self.outcome.unjoinable += 1;
                }
            }
            parent = Some(*name);
        }
    }

    /// Places what waited on any tier for what was placed: the same names without place, and orphans below. What
    /// was placed last is followed up first.
    fn wake(&mut self, mut todo: Vec<Found>) {
        while let Some(Found { name, at, on_device }) = todo.pop() {
            for tier in self.tiers() {
                let Held { names, by_tokens, .. } = self.held(&tier);
                let (known, by_tokens) = (names.get(&name).map(|known| known.place), *by_tokens);
                match known {
                    Some(None) => {
                        self.put(&tier, name, at);
                        self.outcome.joined += 1;
                    }
                    // What the device says of a block corrects what tokens alone said.
                    Some(Some(old)) if by_tokens && old != at && on_device => self.put(&tier, name, at),
                    _ => {}
                }
                for (orphan, waiting) in self.take_waiting(&tier, name) {
                    if waiting.space == at.0 {
                        self.outcome.joined += 1;
                        let (engine, local) = ([orphan], [waiting.local]);
                        todo.extend(self.settle(waiting.space, Some(at.1), &tier, &engine, &local));
                    }
                }
            }
        }
    }

    /// The blocks that wait for this one, which do no more.
    fn take_waiting(&mut self, tier: &Tier, parent: EngineBlockHash) -> BTreeMap<EngineBlockHash, Waiting> {
        let orphans = &mut self.held(tier).orphans;
        if orphans.is_empty() {
            return BTreeMap::new();
        }
        let (taken, left) = std::mem::take(orphans).into_iter().partition(|(_, w)| w.parent == parent);
        *orphans = left;
        taken
    }
}
