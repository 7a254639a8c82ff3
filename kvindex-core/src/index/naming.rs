//! Names that owners share: engines that hash alike call a block the same, and then its name is kept once, beside
//! the block in its run, and found by one table.
//!
//! A block's shared name is the engine hash under which it was first stored. An owner that calls it the same has
//! nothing else to keep than its place among the run's holders. One that calls a block of the run otherwise is
//! *apart* in that run: it keeps all its names of blocks there itself
//! ([`owner_blocks`](super::owner_blocks)). So whoever is not apart holds a block of a run under its shared name, and
//! under no other. Which of the two it is changes no answer, only what an entry costs.

use foldhash::fast::FixedState;
use std::hash::BuildHasher;

use super::name_table::NameTable;
use super::names::spread;
use super::owner_blocks::Map;
use super::owner_set::{OwnerSet, OwnerSlot};
use super::tree::Place;
use super::usage::{allocated, vec_bytes};
use crate::hash::EngineBlockHash;

/// Stands where a block has no shared name. An engine hash of this value is never shared.
const NONE: EngineBlockHash = EngineBlockHash(0);

/// A tenant and model, as a number: engines of different models may give equal names to different blocks, and
/// those must not stand in each other's way. That two of them get one number is
/// unlikely, and costs what strangers' names cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Book(pub(crate) u32);

/// One run's names.
#[derive(Debug, Default)]
struct RunNames {
    book: Book,
    names: Vec<EngineBlockHash>,
    apart: OwnerSet,
}

#[derive(Debug, Default)]
pub(crate) struct Naming {
    runs: Vec<RunNames>,
    table: NameTable,
    /// What the names take, by book, and of all together.
    sizes: Map<u32, NameSize>,
    all: NameSize,
}

/// What runs' names take, counted as they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NameSize {
    /// Places from a run's first block to its last one with a name.
    pub(crate) names: usize,
    pub(crate) bytes: usize,
}

impl NameSize {
    fn change(&mut self, from: Self, to: Self) {
        self.names = self.names + to.names - from.names;
        self.bytes = self.bytes + to.bytes - from.bytes;
    }
}

fn spread_in(book: Book, block: EngineBlockHash) -> u64 {
    spread(EngineBlockHash(block.0.wrapping_add(u64::from(book.0) << 32)))
}

impl Book {
    pub(crate) fn of(tenant: &str, model: &str) -> Self {
        Self(FixedState::with_seed(0).hash_one((tenant, model)) as u32)
    }
}

impl Naming {
    fn run(&mut self, run: u32) -> &mut RunNames {
        let at = run as usize;
        if self.runs.len() <= at {
            if self.runs.capacity() <= at {
                self.runs.reserve_exact(at + 1 - self.runs.len() + self.runs.len() / 16);
            }
            self.runs.resize_with(at + 1, RunNames::default);
        }
        &mut self.runs[at]
    }

    /// Counts what has changed of a run, which was `before` in this book.
    fn count(&mut self, run: u32, (book, before): (Book, NameSize)) {
        let Some(run) = self.runs.get(run as usize) else { return };
        let after = run.size();
        if run.book == book && before == after {
            return;
        }
        self.sizes.entry(book.0).or_default().change(before, NameSize::default());
        self.sizes.entry(run.book.0).or_default().change(NameSize::default(), after);
        self.all.change(before, after);
    }

    fn counted(&self, run: u32) -> (Book, NameSize) {
        self.runs.get(run as usize).map_or_else(Default::default, |run| (run.book, run.size()))
    }

    /// What the names take that lie in a tenant's and model's runs, and all names.
    pub(crate) fn sizes(&self, book: Book) -> (NameSize, NameSize) {
        (self.sizes.get(&book.0).copied().unwrap_or_default(), self.all)
    }

    /// The shared names from a place on, up to the last one known; some may be [`NONE`].
    fn names_from(&self, book: Book, place: Place) -> &[EngineBlockHash] {
        let run = self.runs.get(place.run as usize).filter(|run| run.book == book);
        run.and_then(|run| run.names.get(place.offset as usize..)).unwrap_or(&[])
    }

