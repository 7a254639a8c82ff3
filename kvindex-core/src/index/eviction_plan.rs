//! What an eviction takes, which follows from the index's content alone, so that replicas and restored snapshots take
//! the same:
//!
//! - Between tenants max-min: the one with most entries gives until it is level with the next, and so on; or as the
//!   caller says, who may know what entries cost ([`fairness`](super::fairness)).
//! - Within a tenant first what has no known place: only a query by engine hashes can ask for it. Then the runs that no
//!   stored event touched for longest, each from its end, and all the tenant's owners leave a block together.
//! - A block named by its content alone goes when the last touched of its positions is due.

use std::cmp::Reverse;
use std::sync::Arc;

use super::IndexReader;
use super::fairness::Giving;
use super::owner_blocks::{Map, Set};
use super::owner_set::OwnerSlot;
use super::registry::Owner;
use super::tree::{Place, Run, Space};
use crate::hash::{EngineBlockHash, SequenceHash};
use crate::ids::{StreamId, WorkerId};
use crate::worker::{Namespace, WorkerSpec};

/// Blocks of one owner that go, with their places.
type Victims = Vec<(Option<Place>, EngineBlockHash)>;

/// Tenant of a slot that is not in use, or whose tenant gives nothing.
const NONE: u32 = u32::MAX;

/// What is to go. Tenants are numbered in order of their names.
pub(super) struct Plan<'a> {
    reader: IndexReader<'a>,
    /// How many entries each tenant has still to give.
    left: Vec<usize>,
    /// Each slot's tenant.
    tenant_of: Vec<u32>,
    /// From which offset on a tenant's owners leave a run.
    cuts: Map<(u32, u32), u32>,
    /// What goes of owners whose blocks lie in no run, or in runs under names of content.
    victims: Vec<Victims>,
    /// The content that stands at a position, by owner.
    contents: Map<(OwnerSlot, Space, SequenceHash), EngineBlockHash>,
}

impl<'a> Plan<'a> {
    /// For at least so many entries of the workers that `of` chooses, all when there are fewer.
    pub(super) fn new(reader: IndexReader<'a>, entries: u64, of: impl Fn(&WorkerId) -> bool) -> Self {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        Self::with(reader, of, |_, held| shares(held, entries))
    }

    /// For so many entries of each tenant named, at least, as far as the workers that `of` chooses hold them.
    pub(super) fn giving(reader: IndexReader<'a>, giving: &Giving, of: impl Fn(&WorkerId) -> bool) -> Self {
        Self::with(reader, of, |tenants, held| {
            let of_tenant = |tenant: &&str| giving.get(*tenant).copied().unwrap_or(0);
            tenants.iter().map(of_tenant).zip(held).map(|(given, held)| given.min(*held)).collect()
        })
    }

    fn with(
        reader: IndexReader<'a>,
        of: impl Fn(&WorkerId) -> bool,
        shares: impl FnOnce(&[&str], &[usize]) -> Vec<usize>,
    ) -> Self {
        let registry = reader.registry();
        let spec_of = |owner: &Owner| registry.stream(owner.stream).map(|stream| &stream.spec);
        let mut tenants: Vec<&str> = registry.workers().map(|worker| worker.spec.tenant.as_str()).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let number = |spec: &Arc<WorkerSpec>| tenants.binary_search(&spec.tenant.as_str()).ok();
        let (mut held, mut tenant_of) = (vec![0; tenants.len()], vec![NONE; registry.slot_count()]);
        for (slot, owner) in registry.owners() {
            let spec = spec_of(owner).filter(|spec| of(&spec.id));
            let Some(tenant) = spec.and_then(number) else { continue };
            held[tenant] += owner.blocks.len();
            tenant_of[slot.index()] = tenant as u32;
        }
        let left = shares(&tenants, &held);
        for tenant in &mut tenant_of {
            if left.get(*tenant as usize).is_none_or(|left| *left == 0) {
                *tenant = NONE;
            }
        }
        let victims = vec![Victims::new(); registry.slot_count()];
        Self { reader, left, tenant_of, cuts: Map::default(), victims, contents: Map::default() }
    }

    /// What goes, by owner, the deepest first, so that runs shrink from their ends.
    pub(super) fn victims(mut self) -> Vec<(OwnerSlot, Vec<EngineBlockHash>)> {
        if self.left.iter().any(|left| *left > 0) {
            self.take_unplaced();
            self.take_runs();
            self.collect_own();
            self.collect_shared();
        }
        let by_owner = (0u32..).map(OwnerSlot).zip(self.victims).filter(|(_, victims)| !victims.is_empty());
        let deepest_first = |(slot, mut victims): (OwnerSlot, Victims)| {
            victims.sort_unstable_by_key(|victim| Reverse(*victim));
            (slot, victims.into_iter().map(|(_, block)| block).collect())
        };
        by_owner.map(deepest_first).collect()
    }

