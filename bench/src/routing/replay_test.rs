//! The whole simulation on small traces: every policy serves everybody, and what the index says is what is there.

#![allow(clippy::unwrap_used)]

use clap::ValueEnum;
use kvindex_recording::splitmix64;

use super::*;
use crate::routing::engine::Decode;
use crate::routing::figures::Figures;
use crate::routing::router::Policy;
use crate::routing::trace::{BLOCK_TOKENS, sessions};

const PACE: Pace = Pace { prefill: 10_000.0, decode: None };
const SETUP: Setup = Setup {
    policy: Policy::Kvindex,
    engines: 3,
    cache_blocks: 40,
    guess_blocks: 200,
    guess_ttl_s: f64::INFINITY,
    delay_s: 0.0,
    overlap_weight: 1.0,
    held_weight: 0.0,
    routers: 1,
    seed: 7,
};

/// Conversations of a few turns under one system prompt, each turn longer by some blocks than the one before it.
fn conversations(turns: usize, seed: u64) -> Vec<Request> {
    let mut lengths = [0u64; 12];
    (0..turns)
        .map(|number| {
            let drawn = splitmix64(seed ^ number as u64);
            let who = (drawn % 12) as usize;
            lengths[who] = if lengths[who] > 9 { 0 } else { lengths[who] + 1 + drawn % 3 };
            let life = (number / 60) as u64;
            let own = (0..lengths[who]).map(|at| 1000 + life * 10_000 + who as u64 * 100 + at);
            let blocks: Vec<u64> = (0..2).chain(own).collect();
            let tokens = blocks.len() as u64 * BLOCK_TOKENS + drawn % BLOCK_TOKENS;
            Request { number, at_s: number as f64 * 0.1, tokens, output: 1 + drawn % 50, blocks }
        })
        .collect()
}

fn run(policy: Policy, pace: Pace, arrivals: Arrivals) -> (Figures, Replayed) {
    let requests = conversations(200, 3);
    let sessions = sessions(&requests);
    let replayed = replay(&requests, &sessions, Setup { policy, ..SETUP }, pace, arrivals).unwrap();
    let served: Vec<Served> = replayed.served.iter().flatten().copied().collect();
    (Figures::of(&served, SETUP.engines), replayed)
}

#[test]
fn every_policy_serves_every_request_once() {
    let decode = Some(Decode { step_s: 0.01, each_s: 0.001, chunk: 2048.0 });
    for policy in Policy::value_variants() {
        for pace in [PACE, Pace { decode, ..PACE }] {
            for arrivals in [Arrivals::Faster(1.0), Arrivals::Faster(50.0), Arrivals::Closed(6)] {
                let (figures, replayed) = run(*policy, pace, arrivals);
                assert_eq!(figures.requests, 200, "{policy:?} {arrivals:?}");
                for served in replayed.served.iter().flatten() {
                    assert!(
                        served.came_s < served.first_token_s && served.first_token_s <= served.finished_s
                    );
                    assert!(served.saved < served.tokens);
                }
            }
        }
    }
}

#[test]
fn a_run_can_be_repeated() {
    for policy in [Policy::Session, Policy::KvindexSpeculative] {
        let runs = [(); 2].map(|()| run(policy, PACE, Arrivals::Closed(5)).1.served);
        assert_eq!(runs[0], runs[1]);
    }
}

#[test]
fn without_delay_and_queues_the_index_knows_what_engines_hold() {
    let (index, replayed) = run(Policy::Kvindex, PACE, Arrivals::Faster(0.01));
    assert!(replayed.applied > 500, "{}", replayed.applied);
    assert_eq!((index.believed_wrongly, index.not_known), (0, 0));
    // The router that only guesses errs on the same work, with lists as long as the caches and with longer ones.
    let (guess, _) = run(Policy::GuessDefault, PACE, Arrivals::Faster(0.01));
    assert!(guess.believed_wrongly > 0, "{guess:?}");
    let (blind, _) = run(Policy::RoundRobin, PACE, Arrivals::Faster(0.01));
    assert!(index.hit_rate() > blind.hit_rate(), "{} {}", index.hit_rate(), blind.hit_rate());
}

#[test]
fn what_is_late_is_not_known() {
    let requests = conversations(200, 3);
    let sessions = sessions(&requests);
    let setup = Setup { delay_s: 1e9, ..SETUP };
    let late = replay(&requests, &sessions, setup, PACE, Arrivals::Faster(1.0)).unwrap();
    assert_eq!(late.applied, 0);
    assert!(late.served.iter().flatten().all(|served| served.believed == 0));
    let setup = Setup { policy: Policy::KvindexSpeculative, ..setup };
    let own = replay(&requests, &sessions, setup, PACE, Arrivals::Faster(1.0)).unwrap();
    assert!(own.served.iter().flatten().any(|served| served.believed > 0), "own choices are known at once");
}
