//! Several threads at one index: readers beside readers, and readers beside a writer.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::indexes::KvIndex;

/// How long threads ask to find their rate.
const WINDOW: Duration = Duration::from_millis(400);

/// Questions a second that so many threads get answered together.
pub(crate) fn rate<I: KvIndex + Sync>(index: &I, queries: &[I::Query], threads: usize) -> f64 {
    let answered = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let answered = &answered;
            scope.spawn(move || {
                let mut at = thread * queries.len() / threads;
                let mut own = 0;
                while started.elapsed() < WINDOW {
                    for _ in 0..8 {
                        at = (at + 1) % queries.len();
                        drop(black_box(index.find(&queries[at])));
                    }
                    own += 8;
                }
                answered.fetch_add(own, Relaxed);
            });
        }
    });
    answered.load(Relaxed) as f64 / started.elapsed().as_secs_f64()
}

/// Nanoseconds of each question asked on this thread while another applies the events, or, where the index queues
/// them itself, while its own threads work through them.
pub(crate) fn mixed<I: KvIndex + Sync>(index: &I, events: Vec<I::Event>, queries: &[I::Query]) -> Vec<f64> {
    let mut later = Some(events);
    if I::QUEUES {
        later.take().into_iter().flatten().for_each(|event| index.apply(event));
    }
    let done = AtomicBool::new(false);
    let mut nanoseconds = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            later.into_iter().flatten().for_each(|event| index.apply(event));
            index.barrier();
            done.store(true, Relaxed);
        });
        for query in queries.iter().cycle() {
            let asked = Instant::now();
            drop(black_box(index.find(query)));
            nanoseconds.push(asked.elapsed().as_nanos() as f64);
            if done.load(Relaxed) {
                break;
            }
        }
    });
    nanoseconds
}
