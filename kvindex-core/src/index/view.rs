//! What questions by sequence hashes read, behind a lock of its own: runs, namespaces, and which owners are plain.
//!
//! An index changes in steps of one run each, and only for such a step are readers kept out: tens to hundreds of
//! nanoseconds, while names are looked up and tables filled without them. What a reader sees between two steps of one
//! event is what the engine itself had between two blocks.

use super::owner_set::OwnerSlot;
use super::spaces::Spaces;
use super::tree::RunTree;
use super::usage::vec_bytes;

#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) tree: RunTree,
    pub(crate) spaces: Spaces,
    pub(crate) slots: Slots,
}

/// What a question needs to know of owners, in columns by slot: it reads nothing else of most of them.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    stream_of: Vec<u32>,
    /// As bits, whether the owner is all there is to its stream: the one group of an ordinary model, on the device.
    plain: Vec<u64>,
}

impl Slots {
    /// All slots' bits, 64 a word, and the number of each slot's stream.
    pub(crate) fn plain_owners(&self) -> (&[u64], &[u32]) {
        (&self.plain, &self.stream_of)
    }

    pub(crate) fn is_plain(&self, slot: OwnerSlot) -> bool {
        self.plain.get(slot.index() / 64).is_some_and(|word| word >> (slot.0 % 64) & 1 == 1)
    }

    /// Number of an owner's stream.
    pub(crate) fn stream_number(&self, slot: OwnerSlot) -> u32 {
        self.stream_of.get(slot.index()).copied().unwrap_or(u32::MAX)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        vec_bytes::<u32>(self.stream_of.capacity()) + vec_bytes::<u64>(self.plain.capacity())
    }

    pub(crate) fn set(&mut self, slot: OwnerSlot, stream: u32, plain: bool) {
        self.stream_of.resize(self.stream_of.len().max(slot.index() + 1), u32::MAX);
        self.plain.resize(self.plain.len().max(slot.index() / 64 + 1), 0);
        self.stream_of[slot.index()] = stream;
        let (word, bit) = (&mut self.plain[slot.index() / 64], 1 << (slot.0 % 64));
        *word = if plain { *word | bit } else { *word & !bit };
    }
}
