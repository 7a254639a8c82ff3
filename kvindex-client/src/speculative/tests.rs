//! What routed prompts add to answers, and when they stop.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::prompt::{PromptHashes, PromptTokens};

const LONG: Duration = Duration::from_secs(3600);

fn tokens(blocks: u32) -> PromptTokens {
    PromptTokens::new("llama", &(0..blocks * 16).collect::<Vec<_>>())
}

fn worker(worker_id: &str, blocks: u64, generation: u64) -> v1::WorkerMatch {
    v1::WorkerMatch {
        worker_id: worker_id.into(),
        block_size: 16,
        matched_blocks: blocks,
        matched_tokens: blocks * 16,
        trust: Some(v1::Trust { generation, ..v1::Trust::default() }),
        ..v1::WorkerMatch::default()
    }
}

/// What a question about `prompt` is answered with, if the node says `workers`.
fn answered(
    speculations: &Speculations,
    mut request: v1::MatchRequest,
    workers: Vec<v1::WorkerMatch>,
) -> Vec<(String, u64, bool)> {
    let speculated = speculations.prepare(&mut request);
    let mut answer = v1::MatchResponse { workers, prompt_tokens: 160, ..v1::MatchResponse::default() };
    speculations.complete(speculated, &mut answer);
    let is_marked = |worker: &v1::WorkerMatch| worker.ambiguous && worker.doubts == [SPECULATIVE];
    answer.workers.iter().map(|w| (w.worker_id.clone(), w.matched_blocks, is_marked(w))).collect()
}

#[test]
fn a_routed_prompt_counts_as_far_as_the_next_one_shares_it() {
    let speculations = Speculations::new(LONG);
    speculations.insert(tokens(10).message(), &worker("b", 0, 1));
    let both = || vec![worker("a", 2, 1), worker("b", 0, 1)];
    assert_eq!(
        answered(&speculations, (&tokens(10)).into(), both()),
        [("b".into(), 10, true), ("a".into(), 2, false)]
    );
    assert_eq!(answered(&speculations, (&tokens(4)).into(), both())[0], ("b".into(), 4, true));
    let mut other: Vec<u32> = (0..160).collect();
    other[16 * 3] = 7;
    let branches = PromptTokens::new("llama", &other);
    assert_eq!(answered(&speculations, (&branches).into(), both())[0], ("b".into(), 3, true));
    for apart in [
        tokens(10).tenant("acme"),
        tokens(10).lora("l"),
        tokens(10).cache_salt("s"),
        tokens(10).item("image", 0, 4),
    ] {
        assert_eq!(answered(&speculations, (&apart).into(), both())[0], ("a".into(), 2, false), "{apart:?}");
    }
    let on_disk = v1::MatchRequest { tier: Some("disk".into()), ..(&tokens(10)).into() };
    assert_eq!(answered(&speculations, on_disk, both())[0], ("a".into(), 2, false));
    // The same tokens, not packed.
    let plain = v1::Prompt { model: "llama".into(), token_ids: (0..160).collect(), ..v1::Prompt::default() };
    let plain = v1::MatchRequest { prompt: Some(plain), ..v1::MatchRequest::default() };
    assert_eq!(answered(&speculations, plain, both())[0], ("b".into(), 10, true));
}

#[test]
fn the_best_are_chosen_after_what_was_routed_is_added() {
    let speculations = Speculations::new(LONG);
    let mut untouched = v1::MatchRequest { top_k: Some(1), ..(&tokens(10)).into() };
    assert!(speculations.prepare(&mut untouched).is_none() && untouched.top_k == Some(1));
    speculations.insert(tokens(10).message(), &worker("b", 0, 1));
    let request = v1::MatchRequest { top_k: Some(1), min_matched_blocks: 3, ..(&tokens(10)).into() };
    let mut asked = request.clone();
    assert!(speculations.prepare(&mut asked).is_some());
    assert_eq!((asked.top_k, asked.min_matched_blocks), (None, 0), "the node is asked for all");
    let workers = vec![worker("a", 5, 1), worker("b", 0, 1), worker("c", 2, 1)];
    assert_eq!(answered(&speculations, request, workers), [("b".into(), 10, true)]);
}