    /// The slot's tenant, when it still has something to give.
    fn giver(&self, slot: OwnerSlot) -> Option<u32> {
        let tenant = self.tenant_of.get(slot.index()).copied()?;
        self.left.get(tenant as usize).filter(|left| **left > 0).map(|_| tenant)
    }

    /// Whether an owner's blocks are named by their content alone.
    fn names_content(&self, slot: OwnerSlot) -> bool {
        self.reader.registry().owner(slot).is_some_and(|owner| owner.blocks.contents_known() > 0)
    }

    /// Takes blocks without a place, in order of their names; notes where content stands.
    fn take_unplaced(&mut self) {
        let registry = self.reader.registry();
        let mut owners: Vec<(&StreamId, &Owner, OwnerSlot)> = registry
            .owners()
            .filter(|(slot, _)| self.giver(*slot).is_some())
            .filter_map(|(slot, owner)| Some((&registry.stream(owner.stream)?.id, owner, slot)))
            .collect();
        owners.sort_unstable_by_key(|(id, owner, _)| (*id, &owner.tier, owner.group));
        for (_, owner, slot) in owners {
            let mut unplaced = Vec::new();
            if owner.blocks.unplaced() > 0 {
                let own = owner.blocks.iter_own().filter(|(_, place)| place.is_none());
                unplaced.extend(own.map(|(block, _)| block));
            }
            unplaced.retain(|block| {
                let content = owner.blocks.content_of(*block);
                let positions = content.map(|content| content.positions.as_slice()).unwrap_or_default();
                self.contents.extend(positions.iter().map(|(space, hash)| ((slot, *space, *hash), *block)));
                positions.is_empty()
            });
            unplaced.sort_unstable();
            let Some(tenant) = self.giver(slot) else { continue };
            let left = &mut self.left[tenant as usize];
            unplaced.truncate(*left);
            *left -= unplaced.len();
            self.victims[slot.index()].extend(unplaced.into_iter().map(|block| (None, block)));
        }
    }

    /// Takes runs, those first that were not touched for longest.
    fn take_runs(&mut self) {
        let reader = self.reader;
        let (tree, ages, spaces) = (reader.tree(), reader.ages(), reader.spaces().all());
        let mut order: Vec<(Reverse<u32>, u32)> =
            tree.runs().map(|(number, _)| (Reverse(ages.age(number)), number)).collect();
        order.sort_unstable();
        let key = |number: u32| -> Option<(Option<&Namespace>, SequenceHash)> {
            let run = tree.run(number)?;
            Some((spaces.get(run.space as usize), *run.blocks.first()?))
        };
        for alike in order.chunk_by_mut(|a, b| a.0 == b.0) {
            alike.sort_by_key(|(_, number)| key(*number));
            for (_, number) in alike {
                if self.left.iter().all(|left| *left == 0) {
                    return;
                }
                if let Some(run) = tree.run(*number) {
                    self.take_run(*number, run);
                }
            }
        }
    }

    /// Takes a run from its end, as far as tenants have something to give.
    fn take_run(&mut self, number: u32, run: &Run) {
        let segments = run.holders.segments();
        for (i, segment) in segments.iter().enumerate().rev() {
            let start = i.checked_sub(1).and_then(|before| segments.get(before)).map_or(0, |s| s.end);
            let mut givers: Vec<(u32, OwnerSlot)> = Vec::new();
            for slot in segment.owners.iter() {
                let Some(tenant) = self.giver(slot) else { continue };
                if self.names_content(slot) {
                    self.take_content(tenant, slot, run);
                } else {
                    givers.push((tenant, slot));
                }
            }
            givers.sort_unstable();
            for owners in givers.chunk_by(|a, b| a.0 == b.0) {
                self.take_segment(number, start..segment.end, owners);
            }
        }
    }

    /// Takes a segment of a run from its end, off one tenant's owners.
    fn take_segment(&mut self, run: u32, range: std::ops::Range<u32>, owners: &[(u32, OwnerSlot)]) {
        let Some((tenant, _)) = owners.first() else { return };
        let registry = self.reader.registry();
        let owners = owners.iter().filter_map(|(_, slot)| registry.owner(*slot));
        let owners: Vec<&Owner> = owners.collect();
        let left = &mut self.left[*tenant as usize];
        let mut cut = range.end;
        if owners.iter().any(|owner| owner.blocks.has_more_names()) {
            while *left > 0 && cut > range.start {
                cut -= 1;
                let at = Place { run, offset: cut };
                let names: usize = owners.iter().map(|owner| 1 + owner.blocks.more_names(at)).sum();
                *left = left.saturating_sub(names);
            }
        } else {
            let blocks = left.div_ceil(owners.len()).min((range.end - range.start) as usize);
            *left = left.saturating_sub(blocks * owners.len());
            cut -= blocks as u32;
        }
        if cut < range.end {
            self.cuts.insert((run, *tenant), cut);
        }
    }

