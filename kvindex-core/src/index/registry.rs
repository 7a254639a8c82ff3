//! Workers, their event streams, and the owner slots in which streams hold blocks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::groups::Groups;
use super::journal::Incident;
use super::naming::Book;
use super::owner_blocks::{Map, OwnerBlocks};
use super::owner_set::OwnerSlot;
use super::reports::Reports;
use super::tree::Place;
use super::usage::{allocated, spec_bytes, tree_bytes, vec_bytes};
use crate::engine::EngineProfile;
use crate::ids::{BatchSeq, DpRank, Generation, Group, Registration, StreamId, Tier, WorkerId};
use crate::limits::MAX_OWNERS_PER_STREAM;
use crate::worker::WorkerSpec;
use serde::{Deserialize, Serialize};

/// How far a stream's blocks can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Every batch of this generation was applied: answers are exact.
    #[default]
    Complete,
    /// Earlier batches are unknown and what they stored was dropped: answers may be too low, never too high.
    Incomplete,
    /// Batches are missing and older blocks were kept: answers may be wrong either way.
    Suspect,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStamp {
    /// Current life of the engine's cache.
    pub generation: Generation,
    /// Last applied batch of this generation; `None` before the first.
    pub applied: Option<BatchSeq>,
    /// When that batch was received, in milliseconds since the Unix epoch; 0 before the first.
    pub applied_at_ms: u64,
    /// What the blocks are worth.
    pub coverage: Coverage,
    /// XXH3-64 of that batch as the engine sent it; `None` where nobody looked, and after a gap.
    pub payload_digest: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) registration: Registration,
    /// What is registered of its worker, and what follows from that.
    pub(crate) spec: Arc<WorkerSpec>,
    pub(crate) profile: EngineProfile,
    pub(crate) serial: u32,
    pub(crate) stamp: StreamStamp,
    pub(crate) slots: Vec<OwnerSlot>,
    pub(crate) incidents: VecDeque<Incident>,
    /// Whether blocks beyond device memory were ever announced: a clear of the device then tells only half.
    pub(crate) other_tiers: bool,
    /// Whether the device was cleared while blocks lay beyond it: they may be gone as well.
    pub(crate) silent_clear: bool,
    /// Whether there were batches or events that nobody could read: what they stored may lie on any tier.
    pub(crate) missed: bool,
    pub(crate) groups: Groups,
    pub(crate) reports: Reports,
}

#[derive(Debug)]
pub(crate) struct WorkerEntry {
    pub(crate) spec: Arc<WorkerSpec>,
    pub(crate) registration: Registration,
    pub(crate) streams: BTreeMap<DpRank, u32>,
}

/// Why a command goes to no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Astray {
    /// Its worker is not registered.
    UnknownWorker,
    /// It was made for another registration of the worker.
    OtherRegistration,
}

/// One (worker, dp rank, tier, group).
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) stream: u32,
    pub(crate) tier: Tier,
    pub(crate) group: Group,
    /// Blocks that this tier takes in only together: what the lengths of its events have in common; 0 before
    /// the first.
    pub(crate) chunk: u32,
    /// Whether blocks behind the device were placed by tokens alone, where connectors leave out extra keys.
    pub(crate) by_tokens: bool,
    /// Whose names it shares.
    pub(crate) book: Book,
    /// Where the block lay that was removed last: advice, which may be out of date.
    pub(crate) left_last: Option<Place>,
    /// Whether it may hold blocks of another tenant or model than its worker's present ones.
    pub(crate) strayed: bool,
    pub(crate) blocks: OwnerBlocks,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    workers: BTreeMap<WorkerId, WorkerEntry>,
    /// Every stream's number: what every command asks first.
    numbers: Map<StreamId, u32>,
    streams: Vec<Option<Stream>>,
    free_streams: Vec<u32>,
    owners: Vec<Option<Owner>>,
    free_owners: Vec<u32>,
    next_serial: u32,
}