#[test]
fn the_engines_word_counts_once_it_has_spoken() {
    let speculations = Speculations::new(LONG);
    speculations.insert(tokens(10).message(), &worker("b", 0, 1));
    let ask = |asked: u32, held: u64| {
        answered(&speculations, (&tokens(asked)).into(), vec![worker("b", held, 1)]).remove(0)
    };
    assert_eq!(ask(10, 4), ("b".into(), 10, true), "a part of it is there");
    assert_eq!(ask(4, 4), ("b".into(), 4, false));
    assert_eq!(ask(4, 0), ("b".into(), 0, false), "it was there and is gone");
    assert_eq!(ask(10, 10), ("b".into(), 10, false));
    assert_eq!(speculations.len(), 0);
    assert_eq!(ask(10, 0), ("b".into(), 0, false));
}

#[test]
fn another_life_of_the_engine_does_not_have_it() {
    let speculations = Speculations::new(LONG);
    speculations.insert(tokens(10).message(), &worker("b", 0, 1));
    assert_eq!(answered(&speculations, (&tokens(10)).into(), vec![worker("b", 0, 2)])[0].1, 0);
    assert_eq!(speculations.len(), 0);
}

#[test]
fn an_engine_that_was_never_heard_counts_too() {
    let speculations = Speculations::new(LONG);
    let silent = || v1::WorkerMatch { block_size: 0, ..worker("b", 0, 0) };
    speculations.insert(tokens(10).message(), &silent());
    let ask = |worker| answered(&speculations, (&tokens(10)).into(), vec![worker]).remove(0);
    assert_eq!(ask(silent()), ("b".into(), 10, true));
    assert_eq!(ask(worker("b", 3, 1)), ("b".into(), 10, true), "its first life has begun");
    let larger = v1::WorkerMatch { block_size: 64, ..worker("b", 0, 1) };
    assert_eq!(ask(larger).1, 0, "its blocks are others");
    assert_eq!(speculations.len(), 0);
}

#[test]
fn it_can_be_taken_back_and_ends_by_itself() {
    let speculations = Speculations::new(LONG);
    let routed = speculations.insert(tokens(10).message(), &worker("b", 0, 1));
    speculations.remove(routed);
    assert_eq!(speculations.len(), 0);
    let speculations = Speculations::new(Duration::ZERO);
    speculations.insert(tokens(10).message(), &worker("b", 0, 1));
    assert_eq!(answered(&speculations, (&tokens(10)).into(), vec![worker("b", 0, 1)])[0].1, 0);
    assert_eq!(speculations.len(), 0);
}

#[test]
fn what_is_kept_is_bounded() {
    let speculations = Speculations::new(LONG);
    for _ in 0..MAX_PROMPTS + 10 {
        speculations.insert(tokens(1).message(), &worker("b", 0, 1));
    }
    assert_eq!(speculations.len(), MAX_PROMPTS);
    let long = PromptHashes::sequence("llama", 16, (0..100_000).collect());
    for _ in 0..5 {
        speculations.insert(long.message(), &worker("b", 0, 1));
    }
    assert_eq!((speculations.len(), speculations.kept().blocks), (2, 200_000));
    speculations.insert(tokens(0).message(), &worker("b", 0, 1));
    assert_eq!(speculations.len(), 2, "nothing of it is a block");
}

#[test]
fn hashes_meet_hashes_of_their_kind() {
    let speculations = Speculations::new(LONG);
    let hashes = |count: u64| (1..=count).collect::<Vec<_>>();
    speculations.insert(PromptHashes::sequence("llama", 16, hashes(8)).message(), &worker("b", 0, 1));
    let asked =
        |prompt: PromptHashes| answered(&speculations, (&prompt).into(), vec![worker("b", 0, 1)])[0].1;
    assert_eq!(asked(PromptHashes::sequence("llama", 16, hashes(5))), 5);
    assert_eq!(asked(PromptHashes::engine("llama", 16, hashes(5))), 0);
    assert_eq!(asked(PromptHashes::sequence("llama", 32, hashes(5))), 0, "blocks of another size");
}
