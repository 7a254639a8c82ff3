//! What this thread has allocated and not freed, as the system counts it: with what the allocator adds to each
//! allocation. By thread, because tests run side by side.

#![allow(unsafe_code)] // GlobalAlloc is an unsafe trait; every call goes straight to the system allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that an allocation takes from the system.
fn size(at: *mut u8, asked: usize) -> isize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `at` was allocated by the system allocator and not freed yet.
    let size = unsafe { libc::malloc_usable_size(at.cast()) } + 8;
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let size = (asked + 8).next_multiple_of(16).max(32);
    let _ = (at, asked);
    size as isize
}

fn count(bytes: isize) {
    // Fails only when the thread ends, when nothing is measured any more.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

// SAFETY: every method hands its arguments unchanged to `System`, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let at = unsafe { System.alloc(layout) };
        count(size(at, layout.size()));
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let at = unsafe { System.alloc_zeroed(layout) };
        count(size(at, layout.size()));
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-size(at, layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        let before = size(at, layout.size());
        // SAFETY: the caller's promises are passed on.
        let at = unsafe { System.realloc(at, layout, new) };
        count(size(at, new) - before);
        at
    }
}

/// Bytes that this thread holds.
pub(crate) fn live() -> isize {
    LIVE.with(Cell::get)
}
