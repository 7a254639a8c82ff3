//! Putting a share into an index that holds others' blocks already.
//!
//! A sequence hash is found by the head of its run only, and the same blocks may be cut into other runs here. What
//! makes that easy: a block that is not the first one of a run has its parent before it there, always. So a run of the
//! share has to be looked for at its first block alone, and from there on every block either comes next, heads a run,
//! or is new. First blocks that head nothing here may lie amid runs, and one walk over the runs finds those.
//!
//! That the blocks of a share's run follow each other is taken on trust: nothing but their tokens could prove it, and
//! shares come from our own nodes under a checksum.

use super::{Part, RunShare, Share};
use crate::hash::{EngineBlockHash, SequenceHash};
use crate::ids::{StreamId, WorkerId};
use crate::index::naming::Book;
use crate::index::outcome::Outcome;
use crate::index::owner_blocks::{Map, Set};
use crate::index::records::OwnerRecord;
use crate::index::spaces::Family;
use crate::index::tree::{Place, Space, Stretch};
use crate::index::{Index, OwnerSlot, SnapshotError};

/// First blocks of a share's runs that lie amid runs of the index.
type Amid = Map<(Space, SequenceHash), Place>;

/// A share on its way in.
struct Import<'a> {
    index: &'a mut Index,
    /// Each namespace's number here.
    spaces: Vec<Space>,
    /// Each owner's slot.
    slots: Vec<OwnerSlot>,
    /// Owners whose blocks may stand with holes between them.
    with_holes: Vec<bool>,
    /// Runs that may end in blocks which nobody holds.
    loose: Vec<u32>,
}

impl Index {
    /// Takes in what [`IndexReader::export`](crate::IndexReader::export) wrote: whatever the index holds of the
    /// share's workers is replaced by the share, and all else stays. Answers the share's workers.
    ///
    /// Followers are told nothing: who follows these workers must begin anew.
    ///
    /// # Errors
    /// When the bytes are no share, of a newer version, or damaged; then nothing has changed. When the index has no
    /// room for so many blocks of one owner; then it holds nothing of the share's workers any more.
    pub fn import(&mut self, bytes: &[u8]) -> Result<Vec<WorkerId>, SnapshotError> {
        let share = Share::read(bytes)?;
        let workers: Vec<WorkerId> = share.workers.iter().map(|worker| worker.spec.id.clone()).collect();
        let known = self.view.spaces.all().len() as u32;
        let mut spaces = Vec::new();
        for namespace in &share.spaces {
            let (tenant, model, lora) = (&*namespace.tenant, &*namespace.model, namespace.lora.as_deref());
            let family = Family { tenant, model, lora };
            spaces.push(self.restore_space(family, namespace.block_size, namespace.scheme));
        }
        self.drop_workers(&workers);
        let slots = Vec::new();
        let mut import = Import { index: self, spaces, slots, with_holes: Vec::new(), loose: Vec::new() };
        let whole = import.all(share, known);
        let loose = import.loose;
        if whole.is_none() {
            self.drop_workers(&workers);
        }
        for run in loose {
            if self.view.tree.is_loose(run) {
                self.trim(run);
            }
        }
        whole
            .map(|()| workers)
            .ok_or_else(|| SnapshotError::Damaged("too many blocks of one owner".to_owned()))
    }

    fn drop_workers(&mut self, workers: &[WorkerId]) {
        self.heard = false;
        let mut outcome = Outcome::default();
        workers.iter().for_each(|worker| self.unregister(worker, &mut |_| {}, &mut outcome));
    }
}

