//! Blocks of an engine that names them by their content alone, without their prefix (SGLang before 0.5.6): one
//! name may stand at many positions.

use super::changes::Applying;
use super::owner_set::OwnerSlot;
use super::tree::Space;
use crate::command::StoredRun;
use crate::hash::SequenceHash;

/// Most positions remembered for one block.
const MAX_POSITIONS: usize = 64;

impl Applying<'_> {
    /// Stores blocks of an engine that hashes content alone: a block stands at every position it was ever
    /// announced at, where a position is (content of the block before, own content).
    pub(super) fn store_content(
        &mut self,
        space: Option<Space>,
        owner: OwnerSlot,
        run: &StoredRun,
        new: &[bool],
    ) {
        let max = self.index.limits.max_orphans_per_owner;
        let Some(holder) = self.index.registry.owner_mut(owner) else { return };
        let content_of = |parent| holder.blocks.content_of(parent).and_then(|c| c.local);
        let mut before = run.parent.map(content_of);
        let mut changed = Vec::new();
        if space.is_none() {
            // Without usable tokens: what is known of the content from before holds again.
            for (block, _) in run.engine_hashes.iter().zip(new).filter(|(_, new)| **new) {
                let known = holder.blocks.content_of(*block);
                changed.extend(known.into_iter().flat_map(|content| content.positions.iter().copied()));
            }
        }
        let placeable = space.map(|space| run.local_hashes.iter().map(move |local| (space, local)));
        let blocks = run.engine_hashes.iter().zip(new).zip(placeable.into_iter().flatten());
        for ((block, new), (space, local)) in blocks {
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
            let at = self.index.stretch(space, None, &[hash]).place;
            self.index.view.edit(|view| view.tree.hold(at.run, at.offset..at.offset + 1, owner));
            self.index.ages.touch(at.run);
        }
    }
}
