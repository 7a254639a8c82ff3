//! Writing a share: one walk over the runs, and one over the names that the share's owners keep themselves.

use super::{Part, SEAL, Share};
use crate::hash::EngineBlockHash;
use crate::ids::WorkerId;
use crate::index::records::{OwnerRecord, StreamRecord, WorkerRecord};
use crate::index::registry::Owner;
use crate::index::tree::{Place, Run, Space};
use crate::index::{IndexReader, OwnerSlot};

/// Number of an owner that is not in the share, and of a namespace without one.
const NONE: u32 = u32::MAX;

/// Consecutive blocks that an owner holds under names of its own.
struct Extent {
    run: u32,
    part: Part,
    /// Where its names begin.
    names: usize,
}

/// A share as it is put together.
struct Export<'a> {
    reader: IndexReader<'a>,
    /// Each slot's number in the share.
    number_of: Vec<u32>,
    /// The owners' slots as bits, like an owner set's words.
    mask: Vec<u64>,
    /// Where in the run at hand each owner's last part is.
    last_part: Vec<usize>,
    /// By run, in order.
    extents: Vec<Extent>,
    names: Vec<EngineBlockHash>,
    share: Share,
}

impl IndexReader<'_> {
    /// What the index holds of these workers, as bytes for [`Index::import`](crate::Index::import): their
    /// registrations, their streams with their stamps, and all their blocks. Unknown workers are left out.
    #[must_use]
    pub fn export(&self, workers: &[WorkerId]) -> Vec<u8> {
        let slots = self.registry().slot_count();
        let mut export = Export {
            reader: *self,
            number_of: vec![NONE; slots],
            mask: vec![0; slots.div_ceil(64)],
            last_part: Vec::new(),
            extents: Vec::new(),
            names: Vec::new(),
            share: Share {
                spaces: Vec::new(),
                workers: Vec::new(),
                layout: Vec::new(),
                blocks: Vec::new(),
                shared: Vec::new(),
                own: Vec::new(),
            },
        };
        export.add_workers(workers);
        export.add_runs();
        export.name_spaces();
        SEAL.close(&export.share)
    }
}