    /// Takes the content that an owner holds at a run's only block, when no other position of it is younger.
    fn take_content(&mut self, tenant: u32, slot: OwnerSlot, run: &Run) {
        let (registry, tree, ages) = (self.reader.registry(), self.reader.tree(), self.reader.ages());
        let Some(first) = run.blocks.first() else { return };
        let Some(block) = self.contents.get(&(slot, Space(run.space), *first)).copied() else { return };
        let content = registry.owner(slot).and_then(|owner| owner.blocks.content_of(block));
        let positions = content.map(|content| content.positions.as_slice()).unwrap_or_default();
        let age_at =
            |(space, hash): &(Space, SequenceHash)| tree.head(*space, *hash).map(|run| ages.age(run));
        let youngest = positions.iter().filter_map(age_at).min();
        if youngest == age_at(&(Space(run.space), *first)) {
            for (space, hash) in positions {
                self.contents.remove(&(slot, *space, *hash));
            }
            self.victims[slot.index()].push((None, block));
            let left = &mut self.left[tenant as usize];
            *left = left.saturating_sub(1);
        }
    }

    /// Finds the owners' own names of what is cut off runs.
    fn collect_own(&mut self) {
        let tenants: Set<u32> = self.cuts.keys().map(|(_, tenant)| *tenant).collect();
        for (slot, owner) in self.reader.registry().owners() {
            let tenant = self.tenant_of[slot.index()];
            if !tenants.contains(&tenant) || owner.blocks.own() == 0 {
                continue;
            }
            // Most blocks lie in the same run as the one before.
            let mut last = None;
            for (block, at) in owner.blocks.iter_own().filter_map(|(block, place)| Some((block, place?))) {
                let cut = match last {
                    Some((run, cut)) if run == at.run => cut,
                    _ => self.cuts.get(&(at.run, tenant)).copied(),
                };
                last = Some((at.run, cut));
                if cut.is_some_and(|cut| at.offset >= cut) {
                    self.victims[slot.index()].push((Some(at), block));
                }
            }
        }
    }

    /// Finds the shared names of what is cut off runs.
    fn collect_shared(&mut self) {
        let holdings = self.reader.holdings();
        for ((number, tenant), cut) in &self.cuts {
            let Some(run) = holdings.tree.run(*number) else { continue };
            let mut from = *cut;
            for segment in run.holders.segments().iter().filter(|segment| segment.end > *cut) {
                for slot in segment.owners.iter().filter(|slot| self.tenant_of[slot.index()] == *tenant) {
                    if holdings.naming.is_apart(*number, slot) {
                        continue;
                    }
                    let places = (from..segment.end).map(|offset| Place { run: *number, offset });
                    let named = places.filter_map(|at| Some((Some(at), holdings.naming.name_at(at)?)));
                    self.victims[slot.index()].extend(named);
                }
                from = segment.end;
            }
        }
    }
}

/// What each tenant gives of what it has so that `entries` go and what is left is as level as can be. One entry that
/// makes no difference is left to the later tenant.
fn shares(held: &[usize], entries: usize) -> Vec<usize> {
    let above = |level: usize| held.iter().map(|held| held.saturating_sub(level)).sum::<usize>();
    let (mut low, mut high) = (0, held.iter().copied().max().unwrap_or(0));
    // The highest level above which there is enough.
    while low < high {
        let middle = (low + high).div_ceil(2);
        if above(middle) >= entries { low = middle } else { high = middle - 1 }
    }
    let mut left: Vec<usize> = held.iter().map(|held| held.saturating_sub(low)).collect();
    let more = left.iter().sum::<usize>().saturating_sub(entries);
    left.iter_mut().rev().filter(|left| **left > 0).take(more).for_each(|left| *left -= 1);
    left
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn the_richest_give_first() {
        assert_eq!(shares(&[10, 100, 1000], 0), [0, 0, 0]);
        assert_eq!(shares(&[10, 100, 1000], 900), [0, 0, 900]);
        assert_eq!(shares(&[10, 100, 1000], 902), [0, 1, 901]);
        assert_eq!(shares(&[10, 100, 1000], 1083), [1, 91, 991]);
        assert_eq!(shares(&[10, 100, 1000], 5000), [10, 100, 1000]);
        assert_eq!(shares(&[7, 7, 7], 2), [1, 1, 0], "ties go by name");
        assert_eq!(shares(&[], 2), []);
    }
}
