//! A lock for one writer and many readers, in which readers do not get in each other's way: every thread has a lock
//! word of its own to read by, as far as there are processors, and the writer takes all of them.
//!
//! With one word for all, two threads asked 1.2 times as much as one, because questions take a third of a
//! microsecond and passing the word from core to core takes as long; with two words, see the decision page. No safe
//! lock has this shape with as few words as there are processors, so this module, and no other, holds `unsafe` code.
#![allow(unsafe_code)]

use lock_api::RawRwLock as _;
use parking_lot::RawRwLock;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most lock words. Each costs the writer some ten nanoseconds a step.
const MAX_WORDS: usize = 8;
/// How often the writer looks for a moment without readers before it makes them wait.
const WRITER_PATIENCE: usize = 2000;
/// How often a reader looks again before it sleeps: a step takes so little time that this mostly is enough.
const READER_PATIENCE: usize = 200;

/// A lock word alone in its cache lines, of which processors fetch two at a time.
#[repr(align(128))]
struct Word(RawRwLock);

struct Shared<T> {
    words: Box<[Word]>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is changed only by `Writer::edit`, which holds all words exclusively, and a `Reader` refers to it
// only while it holds a word. The writer refers to it without a word, but there is one writer, and its references end
// before it edits. So what threads share is `&T`, which takes `T: Sync`, and the value may be dropped by whoever
// comes last, which takes `T: Send`.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

/// The one who changes the value, and reads it without asking.
pub(crate) struct Writer<T>(Arc<Shared<T>>);

/// Those who read it.
pub(crate) struct Reader<T>(Arc<Shared<T>>);

/// A reader's look at the value: no step is made while it lasts.
pub(crate) struct Look<'a, T> {
    word: &'a RawRwLock,
    value: &'a T,
}

impl<T> Writer<T> {
    pub(crate) fn new(value: T) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let words = (0..processors.clamp(1, MAX_WORDS)).map(|_| Word(RawRwLock::INIT)).collect();
        Self(Arc::new(Shared { words, value: UnsafeCell::new(value) }))
    }

    pub(crate) fn reader(&self) -> Reader<T> {
        Reader(Arc::clone(&self.0))
    }

    /// Changes the value. Readers may look before and after.
    pub(crate) fn edit<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let held = AllWords::take(&self.0.words);
        // SAFETY: all words are held exclusively, so no reader refers to the value; there is one writer, whose own
        // references have ended, because this borrows it mutably.
        let result = change(unsafe { &mut *self.0.value.get() });
        drop(held);
        result
    }
}

impl<T> Deref for Writer<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: only `edit` changes the value, and cannot as long as this reference lives, because it borrows the
        // only writer mutably.
        unsafe { &*self.0.value.get() }
    }
}

/// All words, held exclusively until this is dropped, also by a panic.
struct AllWords<'a> {
    words: &'a [Word],
    taken: usize,
}

impl<'a> AllWords<'a> {
    fn take(words: &'a [Word]) -> Self {
        let mut held = Self { words, taken: 0 };
        for Word(word) in words {
            let mut tries = (0..WRITER_PATIENCE).map(|_| {
                std::hint::spin_loop();
                word.try_lock_exclusive()
            });
            if !word.try_lock_exclusive() && !tries.any(|taken| taken) {
                word.lock_exclusive();
            }
            held.taken += 1;
        }
        held
    }
}

impl Drop for AllWords<'_> {
    fn drop(&mut self) {
        for Word(word) in self.words.iter().take(self.taken) {
            // SAFETY: it was taken above, and not given back since.
            unsafe { word.unlock_exclusive() };
        }
    }
}

impl<T> Reader<T> {
    pub(crate) fn look(&self) -> Look<'_, T> {
        let Word(word) = &self.0.words[own_number() % self.0.words.len()];
        let mut tries = (0..READER_PATIENCE).map(|_| {
            std::hint::spin_loop();
            word.try_lock_shared()
        });
        if !word.try_lock_shared() && !tries.any(|taken| taken) {
            word.lock_shared();
        }
        // SAFETY: the word is held until the look is dropped, and nobody changes the value without holding it.
        Look { word, value: unsafe { &*self.0.value.get() } }
    }
}

/// The calling thread's number: threads that begin to read one after the other use different words.
fn own_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}

impl<T> Deref for Look<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> Drop for Look<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the look took it, and gives it back once.
        unsafe { self.word.unlock_shared() };
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Writer<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writer").field(&**self).finish()
    }
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicBool;

    /// Two numbers that every edit keeps equal, apart in memory, and a list that moves as it grows.
    #[test]
    fn a_reader_sees_whole_steps_only() {
        let mut writer = Writer::new((0u64, vec![0u64], 0u64));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (reader, done) = (writer.reader(), &done);
                scope.spawn(move || {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let look = reader.look();
                        assert!(look.0 == look.2 && look.1.last() == Some(&look.0) && look.0 >= last);
                        last = look.0;
                    }
                });
            }
            for step in 1..20_000 {
                writer.edit(|value| {
                    value.0 = step;
                    if step % 1000 == 0 {
                        value.1 = Vec::new();
                    }
                    value.1.push(step);
                    value.2 = step;
                });
                assert_eq!(writer.0.words.len(), writer.reader().0.words.len());
                assert_eq!(writer.2, step);
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_panic_amid_a_step_leaves_the_lock_open() {
        let mut writer = Writer::new(1);
        let broken = catch_unwind(AssertUnwindSafe(|| writer.edit(|_| panic!("amid a step"))));
        assert!(broken.is_err());
        assert_eq!(*writer.reader().look(), 1);
        writer.edit(|value| *value = 2);
        assert_eq!(*writer.reader().look(), 2);
    }

    #[test]
    fn a_reader_outlives_the_writer() {
        let writer = Writer::new(String::from("kept"));
        let reader = writer.reader().clone();
        drop(writer);
        assert_eq!(reader.look().as_str(), "kept");
    }
}