impl Export<'_> {
    fn add_workers(&mut self, workers: &[WorkerId]) {
        let registry = self.reader.registry();
        let mut workers: Vec<&WorkerId> = workers.iter().collect();
        workers.sort_unstable();
        workers.dedup();
        for worker in workers.into_iter().filter_map(|id| registry.worker(id)) {
            let mut streams = Vec::new();
            for stream in worker.streams.values().filter_map(|number| registry.stream(*number)) {
                let slots = stream.slots.iter().filter_map(|slot| Some((*slot, registry.owner(*slot)?)));
                let owners = slots.map(|(slot, owner)| self.add_owner(slot, owner)).collect();
                streams.push(StreamRecord::of(stream, owners));
            }
            let (spec, registration) = ((*worker.spec).clone(), worker.registration);
            self.share.workers.push(WorkerRecord { spec, streams, registration });
        }
        self.extents.sort_unstable_by_key(|extent| (extent.run, extent.part.owner, extent.names));
    }

    /// Numbers an owner, and collects the names that it keeps itself.
    fn add_owner(&mut self, slot: OwnerSlot, owner: &Owner) -> OwnerRecord {
        let number = self.last_part.len() as u32;
        self.last_part.push(0);
        self.number_of[slot.index()] = number;
        self.mask[slot.index() / 64] |= 1 << (slot.0 % 64);
        let mut hashes = Vec::new();
        let first = self.extents.len();
        for (block, place) in owner.blocks.iter_own() {
            let Some(Place { run, offset }) = place else {
                hashes.push(block);
                continue;
            };
            let goes_on = |last: &&mut Extent| last.run == run && last.part.end() == offset;
            match self.extents[first..].last_mut().filter(goes_on) {
                Some(last) => last.part.n += 1,
                None => {
                    let part = Part { owner: number, start: offset, n: 1 };
                    self.extents.push(Extent { run, part, names: self.names.len() });
                }
            }
            self.names.push(block);
        }
        hashes.sort_unstable();
        OwnerRecord { hashes, ..OwnerRecord::of(owner) }
    }

    fn add_runs(&mut self) {
        let tree = self.reader.tree();
        let extents = std::mem::take(&mut self.extents);
        let mut rest = extents.as_slice();
        for (number, run) in tree.runs() {
            let n = rest.iter().take_while(|extent| extent.run == number).count();
            let (own, after) = rest.split_at(n);
            rest = after;
            self.add_run(number, run, own);
        }
    }

    fn add_run(&mut self, number: u32, run: &Run, own: &[Extent]) {
        let shared = self.shared_parts(number, run);
        if shared.is_empty() && own.is_empty() {
            return;
        }
        let named = shared.iter().map(|part| part.end()).max().unwrap_or(0);
        let len = own.iter().map(|extent| extent.part.end()).max().unwrap_or(0).max(named);
        let counts = [run.space, len, named, shared.len() as u32, own.len() as u32];
        let parts = shared.iter().chain(own.iter().map(|extent| &extent.part));
        let Share { layout, blocks, shared: names, own: own_names, .. } = &mut self.share;
        layout.extend(counts);
        layout.extend(parts.flat_map(|part| [part.owner, part.start, part.n]));
        blocks.extend(run.blocks.iter().take(len as usize));
        let naming = self.reader.holdings().naming;
        let name = |offset| naming.name_at(Place { run: number, offset }).unwrap_or(EngineBlockHash(0));
        names.extend((0..named).map(name));
        for extent in own {
            own_names.extend_from_slice(&self.names[extent.names..extent.names + extent.part.n as usize]);
        }
    }

    /// Which of the owners hold what of a run under its shared names. What is named by its content is told by its
    /// owners' records.
    fn shared_parts(&mut self, number: u32, run: &Run) -> Vec<Part> {
        let (registry, naming) = (self.reader.registry(), self.reader.holdings().naming);
        let mut parts: Vec<Part> = Vec::new();
        let mut from = 0;
        for segment in run.holders.segments() {
            let (first, words) = segment.owners.words();
            for (i, word) in (first..).zip(words) {
                let members = word & self.mask.get(i).copied().unwrap_or(0);
                for slot in crate::index::bits(i, members) {
                    let shares = registry.owner(slot).is_some_and(|owner| owner.blocks.shared() > 0);
                    if !shares || naming.is_apart(number, slot) {
                        continue;
                    }
                    let owner = self.number_of[slot.index()];
                    let last = &mut self.last_part[owner as usize];
                    match parts.get_mut(*last).filter(|part| part.owner == owner && part.end() == from) {
                        Some(part) => part.n += segment.end - from,
                        None => {
                            *last = parts.len();
                            parts.push(Part { owner, start: from, n: segment.end - from });
                        }
                    }
                }
            }
            from = segment.end;
        }
        parts
    }

    /// Lists the namespaces that came up, and numbers them as they are listed.
    fn name_spaces(&mut self) {
        let spaces = self.reader.spaces();
        let mut number_of = vec![NONE; spaces.all().len()];
        let Share { spaces: named, workers, layout, .. } = &mut self.share;
        let mut rename = |space: &mut u32| {
            let Some(number) = number_of.get_mut(*space as usize) else { return };
            if *number == NONE {
                *number = named.len() as u32;
                named.extend(spaces.get(Space(*space)).cloned());
            }
            *space = *number;
        };
        let streams = workers.iter_mut().flat_map(|worker| &mut worker.streams);
        let owners = streams.flat_map(|stream| &mut stream.owners);
        owners.for_each(|owner| owner.spaces().for_each(&mut rename));
        let mut at = 0;
        while let Some([space, _, _, shared, own]) =
            layout.get_mut(at..).and_then(|rest| rest.first_chunk_mut())
        {
            rename(space);
            at += 5 + 3 * (*shared + *own) as usize;
        }
    }
}