    /// The shared name at a place.
    pub(crate) fn name_at(&self, place: Place) -> Option<EngineBlockHash> {
        let names = &self.runs.get(place.run as usize)?.names;
        names.get(place.offset as usize).copied().filter(|name| *name != NONE)
    }

    /// The place whose shared name this is.
    pub(crate) fn find(&self, book: Book, block: EngineBlockHash) -> Option<Place> {
        let is_it = |place: Place| self.names_from(book, place).first() == Some(&block);
        if block == NONE { None } else { self.table.find(spread_in(book, block), is_it) }
    }

    /// How many of `blocks` are the shared names from a place on.
    pub(crate) fn follow(&self, book: Book, place: Place, blocks: &[EngineBlockHash]) -> usize {
        let names = self.names_from(book, place);
        let n = names.len().min(blocks.len());
        if names[..n] == blocks[..n] && !blocks[..n].contains(&NONE) {
            return n;
        }
        names.iter().zip(blocks).take_while(|(name, block)| name == block && **name != NONE).count()
    }

    /// How many of `blocks` are the shared names at a place and before it, one by one; the first one is.
    pub(crate) fn follow_back(&self, place: Place, blocks: &[EngineBlockHash]) -> usize {
        let names = self.runs.get(place.run as usize).map_or(&[][..], |run| &run.names);
        let back = names.get(..=place.offset as usize).unwrap_or_default().iter().rev();
        back.zip(blocks).take_while(|(name, block)| name == block && **name != NONE).count()
    }

    /// Makes `blocks` the shared names from a place on. False, and nothing has changed, when one of the places has
    /// a name, or one of the names a place.
    pub(crate) fn adopt(&mut self, book: Book, place: Place, blocks: &[EngineBlockHash]) -> bool {
        let (from, to) = (place.offset as usize, place.offset as usize + blocks.len());
        let run = self.run(place.run);
        let named = run
            .names
            .get(from..)
            .is_some_and(|rest| rest.iter().take(blocks.len()).any(|name| *name != NONE));
        let foreign = run.book != book && !run.names.is_empty();
        if named || foreign || blocks.contains(&NONE) {
            return false;
        }
        if self.table.is_full(blocks.len()) {
            self.rebuild(blocks.len());
        }
        let before = self.counted(place.run);
        let run = self.run(place.run);
        run.book = book;
        run.cover(to);
        run.names[from..to].copy_from_slice(blocks);
        for (i, block) in blocks.iter().enumerate() {
            let at = Place { run: place.run, offset: place.offset + i as u32 };
            let runs = &self.runs;
            let is_it = |other: Place| {
                let other_run = &runs[other.run as usize];
                other_run.book == book && other_run.names[other.offset as usize] == *block
            };
            if !self.table.insert(spread_in(book, *block), at, is_it) {
                self.take_back(place, i);
                self.run(place.run).names[from..to].fill(NONE);
                self.run(place.run).trim();
                self.count(place.run, before);
                return false;
            }
        }
        self.count(place.run, before);
        true
    }

    /// Takes the newest `n` names out of the table, the last first.
    fn take_back(&mut self, place: Place, n: usize) {
        for i in (0..n as u32).rev() {
            let at = Place { run: place.run, offset: place.offset + i };
            self.unname(at);
        }
    }

    fn unname(&mut self, at: Place) {
        let run = &self.runs[at.run as usize];
        let name = run.names[at.offset as usize];
        if name != NONE {
            self.table.remove(spread_in(run.book, name), at);
        }
    }

    /// Makes another table, with room for so many names more.
    fn rebuild(&mut self, more: usize) {
        let mut table = NameTable::with_room(self.table.len() + more);
        for (number, run) in (0u32..).zip(&self.runs) {
            let named = (0u32..).zip(&run.names).filter(|(_, name)| **name != NONE);
            for (offset, name) in named {
                table.add(spread_in(run.book, *name), Place { run: number, offset });
            }
        }
        self.table = table;
    }

    /// The run ends earlier from now on: what lay behind is nameless.
    pub(crate) fn forget(&mut self, run: u32, len: usize) {
        let Some(names) = self.runs.get(run as usize) else { return };
        for offset in (len..names.names.len()).rev() {
            self.unname(Place { run, offset: offset as u32 });
        }
        let before = self.counted(run);
        let names = &mut self.runs[run as usize];
        if len == 0 {
            *names = RunNames::default();
        } else if names.names.len() > len {
            names.names.truncate(len);
            names.trim();
            if names.names.capacity() > 4 * len {
                names.names.shrink_to(2 * len);
            }
        }
        self.count(run, before);
        if self.table.is_sparse() {
            self.rebuild(0);
        }
    }