impl Import<'_> {
    fn all(&mut self, mut share: Share, known: u32) -> Option<()> {
        let workers = std::mem::take(&mut share.workers);
        for worker in workers {
            let id = worker.spec.id.clone();
            self.index.registry.register(worker.spec, worker.registration);
            for mut stream in worker.streams {
                let stream_id = StreamId { worker: id.clone(), dp_rank: stream.dp_rank };
                let owners = std::mem::take(&mut stream.owners);
                let number = self.index.restore_stream(&stream_id, stream)?;
                for owner in owners {
                    self.add_owner(number, owner)?;
                }
            }
        }
        let amid = self.find_amid(&share, known);
        for run in share.runs() {
            self.put_run(run?, &amid)?;
        }
        Some(())
    }

    fn add_owner(&mut self, stream: u32, mut record: OwnerRecord) -> Option<()> {
        for space in record.spaces() {
            *space = self.spaces.get(*space as usize)?.0;
        }
        let state = self.index.registry.stream(stream)?;
        let with_holes = !state.groups.is_simple(&state.spec.groups);
        let positions = record.contents.iter().flat_map(|(_, _, positions)| positions);
        for (space, _) in positions.filter(|_| with_holes) {
            self.index.allow_holes_in(Space(*space));
        }
        self.slots.push(self.index.restore_owner(stream, record)?);
        self.with_holes.push(with_holes);
        Some(())
    }

    /// Looks for first blocks amid the runs of the namespaces that the index knew before.
    fn find_amid(&self, share: &Share, known: u32) -> Amid {
        let tree = &self.index.view.tree;
        let first = |run: RunShare<'_>| Some((*self.spaces.get(run.space as usize)?, *run.blocks.first()?));
        let firsts = share.runs().flatten().filter_map(first);
        let wanted = firsts.filter(|(space, first)| space.0 < known && tree.head(*space, *first).is_none());
        let wanted: Set<(Space, SequenceHash)> = wanted.collect();
        let mut amid = Amid::default();
        if wanted.is_empty() {
            return amid;
        }
        let spaces: Set<u32> = wanted.iter().map(|(space, _)| space.0).collect();
        // Bits of hashes, because most blocks are none of these.
        let bits = (wanted.len() * 16).next_power_of_two().max(64);
        let bit = |hash: SequenceHash| hash.0 as usize & (bits - 1);
        let mut likely = vec![0u64; bits / 64];
        wanted.iter().for_each(|(_, hash)| likely[bit(*hash) / 64] |= 1 << (bit(*hash) % 64));
        for (number, run) in tree.runs().filter(|(_, run)| spaces.contains(&run.space)) {
            for (offset, hash) in (0u32..).zip(&run.blocks) {
                let block = (Space(run.space), *hash);
                if likely[bit(*hash) / 64] >> (bit(*hash) % 64) & 1 == 1 && wanted.contains(&block) {
                    amid.insert(block, Place { run: number, offset });
                }
            }
        }
        amid
    }

    fn put_run(&mut self, run: RunShare<'_>, amid: &Amid) -> Option<()> {
        let space = *self.spaces.get(run.space as usize)?;
        let namespace = self.index.view.spaces.get(space)?;
        let book = Book::of(&namespace.tenant, &namespace.model);
        let stretches = self.lay(space, run.blocks, amid)?;
        for (part, names) in run.shared().chain(run.own()) {
            let slot = *self.slots.get(part.owner as usize)?;
            self.index.note_stray(slot, book);
            if *self.with_holes.get(part.owner as usize)? {
                self.index.allow_holes_in(space);
            }
            self.put_part(slot, &stretches, part, names)?;
        }
        Some(())
    }

    /// Finds or makes the blocks of a chain; answers where they lie.
    fn lay(&mut self, space: Space, blocks: &[SequenceHash], amid: &Amid) -> Option<Vec<Stretch>> {
        let mut stretches: Vec<Stretch> = Vec::with_capacity(1);
        let (mut at, mut parent) = (0, None);
        while at < blocks.len() {
            let known = if at == 0 { amid.get(&(space, blocks[0])) } else { None };
            let stretch = match known {
                Some(place) => {
                    let n = self.index.view.tree.common(*place, blocks);
                    Stretch { place: *place, n, new: false }
                }
                None => self.index.stretch(space, parent, &blocks[at..]),
            };
            if stretch.new {
                self.loose.push(stretch.place.run);
            }
            let last = (stretch.n as u32).checked_sub(1)?;
            parent = Some(Place { run: stretch.place.run, offset: stretch.place.offset + last });
            at += stretch.n;
            stretches.push(stretch);
        }
        Some(stretches)
    }

    /// Makes an owner hold a part of a run that lies in these stretches.
    fn put_part(
        &mut self,
        slot: OwnerSlot,
        stretches: &[Stretch],
        part: Part,
        names: &[EngineBlockHash],
    ) -> Option<()> {
        let mut from = 0;
        for stretch in stretches {
            let to = from + stretch.n as u32;
            let (start, end) = (part.start.max(from), part.end().min(to));
            if start < end {
                let place = Place { run: stretch.place.run, offset: stretch.place.offset + start - from };
                let names = names.get((start - part.start) as usize..(end - part.start) as usize)?;
                self.index.put(slot, place, names)?;
            }
            from = to;
        }
        Some(())
    }
}
