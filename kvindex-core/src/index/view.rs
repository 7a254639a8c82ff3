//! What questions by sequence hashes read, behind a lock of its own: runs, namespaces, and which owners are plain.
//!
//! An index changes in steps of one run each, and only for such a step are readers kept out: tens to hundreds of
//! nanoseconds, while names are looked up and tables filled without them. What a reader sees between two steps of one
//! event is what the engine itself had between two blocks.

use parking_lot::{ArcRwLockUpgradableReadGuard, RawRwLock, RwLock};
use std::ops::Deref;
use std::sync::Arc;

use super::owner_set::OwnerSlot;
use super::spaces::Spaces;
use super::tree::RunTree;
use super::usage::vec_bytes;

/// How often a step looks for a moment without readers before it makes them wait.
const PATIENCE: usize = 2000;

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

/// The index's own hold of its view: it reads without asking, as the only one who changes it, and keeps readers out
/// while it does.
#[derive(Debug)]
pub(crate) struct ViewWriter(ArcRwLockUpgradableReadGuard<RawRwLock, View>);

impl Default for ViewWriter {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(View::default())).upgradable_read_arc())
    }
}

impl Deref for ViewWriter {
    type Target = View;
    fn deref(&self) -> &View {
        &self.0
    }
}

impl ViewWriter {
    /// Changes the view. Readers may look before and after.
    pub(crate) fn edit<T>(&mut self, change: impl FnOnce(&mut View) -> T) -> T {
        let mut change = Some(change);
        let mut done = None;
        for _ in 0..PATIENCE {
            let take = &mut change;
            done = self.0.try_with_upgraded(|view| take.take().map(|change| change(view))).flatten();
            if done.is_some() {
                break;
            }
            std::hint::spin_loop();
        }
        match (done, change) {
            (Some(done), _) => done,
            // Readers come so closely that there is no such moment: they wait for this one.
            (None, change) => self.0.with_upgraded(|view| match change {
                Some(change) => change(view),
                None => unreachable!("a change that was made has a result"),
            }),
        }
    }

    /// The view, for readers.
    pub(crate) fn share(&self) -> Arc<RwLock<View>> {
        Arc::clone(ArcRwLockUpgradableReadGuard::rwlock(&self.0))
    }
}
