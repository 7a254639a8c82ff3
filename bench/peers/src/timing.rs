//! How a store stream and questions are timed.

use std::hint::black_box;
use std::time::Instant;

use crate::indexes::{KvIndex, prepare, prepare_one};
use crate::machine::process_cpu;
use crate::work::stream::Stream;

/// Longest time spent on one kind of question, in seconds: slow indexes stop early.
const LONGEST: f64 = 0.8;
/// Shortest: the kernel counts what others use in hundredths of a second, so less would tell nothing of them.
const SHORTEST: f64 = 0.1;
/// Events prepared at a time where memory is measured.
const CHUNK: usize = 20_000;

/// CPU seconds to apply the whole stream, prepared beforehand.
pub(crate) fn apply_all<I: KvIndex>(index: &I, stream: &Stream) -> f64 {
    let events = prepare(index, stream);
    let started = process_cpu();
    for event in events {
        index.apply(event);
    }
    index.barrier();
    process_cpu() - started
}

/// Applies the stream without holding all of it in the implementation's form.
pub(crate) fn apply_in_chunks<I: KvIndex>(index: &I, stream: &Stream) {
    for at in 0..stream.events.len() {
        index.apply(prepare_one(index, stream, at));
        if at % CHUNK == CHUNK - 1 {
            index.barrier();
        }
    }
    index.barrier();
}

/// Latencies of questions, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Middle and hundredth-worst of these.
pub(crate) fn quantiles(mut nanoseconds: Vec<f64>) -> Latency {
    nanoseconds.sort_by(f64::total_cmp);
    let at = |share: usize| nanoseconds.get(nanoseconds.len() * share / 100).copied().unwrap_or(f64::NAN);
    Latency { p50: at(50), p99: at(99) }
}

/// Asks all questions `rounds` times, or more often where that takes no time, each timed alone, after a few to
/// warm up.
pub(crate) fn ask_all<I: KvIndex>(index: &I, queries: &[I::Query], rounds: usize) -> Latency {
    for query in queries.iter().take(64) {
        drop(black_box(index.find(query)));
    }
    let mut nanoseconds = Vec::with_capacity(queries.len() * rounds);
    let started = Instant::now();
    for query in queries.iter().cycle() {
        let asked = Instant::now();
        let answer = black_box(index.find(query));
        nanoseconds.push(asked.elapsed().as_nanos() as f64);
        drop(answer);
        if nanoseconds.len() % 16 == 0 {
            let taken = started.elapsed().as_secs_f64();
            let enough = nanoseconds.len() >= queries.len() * rounds && taken > SHORTEST;
            if enough || taken > LONGEST {
                break;
            }
        }
    }
    quantiles(nanoseconds)
}
