//! Bytes from outside, changed at random, through the same entry points as the fuzz targets, on any toolchain: some
//! thousand each in every test run, as many as asked for with `KVINDEX_INPUTS` (`just inputs`).
#![allow(clippy::unwrap_used)]

mod change;
mod seeds;

use change::Dice;
use kvindex_server::inputs;
use std::time::Instant;

/// What every test run takes.
const USUAL: u64 = 20_000;

fn wanted() -> u64 {
    std::env::var("KVINDEX_INPUTS").map_or(USUAL, |count| count.parse().unwrap())
}

/// Takes so many changed inputs. What panics names its input, so that it can become a test of its own.
fn take(target: &str, seeds: &[Vec<u8>], take: fn(&[u8]) -> bool) {
    let whole = seeds.iter().filter(|seed| take(seed)).count();
    assert_eq!(whole, seeds.len(), "every seed of {target} is in order");
    let (began, wanted) = (Instant::now(), wanted());
    // Another run with more inputs goes on from other dice.
    let mut dice = Dice::new(wanted ^ target.len() as u64);
    let (mut taken, mut input) = (0u64, Vec::new());
    for number in 0..wanted {
        change::changed(&mut dice, seeds, &mut input);
        let in_order = std::panic::catch_unwind(|| take(&input));
        taken += u64::from(in_order.unwrap_or_else(|_| panic!("{target}: input {number} panics: {input:?}")));
    }
    let took = began.elapsed();
    let each = took.as_secs_f64() * 1e6 / wanted.max(1) as f64;
    println!("{target}: {wanted} inputs in {took:.0?}, {each:.1} us each, {taken} of them in order");
    assert!(taken > 0 && taken < wanted, "{target}: some are in order ({taken}), some are not");
}

#[test]
fn frames() {
    take("frames", &seeds::frames(), inputs::event_batch);
}

#[test]
fn log_entries() {
    take("log entries", &seeds::entries(), inputs::log_entry);
}

#[test]
fn http_bodies() {
    take("HTTP bodies", &seeds::http(), inputs::http_body);
}

#[test]
fn dialect_bodies() {
    take("dialect bodies", &seeds::dialects(), inputs::dialect_body);
}

#[test]
fn grpc_messages() {
    take("gRPC messages", &seeds::grpc(), inputs::grpc_message);
}

#[test]
fn configurations() {
    take("configurations", &seeds::configurations(), inputs::configuration);
}

#[test]
fn snapshots() {
    take("snapshots", &seeds::snapshots(), inputs::snapshot);
}
