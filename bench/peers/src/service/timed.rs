//! Both servers hold the same generated fleet and are asked the same questions in turn, each timed alone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kvindex_recording::{Publisher, PublisherOptions};
use serde_json::json;

use super::fleet::{BLOCK, Fleet};
use super::http::request;
use super::recorded::local_hashes;
use super::servers::{Pair, Place, Server};
use crate::machine::Watch;
use crate::timing::{Latency, quantiles};

/// How long both may take to hear all and to have it applied.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(250);
/// Different questions of a kind.
const DIFFERENT: usize = 64;
const MODEL: &str = "fleet";

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    /// Questions of a kind to each server in a round.
    pub(super) asked: usize,
    pub(super) patience: Duration,
}

/// What came of it.
pub(super) struct Timed {
    pub(super) entries: usize,
    /// Bytes in memory before the first event and with all of them applied; kvindex first.
    pub(super) empty: [i64; 2],
    pub(super) full: [i64; 2],
    pub(super) kinds: Vec<Kind>,
}

/// Questions of one route and length.
pub(super) struct Kind {
    pub(super) path: &'static str,
    pub(super) blocks: usize,
    /// Instances in an answer, on average.
    pub(super) holders: f64,
    requests: Vec<Vec<u8>>,
    /// Each round's latencies in nanoseconds, kvindex first.
    pub(super) rounds: Vec<[Latency; 2]>,
}

/// Starts both, lets them hear the fleet, checks every answer and then times them.
pub(super) fn run(kvindex: &Path, threads: usize, fleet: &Fleet, effort: Effort) -> anyhow::Result<Timed> {
    let mut pair = Pair::start(kvindex, threads)?;
    let (recording, entries) = fleet.recording()?;
    let records = recording.records.len();
    let options = PublisherOptions { subscribers: 2, ..PublisherOptions::default() };
    let publisher = Publisher::start(recording, options)?;
    for engine in publisher.endpoints() {
        let instance = u64::from(engine.engine);
        pair.register(engine, &Place { instance, model: MODEL, block_size: BLOCK, engine: "vLLM" })?;
    }
    ensure!(publisher.wait_for_subscribers(PATIENCE), "not both have subscribed to every engine");
    let empty = pair.resident();
    eprintln!("{entries} blocks of {} engines in {records} messages", fleet.engines);
    publisher.play_all()?;
    let mut kinds = kinds(fleet)?;
    for kind in &mut kinds {
        kind.holders = until_right(&mut pair, kind)?;
    }
    let full = pair.resident();
    for round in 0..effort.rounds {
        eprintln!("round {} of {}", round + 1, effort.rounds);
        for kind in &mut kinds {
            Watch::start(effort.patience);
            kind.ask(&mut pair, effort.asked)?;
        }
    }
    Ok(Timed { entries, empty, full, kinds })
}

fn kinds(fleet: &Fleet) -> anyhow::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for blocks in [8, 128, 1024].into_iter().filter(|blocks| *blocks <= fleet.depth) {
        let blocks = blocks as usize;
        let prompts = fleet.prompts(DIFFERENT, blocks)?;
        let by_tokens =
            |tokens: &Vec<u32>| request("/query", &json!({"model_name": MODEL, "token_ids": tokens}));
        let by_hash = |tokens: &Vec<u32>| {
            let hashes = local_hashes(tokens, BLOCK);
            request("/query_by_hash", &json!({"model_name": MODEL, "block_hashes": hashes}))
        };
        let mut add = |path, requests| {
            kinds.push(Kind { path, blocks, holders: 0.0, requests, rounds: Vec::new() });
        };
        add("/query", prompts.iter().map(by_tokens).collect());
        add("/query_by_hash", prompts.iter().map(by_hash).collect());
    }
    Ok(kinds)
}

/// Waits until both give the same answers to all questions and know each prompt to its end: somebody holds each.
/// Answers how many do, on average.
fn until_right(pair: &mut Pair, kind: &Kind) -> anyhow::Result<f64> {
    let whole = kind.blocks as u32 * BLOCK;
    let started = Instant::now();
    loop {
        let (mut holders, mut wrong) = (0, None);
        for request in &kind.requests {
            let [ours, theirs] = pair.ask(request)?;
            let (best, many) = ours.best();
            holders += many;
            if ours != theirs || best != whole {
                wrong = Some((ours, theirs));
                break;
            }
        }
        let Some((ours, theirs)) = wrong else { return Ok(holders as f64 / kind.requests.len() as f64) };
        ensure!(
            started.elapsed() < PATIENCE,
            "{} of {} blocks: kvindex says {ours:?}, Dynamo says {theirs:?}",
            kind.path,
            kind.blocks
        );
        std::thread::sleep(LOOK);
    }
}

impl Kind {
    fn ask(&mut self, pair: &mut Pair, asked: usize) -> anyhow::Result<()> {
        let (mut ours, mut theirs) = (Vec::with_capacity(asked), Vec::with_capacity(asked));
        for (at, request) in self.requests.iter().cycle().take(asked).enumerate() {
            // Whoever comes second finds the client's part warm, so both do, in turn.
            if at % 2 == 0 {
                ours.push(timed(&mut pair.ours, request)?);
                theirs.push(timed(&mut pair.theirs, request)?);
            } else {
                theirs.push(timed(&mut pair.theirs, request)?);
                ours.push(timed(&mut pair.ours, request)?);
            }
        }
        self.rounds.push([quantiles(ours), quantiles(theirs)]);
        Ok(())
    }
}

fn timed(server: &mut Server, request: &[u8]) -> anyhow::Result<f64> {
    let started = Instant::now();
    let (status, _) = server.exchange(request)?;
    let taken = started.elapsed().as_nanos() as f64;
    ensure!(status == 200, "a question was answered with {status}");
    Ok(taken)
}