impl Registry {
    /// Adds a worker, or replaces its description; then it keeps its registration's number.
    pub(crate) fn register(&mut self, spec: WorkerSpec, number: Registration) {
        let spec = Arc::new(spec);
        match self.workers.entry(spec.id.clone()) {
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let numbers: Vec<u32> = entry.get().streams.values().copied().collect();
                for stream in &numbers {
                    if let Some(stream) = self.streams.get_mut(*stream as usize).and_then(Option::as_mut) {
                        stream.spec = Arc::clone(&spec);
                        stream.profile = spec.profile();
                    }
                }
                entry.get_mut().spec = spec;
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(WorkerEntry { spec, registration: number, streams: BTreeMap::new() });
            }
        }
    }

    pub(crate) fn worker(&self, id: &WorkerId) -> Option<&WorkerEntry> {
        self.workers.get(id)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &WorkerEntry> {
        self.workers.values()
    }

    /// Streams of a worker, for its removal.
    pub(crate) fn streams_of(&self, id: &WorkerId) -> Vec<u32> {
        self.workers.get(id).map_or_else(Vec::new, |w| w.streams.values().copied().collect())
    }

    /// Forgets a worker whose streams are empty by now.
    pub(crate) fn remove_worker(&mut self, id: &WorkerId) -> bool {
        let Some(worker) = self.workers.remove(id) else {
            return false;
        };
        for stream in worker.streams.into_values() {
            if let Some(gone) = self.streams[stream as usize].take() {
                self.numbers.remove(&gone.id);
            }
            self.free_streams.push(stream);
        }
        if self.workers.is_empty() {
            // Serial numbers go on: the journal still speaks of the old streams.
            *self = Self { next_serial: self.next_serial, ..Self::default() };
        }
        true
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let workers = self
            .workers
            .values()
            .map(|worker| spec_bytes(&worker.spec) + tree_bytes::<DpRank, u32>(worker.streams.len()));
        let streams = self.streams.iter().flatten().map(Stream::heap_bytes);
        workers.sum::<usize>()
            + streams.sum::<usize>()
            + tree_bytes::<WorkerId, WorkerEntry>(self.workers.len())
            + allocated(self.numbers.allocation_size())
            + vec_bytes::<Option<Stream>>(self.streams.capacity())
            + vec_bytes::<Option<Owner>>(self.owners.capacity())
            + vec_bytes::<u32>(self.free_streams.capacity())
            + vec_bytes::<u32>(self.free_owners.capacity())
    }

    pub(crate) fn stream(&self, stream: u32) -> Option<&Stream> {
        self.streams.get(stream as usize)?.as_ref()
    }

    pub(crate) fn stream_mut(&mut self, stream: u32) -> Option<&mut Stream> {
        self.streams.get_mut(stream as usize)?.as_mut()
    }

    pub(crate) fn find_stream(&self, id: &StreamId) -> Option<&Stream> {
        self.stream(self.stream_number_of(id)?)
    }

    /// The stream's number, made when new, for a command of this registration.
    pub(crate) fn open_stream(&mut self, id: &StreamId, made_for: Registration) -> Result<u32, Astray> {
        if let Some(number) = self.numbers.get(id) {
            let stream = self.stream(*number).ok_or(Astray::UnknownWorker)?;
            return if stream.takes(made_for) { Ok(*number) } else { Err(Astray::OtherRegistration) };
        }
        let worker = self.workers.get_mut(&id.worker).ok_or(Astray::UnknownWorker)?;
        if !is_for(made_for, worker.registration) {
            return Err(Astray::OtherRegistration);
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let stamp = StreamStamp::default();
        let new = Stream {
            id: id.clone(),
            registration: worker.registration,
            spec: Arc::clone(&worker.spec),
            profile: worker.spec.profile(),
            serial,
            stamp,
            slots: Vec::new(),
            incidents: VecDeque::new(),
            other_tiers: false,
            silent_clear: false,
            missed: false,
            groups: Groups::default(),
            reports: Reports::default(),
        };
        let number = place_in(&mut self.streams, &mut self.free_streams, new);
        worker.streams.insert(id.dp_rank, number);
        self.numbers.insert(id.clone(), number);
        Ok(number)
    }

    pub(crate) fn owner(&self, slot: OwnerSlot) -> Option<&Owner> {
        self.owners.get(slot.index())?.as_ref()
    }

    pub(crate) fn owner_mut(&mut self, slot: OwnerSlot) -> Option<&mut Owner> {
        self.owners.get_mut(slot.index())?.as_mut()
    }

    /// One past the highest owner slot in use.
    pub(crate) fn slot_count(&self) -> usize {
        self.owners.len()
    }

    pub(crate) fn find_owner(&self, stream: u32, tier: &Tier, group: Group) -> Option<OwnerSlot> {
        let is_it = |slot: &&OwnerSlot| {
            self.owner(**slot).is_some_and(|owner| owner.group == group && owner.tier == *tier)
        };
        self.stream(stream)?.slots.iter().find(is_it).copied()
    }

    /// The slot of an owner that is not there; `None` when the stream has too many owners.
    pub(crate) fn open_owner(&mut self, stream: u32, tier: &Tier, group: Group) -> Option<OwnerSlot> {
        if self.stream(stream)?.slots.len() >= MAX_OWNERS_PER_STREAM {
            return None;
        }
        let spec = &self.stream(stream)?.spec;
        let (book, blocks) = (Book::of(&spec.tenant, &spec.model), OwnerBlocks::default());
        let owner = Owner {
            stream,
            tier: tier.clone(),
            group,
            chunk: 0,
            by_tokens: false,
            book,
            left_last: None,
            strayed: false,
            blocks,
        };
        let slot = OwnerSlot(place_in(&mut self.owners, &mut self.free_owners, owner));
        // In an order that does not depend on history: where a name lies twice, the first counts.
        let before =
            |other: &OwnerSlot| self.owner(*other).is_some_and(|o| (&o.tier, o.group) < (tier, group));
        let at = self.stream(stream)?.slots.iter().take_while(|other| before(other)).count();
        let state = self.stream_mut(stream)?;
        state.slots.insert(at, slot);
        state.other_tiers |= *tier != Tier::Device;
        Some(slot)
    }

    /// A stream's owners, and whether the only one is all there is to it, see [`Slots`](super::view::Slots).
    pub(crate) fn plain_slots(&self, number: u32) -> Vec<(OwnerSlot, bool)> {
        let Some(stream) = self.stream(number) else { return Vec::new() };
        let alone = stream.groups.is_simple(&stream.spec.groups) && stream.slots.len() == 1;
        let plain = |slot: OwnerSlot| {
            self.owner(slot).is_some_and(|owner| owner.tier == Tier::Device && !owner.strayed)
        };
        stream.slots.iter().map(|slot| (*slot, alone && plain(*slot))).collect()
    }

    pub(crate) fn stream_number_of(&self, id: &StreamId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// Takes an owner out of its stream, with what it held.
    pub(crate) fn close_owner(&mut self, slot: OwnerSlot) -> Option<Owner> {
        let owner = self.owners.get_mut(slot.index())?.take()?;
        self.free_owners.push(slot.0);
        if let Some(stream) = self.stream_mut(owner.stream) {
            stream.slots.retain(|s| *s != slot);
        }
        Some(owner)
    }

    pub(crate) fn owners(&self) -> impl Iterator<Item = (OwnerSlot, &Owner)> {
        (0u32..).zip(&self.owners).filter_map(|(i, owner)| Some((OwnerSlot(i), owner.as_ref()?)))
    }
}

/// Whether a command that was made for one registration is one for another.
fn is_for(made_for: Registration, present: Registration) -> bool {
    made_for == present || made_for == Registration(0)
}

/// Puts an item into a free place of a slab.
fn place_in<T>(slab: &mut Vec<Option<T>>, free: &mut Vec<u32>, item: T) -> u32 {
    if let Some(at) = free.pop() {
        slab[at as usize] = Some(item);
        return at;
    }
    slab.push(Some(item));
    (slab.len() - 1) as u32
}

impl Stream {
    /// Whether a command made for this registration is for the present one.
    pub(crate) fn takes(&self, made_for: Registration) -> bool {
        is_for(made_for, self.registration)
    }

    /// Begins another life: nothing that was learned of the old one counts.
    pub(crate) fn renew(&mut self, generation: Generation) {
        self.stamp = StreamStamp { generation, ..StreamStamp::default() };
        self.other_tiers = false;
        self.silent_clear = false;
        self.missed = false;
        self.groups.clear();
        self.reports = Reports::default();
    }

    /// Remembers an incident, forgetting the oldest when there are more than `max`.
    pub(crate) fn note(&mut self, incident: Incident, max: usize) {
        if self.incidents.len() >= max {
            self.incidents.pop_front();
        }
        self.incidents.push_back(incident);
    }
}