    /// Whether the owner keeps its names of blocks in the run itself.
    pub(crate) fn is_apart(&self, run: u32, owner: OwnerSlot) -> bool {
        self.runs.get(run as usize).is_some_and(|run| run.apart.contains(owner))
    }

    pub(crate) fn set_apart(&mut self, run: u32, owner: OwnerSlot) {
        let before = self.counted(run);
        self.run(run).apart.insert(owner);
        self.count(run, before);
    }

    /// The owner is gone, and its slot may become another's.
    pub(crate) fn leave(&mut self, owner: OwnerSlot) {
        for number in 0..self.runs.len() as u32 {
            if self.is_apart(number, owner) {
                let before = self.counted(number);
                self.run(number).apart.remove(owner);
                self.count(number, before);
            }
        }
    }

    /// What is kept of a run beside its names.
    pub(crate) const RUN_BYTES: usize = size_of::<RunNames>();

    pub(crate) fn heap_bytes(&self) -> usize {
        self.all.bytes
            + vec_bytes::<RunNames>(self.runs.capacity())
            + allocated(self.sizes.allocation_size())
            + self.table_bytes()
    }

    /// Bytes of the table that finds names.
    pub(crate) fn table_bytes(&self) -> usize {
        self.table.heap_bytes()
    }

    /// How many names a run has room for, and the bytes of all that is kept for it here.
    pub(crate) fn run_bytes(&self, run: u32) -> (usize, usize) {
        let run = self.runs.get(run as usize);
        run.map_or((0, 0), |run| (run.names.len(), size_of::<RunNames>() + run.heap_bytes()))
    }

    /// Gives everything back when there is no run left.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the table says where every name is, and nothing else.
    pub(crate) fn check(&self, len_of: impl Fn(u32) -> usize) -> Result<(), String> {
        let mut names = 0;
        for (number, run) in (0u32..).zip(&self.runs) {
            if run.names.len() > len_of(number) || run.names.last() == Some(&NONE) {
                return Err(format!("run {number} has more names than blocks, or names nothing at its end"));
            }
            for (offset, name) in (0u32..).zip(&run.names).filter(|(_, name)| **name != NONE) {
                names += 1;
                if self.find(run.book, *name) != Some(Place { run: number, offset }) {
                    return Err(format!("{name} of run {number} is not found"));
                }
            }
        }
        self.check_sizes()?;
        (names == self.table.len()).then_some(()).ok_or_else(|| "names without blocks".to_owned())
    }

    fn check_sizes(&self) -> Result<(), String> {
        let mut found: Map<u32, NameSize> = Map::default();
        for run in &self.runs {
            found.entry(run.book.0).or_default().change(NameSize::default(), run.size());
        }
        let counted =
            self.sizes.iter().find(|(book, size)| **size != found.remove(*book).unwrap_or_default());
        if let Some((book, size)) = counted {
            return Err(format!("names of book {book} are counted wrong, as {size:?}"));
        }
        match found.into_iter().find(|(_, size)| *size != NameSize::default()) {
            Some((book, size)) => Err(format!("names of book {book} take {size:?}, which is not counted")),
            None => Ok(()),
        }
    }
}

impl RunNames {
    fn heap_bytes(&self) -> usize {
        vec_bytes::<EngineBlockHash>(self.names.capacity()) + self.apart.heap_bytes()
    }

    fn size(&self) -> NameSize {
        NameSize { names: self.names.len(), bytes: self.heap_bytes() }
    }

    /// Makes room for names up to an offset. Growing by a sixteenth, like the run.
    fn cover(&mut self, to: usize) {
        if to > self.names.capacity() {
            let more = to - self.names.len();
            self.names.reserve_exact(more.max(self.names.len() / 16));
        }
        if to > self.names.len() {
            self.names.resize(to, NONE);
        }
    }

    fn trim(&mut self) {
        while self.names.last() == Some(&NONE) {
            self.names.pop();
        }
    }
}
