//! Live bytes of an index, by a counting allocator, beside the index's own estimate.

#![allow(unsafe_code)] // GlobalAlloc is an unsafe trait; every call goes straight to the allocator.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

use kvindex_core::Command;
use kvindex_recording::Recording;
use mimalloc::MiMalloc;

use crate::ingest::{commands, decode_all, empty_index, seal_all, workers};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The allocator that the `kvindex` binary has, counting live bytes.
pub(crate) struct Counting;

// SAFETY: every method hands its arguments unchanged to `MiMalloc`, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LIVE.fetch_add(new_size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.realloc(at, layout, new_size) }
    }
}

/// Bytes that a recording's blocks cost when only stores are applied, and what is left after all are gone.
pub(crate) fn run(recording: &Recording) -> anyhow::Result<()> {
    let workers = workers(recording)?;
    let sealed = seal_all(recording, &workers, &decode_all(recording)?);
    let stores = sealed.into_iter().map(|changes| {
        changes.into_iter().filter(|change| matches!(change, kvindex_core::Change::Stored(_))).collect()
    });
    let commands = commands(recording, &workers, stores.collect());
    let mut index = empty_index(&workers);
    let before = LIVE.load(Ordering::Relaxed);
    for command in &commands {
        index.apply(command);
    }
    let live = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    let stats = index.stats();
    println!(
        "memory: {} entries of {} owners, {} distinct blocks in {} runs",
        stats.entries, stats.streams, stats.blocks, stats.runs
    );
    println!("| figure | bytes |\n|---|---|");
    println!("| live, counted by the allocator | {live} |");
    println!("| estimated by the index itself | {} |", stats.bytes);
    println!("| live a (block, owner) | {:.1} |", live as f64 / stats.entries.max(1) as f64);
    for (spec, _) in &workers {
        index.apply(&Command::Unregister { worker: spec.id.clone() });
    }
    let left = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    println!("| left after all workers are gone | {left} |\n");
    Ok(())
}
