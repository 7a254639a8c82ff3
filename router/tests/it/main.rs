//! The router before real engines of the simulated kind and a real index, over real sockets.
#![allow(clippy::unwrap_used)]

mod ending;
mod told;

use kvindex_router::engine::EngineOptions;
use kvindex_router::stage::{Part, Reply, Stage};
use serde_json::{Value, json};

const ONE_AND_TWO: [Part; 2] = [("one", None, None), ("two", None, None)];

const GROUPS: [Part; 4] = [
    ("p0", Some("prefill"), Some("a")),
    ("d0", Some("decode"), Some("a")),
    ("p1", Some("prefill"), Some("b")),
    ("d1", Some("decode"), Some("b")),
];

/// Some 400 tokens, a byte each.
fn story(name: &str) -> String {
    format!("{name} went out to see the world. ").repeat(12)
}

fn whole_blocks(tokens: &[u32]) -> u64 {
    tokens.len() as u64 / 16 * 16
}

fn cached(usage: &Value) -> u64 {
    usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_back_to_the_engine_that_has_it_and_what_the_index_said_is_what_was_cached() {
    let stage = Stage::start(&ONE_AND_TWO, EngineOptions::default()).await.unwrap();
    let mut workers = Vec::new();
    for name in ["Hans", "Grete", "Else"] {
        let chat = stage.chat(&story(name), false);
        let tokens = stage.tokens(&chat).await.unwrap();
        let first = stage.post("/v1/chat/completions", &chat).await.unwrap();
        assert_eq!(first.status, 200, "{}", first.text());
        let worker = first.header("x-kvindex-worker").to_owned();
        let held = stage.holds(&worker, &tokens, whole_blocks(&tokens)).await.unwrap();
        // Whichever engine's turn it would be, thrice.
        for _ in 0..3 {
            let again = stage.post("/v1/chat/completions", &chat).await.unwrap();
            let body: Value = serde_json::from_str(&again.text()).unwrap();
            assert_eq!(again.header("x-kvindex-worker"), worker, "{name}");
            assert_eq!(again.header("x-kvindex-matched-tokens"), held.to_string());
            assert_eq!(cached(&body["usage"]), held, "the engine's own word");
        }
        workers.push(worker);
    }
    assert!(workers.iter().any(|worker| *worker != workers[0]), "cold prompts are spread: {workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_goes_through_a_pair_of_one_group() {
    let stage = Stage::start(&GROUPS, EngineOptions::default()).await.unwrap();
    let chat = stage.chat(&story("Hans"), true);
    let tokens = stage.tokens(&chat).await.unwrap();
    let first = stage.post("/v1/chat/completions", &chat).await.unwrap();
    assert_eq!(first.status, 200, "{}", first.text());
    let events = first.events().unwrap();
    let words: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(words, (0..8).map(|word| format!("word{word} ")).collect::<String>());
    assert!(first.pieces.len() > 4, "it came in pieces: {:?}", first.pieces);
    let address = |id: &str| stage.engines.iter().find(|(name, _)| *name == id).unwrap().1.address();
    let prefill = first.header("x-openfuyao-prefill-pod-address-port").to_owned();
    let decode = first.header("x-openfuyao-decode-pod-address-port").to_owned();
    let worker = first.header("x-kvindex-worker").to_owned();
    let other = if worker == "p0" { "d0" } else { "d1" };
    assert_eq!((prefill, decode), (address(&worker), address(other)), "one group's");
    // Both engines computed or took over the prompt, and say so to the index.
    let held = stage.holds(&worker, &tokens, whole_blocks(&tokens)).await.unwrap();
    stage.holds(other, &tokens, whole_blocks(&tokens)).await.unwrap();
    let again = stage.post("/v1/chat/completions", &chat).await.unwrap();
    assert_eq!(again.header("x-kvindex-worker"), worker);
    assert_eq!(again.header("x-kvindex-matched-tokens"), held.to_string());
    assert_eq!(cached(&again.events().unwrap().last().unwrap()["usage"]), held);
}

/// A prompt that no rank holds was counted at the first one, whichever the engine took, and went there the next time.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_back_to_the_data_parallel_rank_that_has_it() {
    let options = EngineOptions { ranks: 3, ..EngineOptions::default() };
    let stage = Stage::start(&ONE_AND_TWO[..1], options).await.unwrap();
    for name in ["Hans", "Grete"] {
        let chat = stage.chat(&story(name), false);
        let tokens = stage.tokens(&chat).await.unwrap();
        assert_eq!(stage.post("/v1/chat/completions", &chat).await.unwrap().status, 200);
        let held = stage.holds("one", &tokens, whole_blocks(&tokens)).await.unwrap();
        // An engine that is not told the rank takes one after the other.
        for _ in 0..3 {
            let again = stage.post("/v1/chat/completions", &chat).await.unwrap();
            let body: Value = serde_json::from_str(&again.text()).unwrap();
            assert_eq!(cached(&body["usage"]), held, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_come_together_meet_before_any_engine_has_announced_them() {
    // Some two seconds for the prompt: nothing is announced before all three are routed.
    let options = EngineOptions { prefill: std::time::Duration::from_millis(5), ..EngineOptions::default() };
    let stage = Stage::start(&ONE_AND_TWO, options).await.unwrap();
    let chat = stage.chat(&story("Hans"), false);
    let after = async |milliseconds| {
        tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
        stage.post("/v1/chat/completions", &chat).await.unwrap()
    };
    let (first, second, third) = tokio::join!(after(0), after(250), after(500));
    let told = |reply: &Reply| {
        (reply.header("x-kvindex-worker").to_owned(), reply.header("x-kvindex-matched-tokens") != "0")
    };
    // Waiting for the first one to be computed is no better than computing it again; behind both it is the same.
    let (one, other) = (told(&first), told(&second));
    assert!(!one.1 && !other.1 && one.0 != other.0, "{one:?} {other:?}");
    assert_eq!(told(&third), (one.0, true), "its own choice counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_index_requests_are_served() {
    let mut stage = Stage::start(&ONE_AND_TWO, EngineOptions::default()).await.unwrap();
    stage.stop_index().await.unwrap();
    let mut workers = Vec::new();
    for name in ["Hans", "Grete", "Else", "Ilse"] {
        let reply = stage.post("/v1/chat/completions", &stage.chat(&story(name), true)).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(!reply.header("x-kvindex-unknown").is_empty(), "{:?}", reply.headers);
        assert_eq!(reply.events().unwrap().len(), 9);
        workers.push(reply.header("x-kvindex-worker").to_owned());
    }
    assert!(workers.contains(&"one".to_owned()) && workers.contains(&"two".to_owned()), "{workers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_gone_is_not_the_clients_affair() {
    let mut stage = Stage::start(&ONE_AND_TWO, EngineOptions::default()).await.unwrap();
    let chat = stage.chat(&story("Hans"), false);
    let tokens = stage.tokens(&chat).await.unwrap();
    let first = stage.post("/v1/chat/completions", &chat).await.unwrap();
    let worker = first.header("x-kvindex-worker").to_owned();
    stage.holds(&worker, &tokens, whole_blocks(&tokens)).await.unwrap();
    stage.engines.retain(|(name, _)| *name != worker);
    let again = stage.post("/v1/chat/completions", &chat).await.unwrap();
    assert_eq!(again.status, 200, "{}", again.text());
    assert_ne!(again.header("x-kvindex-worker"), worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_ids_are_prompts_and_wrong_requests_are_told_why() {
    let stage = Stage::start(&ONE_AND_TWO, EngineOptions::default()).await.unwrap();
    let ids: Vec<u32> = (100..164).collect();
    let request = json!({"model": "simulated", "prompt": ids, "max_tokens": 2});
    let reply = stage.post("/v1/completions", &request).await.unwrap();
    let body: Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!((reply.status, body["usage"]["prompt_tokens"].as_u64()), (200, Some(64)), "{body}");
    stage.holds(reply.header("x-kvindex-worker"), &ids, 64).await.unwrap();
    for (request, status, word) in [
        (json!({"prompt": "x"}), 400, "model: is required"),
        (json!({"model": "other", "prompt": "x"}), 503, "no engine serves model"),
        (json!({"model": "simulated"}), 400, "prompt or messages"),
    ] {
        let reply = stage.post("/v1/completions", &request).await.unwrap();
        assert!(reply.status == status && reply.text().contains(word), "{request}: {}", reply.text());
    }
}
