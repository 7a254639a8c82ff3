//! Owners and namespaces as they come and go, in the registry and in what readers see of it. Readers hear of a new
//! owner before it holds anything.

use super::Index;
use super::owner_set::OwnerSlot;
use super::registry::Owner;
use super::spaces::Family;
use super::tree::Space;
use crate::ids::{Group, Tier};
use crate::worker::HashScheme;

impl Index {
    /// The owner's slot, made when new; `None` when the stream has too many owners.
    pub(super) fn open_owner(&mut self, stream: u32, tier: &Tier, group: Group) -> Option<OwnerSlot> {
        if let Some(slot) = self.registry.find_owner(stream, tier, group) {
            return Some(slot);
        }
        // It may find places by name where its siblings hold blocks of an earlier model.
        let siblings = self.registry.stream(stream)?.slots.iter();
        let strayed = siblings.filter_map(|slot| self.registry.owner(*slot)).any(|sibling| sibling.strayed);
        let slot = self.registry.open_owner(stream, tier, group)?;
        if let Some(owner) = self.registry.owner_mut(slot) {
            owner.strayed = strayed;
        }
        self.view.edit(|view| view.slots.set(slot, stream, false));
        self.review(stream);
        Some(slot)
    }

    /// Takes an owner out of its stream. It is still among the holders of its blocks.
    pub(super) fn close_owner(&mut self, slot: OwnerSlot) -> Option<Owner> {
        let owner = self.registry.close_owner(slot)?;
        self.review(owner.stream);
        Some(owner)
    }

    /// Notes again which of a stream's owners are plain, after a change of its owners, groups or registration.
    pub(super) fn review(&mut self, stream: u32) {
        for (slot, plain) in self.registry.plain_slots(stream) {
            if self.view.slots.is_plain(slot) != plain {
                self.view.edit(|view| view.slots.set(slot, stream, plain));
            }
        }
    }

    /// The namespace's number, made when new; `None` when there are too many.
    pub(super) fn intern(
        &mut self,
        family: Family<'_>,
        block_size: u32,
        scheme: HashScheme,
    ) -> Option<Space> {
        let known = self.view.spaces.find(family, block_size, scheme);
        known.or_else(|| self.view.edit(|view| view.spaces.intern(family, block_size, scheme)))
    }

    /// The number of a namespace that was made before, see [`Spaces::restore`](super::spaces::Spaces::restore).
    pub(super) fn restore_space(&mut self, family: Family<'_>, block_size: u32, scheme: HashScheme) -> Space {
        let known = self.view.spaces.find(family, block_size, scheme);
        known.unwrap_or_else(|| self.view.edit(|view| view.spaces.restore(family, block_size, scheme)))
    }

    /// Makes walks go over holes in a namespace.
    pub(super) fn allow_holes_in(&mut self, space: Space) {
        if !self.view.spaces.has_holes(space) {
            self.view.edit(|view| view.spaces.allow_holes(space));
        }
    }

    /// Makes walks go over holes in the namespaces of a stream whose groups need less than every block.
    pub(super) fn allow_holes(&mut self, stream: u32) -> Option<()> {
        let stream = self.registry.stream(stream)?;
        if stream.groups.is_simple(&stream.spec.groups) {
            return Some(());
        }
        let mut spaces = Vec::new();
        for (_, run) in self.view.tree.runs() {
            let held = |slot: &OwnerSlot| run.holders.segments().iter().any(|s| s.owners.contains(*slot));
            if stream.slots.iter().any(held) {
                spaces.push(Space(run.space));
            }
        }
        for owner in stream.slots.iter().filter_map(|slot| self.registry.owner(*slot)) {
            let positions = owner.blocks.iter_contents().flat_map(|(_, content)| &content.positions);
            spaces.extend(positions.map(|(space, _)| *space));
        }
        spaces.into_iter().for_each(|space| self.allow_holes_in(space));
        Some(())
    }
}
