//! The ordinary store: a chain whose parent is known goes into the tree stretch by stretch, each as a whole, under
//! shared names where the owner calls the blocks by them. What is not ordinary is left to
//! [`placing`](super::placing), block by block.

use super::changes::Applying;
use super::outcome::Notice;
use super::owner_set::OwnerSlot;
use super::tree::{Place, Space};
use crate::command::StoredRun;
use crate::hash::{EngineBlockHash, SequenceHash};

/// Blocks on their way into the tree, below one another.
struct Chain<'a> {
    space: Space,
    owner: OwnerSlot,
    engine: &'a [EngineBlockHash],
    hashes: &'a [SequenceHash],
    /// Whether further copies count.
    counted: bool,
}

/// Some of its blocks, from number `from` on, at `place` and after it.
#[derive(Clone, Copy)]
struct Part {
    from: usize,
    place: Place,
    n: usize,
}

impl Applying<'_> {
    /// Stores a run of blocks below `after`, none of which was counted yet.
    pub(super) fn store_chain(
        &mut self,
        space: Space,
        owner: OwnerSlot,
        after: Option<Place>,
        run: &StoredRun,
        counted: bool,
    ) {
        let mut hashes = std::mem::take(&mut self.index.chain);
        let mut before = after.and_then(|at| self.index.view.tree.hash_at(at));
        hashes.extend(run.local_hashes.iter().map(|local| {
            let hash = SequenceHash::chain(before, *local);
            before = Some(hash);
            hash
        }));
        let chain = Chain { space, owner, engine: &run.engine_hashes, hashes: &hashes, counted };
        let awaited = self.is_awaited(owner);
        let (mut stored, mut last, mut placed) = (0, after, Vec::new());
        // From here on, no block was held before the event.
        let mut fresh = 0;
        while stored < hashes.len() {
            let Some((n, new)) = self.store_stretch(&chain, stored, &mut last) else { break };
            if !new {
                fresh = stored + n;
            }
            if awaited && new {
                let place = |block: &EngineBlockHash| Some((*block, self.place(owner, *block)?));
                placed.extend(chain.engine[stored..stored + n].iter().filter_map(place));
            }
            stored += n;
        }
        hashes.clear();
        self.index.chain = hashes;
        let rest = &run.engine_hashes[stored..];
        if !rest.is_empty() {
            self.add_copies(owner, rest, counted);
            let fresh = run.engine_hashes[fresh..stored].iter().copied().collect();
            let local = &run.local_hashes[stored..];
            placed.extend(self.settle_chain(space, owner, last, rest, local, fresh));
        }
        self.wake(owner, placed);
    }

    /// Stores the next stretch, below `last`; answers its length, and whether its blocks were not held before. `None`
    /// when it takes a closer look, and then nothing has changed.
    fn store_stretch(
        &mut self,
        chain: &Chain<'_>,
        from: usize,
        last: &mut Option<Place>,
    ) -> Option<(usize, bool)> {
        let stretch = self.index.view.tree.stretch(chain.space, *last, &chain.hashes[from..]);
        let part = Part { from, place: stretch.place, n: stretch.n };
        let stored = if stretch.new { self.store_new(chain, part) } else { self.store_known(chain, part) };
        let (n, new) = stored?;
        self.index.ages.touch(part.place.run);
        *last = Some(Place { run: part.place.run, offset: part.place.offset + n as u32 - 1 });
        Some((n, new))
    }

    /// Blocks that the tree knows already.
    fn store_known(&mut self, chain: &Chain<'_>, part: Part) -> Option<(usize, bool)> {
        let (owner, place) = (chain.owner, part.place);
        let index = &mut *self.index;
        let holder = index.registry.owner_mut(owner)?;
        let blocks = &chain.engine[part.from..part.from + part.n];
        let apart = index.naming.is_apart(place.run, owner);
        let n = if apart { 0 } else { index.naming.follow(holder.book, place, blocks) };
        if n == 0 {
            return self.store_own(chain, part, false);
        }
        let (end, held) = index.view.tree.uniform(place, n, owner);
        let part = Part { n: (end - place.offset) as usize, ..part };
        let blocks = &blocks[..part.n];
        if held {
            for block in blocks.iter().filter(|_| chain.counted) {
                holder.blocks.add_copy(*block);
            }
            self.outcome.copies += part.n as u64;
            return Some((part.n, false));
        }
        if holder.blocks.owns_any(blocks) {
            return None;
        }
        holder.blocks.share(part.n);
        self.hold(chain, part, false);
        Some((part.n, true))
    }

    /// Blocks that are new to the tree.
    fn store_new(&mut self, chain: &Chain<'_>, part: Part) -> Option<(usize, bool)> {
        let (owner, place) = (chain.owner, part.place);
        let index = &mut *self.index;
        let holder = index.registry.owner_mut(owner)?;
        let blocks = &chain.engine[part.from..part.from + part.n];
        if holder.blocks.owns_any(blocks) {
            return None;
        }
        let apart = index.naming.is_apart(place.run, owner);
        if apart || !index.naming.adopt(holder.book, place, blocks) {
            return self.store_own(chain, part, true);
        }
        holder.blocks.share(part.n);
        self.hold(chain, part, true);
        Some((part.n, true))
    }

    /// Blocks that the owner calls by names of its own.
    fn store_own(&mut self, chain: &Chain<'_>, part: Part, create: bool) -> Option<(usize, bool)> {
        let (owner, place) = (chain.owner, part.place);
        let (end, held) = self.index.view.tree.uniform(place, part.n, owner);
        let part = Part { n: (end - place.offset) as usize, ..part };
        let blocks = &chain.engine[part.from..part.from + part.n];
        let shares = self.index.registry.owner(owner)?.blocks.shared() > 0;
        if shares && blocks.iter().any(|block| self.place(owner, *block).is_some()) {
            return None;
        }
        self.index.set_apart(place.run, owner);
        let holder = self.index.registry.owner_mut(owner)?;
        let first = holder.blocks.add_new(blocks)?;
        holder.blocks.settle_new(first, place, part.n, held);
        if held {
            self.index.entries += part.n;
            self.outcome.stored += part.n as u64;
        } else {
            self.hold(chain, part, create);
        }
        Some((part.n, true))
    }

    /// Makes the owner a holder of blocks that are new to it, and `create`s them where they are new to the tree.
    fn hold(&mut self, chain: &Chain<'_>, part: Part, create: bool) {
        let place = part.place;
        self.index.entries += part.n;
        self.outcome.stored += part.n as u64;
        let blocks = &chain.hashes[part.from..part.from + part.n];
        let prepared = create.then(|| self.index.view.tree.prepare(chain.space, place, blocks));
        let freed = self.index.view.edit(|view| {
            let freed = prepared.map(|prepared| view.tree.create(place, blocks, prepared));
            view.tree.hold(place.run, place.offset..place.offset + part.n as u32, chain.owner);
            freed
        });
        drop(freed);
        self.tell_stored(chain.owner, chain.space, blocks);
    }

    /// Tells followers that an owner holds blocks from now on.
    pub(super) fn tell_stored(&mut self, owner: OwnerSlot, space: Space, blocks: &[SequenceHash]) {
        let Self { index, notice, batch, .. } = self;
        if !index.heard {
            return;
        }
        let stream = index.registry.stream(self.stream);
        let parts = stream.zip(index.registry.owner(owner)).zip(index.view.spaces.get(space));
        if let Some(((stream, owner), namespace)) = parts {
            let (stream, tier, group, batch) = (&stream.id, &owner.tier, owner.group, *batch);
            notice(Notice::Stored { stream, batch, tier, group, namespace, blocks });
        }
    }
}
