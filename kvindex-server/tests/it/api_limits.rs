//! Every limit: at it works, over it fails, and the error names it.

use kvindex_proto::v1;
use kvindex_server::config::Config;
use serde_json::json;
use tonic::Code;

use crate::api_server::{Server, batch, config, prompt, stored, tokens, worker};

async fn with(change: impl FnOnce(&mut Config)) -> Server {
    Server::with(config(change)).await
}

fn question(prompt: v1::Prompt) -> v1::MatchRequest {
    v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() }
}

#[track_caller]
fn is_over(status: &tonic::Status, limit: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains(limit), "{limit} not in {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_length() {
    let mut server = with(|c| c.limits.prompt_tokens = 100).await;
    let packed = |count: usize| v1::Prompt { token_ids_le: vec![0; count * 4].into(), ..prompt(Vec::new()) };
    let hashes = |count| v1::Prompt { sequence_hashes: vec![1; count], block_size: 50, ..prompt(Vec::new()) };
    for at in [prompt(tokens(100)), packed(100), hashes(2)] {
        server.query.r#match(question(at)).await.unwrap();
    }
    for over in [prompt(tokens(101)), packed(101), hashes(3)] {
        let status = server.query.r#match(question(over.clone())).await.unwrap_err();
        is_over(&status, "the limit is 100");
        let (code, body) = server.post("/v1/match", &serde_json::to_value(question(over)).unwrap()).await;
        assert_eq!((code, &body["error"]["code"]), (413, &json!("resource_exhausted")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_million_tokens_meet_the_default_limit() {
    let mut server = with(|_| {}).await;
    let long = v1::Prompt { token_ids_le: vec![0; 40_000_000].into(), ..prompt(Vec::new()) };
    let status = server.query.r#match(question(long)).await.unwrap_err();
    is_over(&status, "10000000 tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn body_size() {
    let mut server = with(|c| c.limits.body_bytes = 4096).await;
    let fitting = v1::Prompt { token_ids_le: vec![0; 4000].into(), ..prompt(Vec::new()) };
    server.query.r#match(question(fitting)).await.unwrap();
    let over = v1::Prompt { token_ids_le: vec![0; 8000].into(), ..prompt(Vec::new()) };
    let status = server.query.r#match(question(over.clone())).await.unwrap_err();
    is_over(&status, "4096");
    let one = v1::MatchStreamRequest { id: 1, request: Some(question(over)) };
    let mut answers = server.query.match_stream(tokio_stream::iter(vec![one])).await.unwrap().into_inner();
    is_over(&answers.message().await.unwrap_err(), "4096");
    let (status, answer) = server.http("POST", "/v1/match", " ".repeat(5000)).await;
    assert!(status == 413 && answer.contains("4096"), "{status} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_size() {
    let mut server = with(|c| c.limits.batch = 2).await;
    let ask = |count| v1::MatchBatchRequest { requests: vec![question(prompt(tokens(1))); count] };
    server.query.match_batch(ask(2)).await.unwrap();
    is_over(&server.query.match_batch(ask(3)).await.unwrap_err(), "the limit is 2");
}

/// Counted before they are decoded: an empty one is two bytes on the wire and some hundred in memory.
#[tokio::test(flavor = "multi_thread")]
async fn empty_parts() {
    let mut server = with(|c| (c.limits.body_bytes, c.limits.batch) = (1 << 20, 2)).await;
    let requests = vec![v1::MatchRequest::default(); 3];
    let status = server.query.match_batch(v1::MatchBatchRequest { requests }).await.unwrap_err();
    is_over(&status, "more than 2 of them, the limit is 2 (max_batch)");
    let batch = |count| v1::PublishRequest {
        worker_id: "a".into(),
        generation: 1,
        events: vec![v1::PublishEvent::default(); count],
        ..v1::PublishRequest::default()
    };
    let status = server.ingest.publish(batch(2)).await.unwrap_err();
    assert!(status.message().starts_with("events[0].type"), "{status}");
    let status = server.ingest.publish(batch(20_000)).await.unwrap_err();
    is_over(&status, "when decoded, which is the limit (max_body_bytes)");
    for (path, list) in
        [("/v1/match_batch", "requests"), ("/v1/publish", "events"), ("/v1/workers", "streams")]
    {
        let body = format!("{{\"{list}\":[{}{{}}]}}", "{},".repeat(20_000));
        let (code, answer) = server.http("POST", path, body).await;
        assert!(code == 413 && answer.contains("when decoded"), "{code} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_a_prompt_or_events() {
    let mut server = with(|_| {}).await;
    let long = v1::RegisterRequest { address: Some("x".repeat(1 << 20)), ..worker("a") };
    is_over(&server.ingest.register(long.clone()).await.unwrap_err(), "the limit is 1048576");
    let (code, answer) = server.post("/v1/workers", &serde_json::to_value(&long).unwrap()).await;
    assert_eq!(code, 413, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_adapters_and_salts() {
    let mut server = with(|_| {}).await;
    server.register("a").await;
    for (field, limit) in [("lora_name", 256), ("cache_salt", 4096)] {
        let name = |len: usize, wanted: &str| (field == wanted).then(|| "n".repeat(len));
        for (len, fits) in [(limit, true), (limit + 1, false)] {
            let (lora_name, cache_salt) = (name(len, "lora_name"), name(len, "cache_salt"));
            let event = v1::PublishEvent {
                lora_name: lora_name.clone(),
                cache_salt: cache_salt.clone(),
                ..stored(1)
            };
            let asked = v1::Prompt { lora_name, cache_salt, ..prompt(tokens(1)) };
            let found = server.query.r#match(question(asked)).await;
            let seq = u64::from(field == "cache_salt");
            let published = server.ingest.publish(batch("a", 1, seq, vec![event])).await;
            if fits {
                found.unwrap();
                published.unwrap();
            } else {
                is_over(&found.unwrap_err(), &format!("prompt.{field}: {len} bytes, the limit is {limit}"));
                is_over(&published.unwrap_err(), &format!("events[0].{field}: {len} bytes"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_and_labels() {
    let mut server = with(|c| c.limits.candidates = 2).await;
    let ask = |count: usize| v1::MatchRequest {
        candidates: vec!["a".into(); count],
        ..question(prompt(tokens(1)))
    };
    server.query.r#match(ask(2)).await.unwrap();
    is_over(&server.query.r#match(ask(3)).await.unwrap_err(), "the limit is 2");
    let labels = (0..3).map(|i| (i.to_string(), String::new())).collect();
    let over = v1::MatchRequest { labels, ..question(prompt(tokens(1))) };
    is_over(&server.query.r#match(over).await.unwrap_err(), "the limit is 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams() {
    let mut server = with(|c| c.limits.streams = 1).await;
    let first = server.query.watch(v1::WatchRequest::default()).await.unwrap();
    let status = server.query.watch(v1::WatchRequest::default()).await.unwrap_err();
    is_over(&status, "the limit is 1");
    let status = server.query.match_stream(tokio_stream::pending()).await.unwrap_err();
    is_over(&status, "the limit is 1");
    assert_eq!(server.http("GET", "/v1/watch", "").await.0, 429);
    drop(first);
    // The place is free again once the server has noticed.
    for attempt in 0.. {
        match server.query.watch(v1::WatchRequest::default()).await {
            Ok(_) => return,
            Err(status) => assert!(attempt < 100, "{status}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_workers() {
    let mut server = with(|c| c.limits.workers = 1).await;
    server.register_as(worker("a")).await;
    is_over(&server.ingest.register(worker("b")).await.unwrap_err(), "1 workers");
    let replaced = v1::RegisterRequest { replace: true, role: Some("prefill".into()), ..worker("a") };
    server.ingest.register(replaced).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn index_bytes() {
    let mut server = with(|c| (c.limits.index_bytes, c.index.journal_removals) = (500_000, 0)).await;
    server.register("a").await;
    for seq in 0..60 {
        let mut block = stored(1);
        let blocks = 1000;
        block.token_ids = (0..blocks * block.block_size).map(|i| seq as u32 * 100_000 + i).collect();
        block.block_hashes = (0..u64::from(blocks)).map(|i| seq * 100_000 + i + 1).collect();
        server.ingest.publish(batch("a", 1, seq, vec![block])).await.unwrap();
    }
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    let value = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (bytes, entries) = (value("kvindex_index_bytes "), value("kvindex_index_entries "));
    assert!(bytes < 600_000 && entries > 10_000, "{bytes} bytes, {entries} entries");
    let evicted = value("kvindex_index_effects_total{effect=\"evicted\"}");
    assert_eq!(evicted + entries, 60_000, "what is not held was evicted");
    assert!(value("kvindex_index_tenant_bytes{tenant=\"default\"}") > bytes / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn index_entries() {
    let mut server = with(|c| c.index.max_entries = 2).await;
    server.register("a").await;
    let answer = server.ingest.publish(batch("a", 1, 0, vec![stored(3)])).await.unwrap();
    assert_eq!(answer.into_inner().applied_seq, 0);
    let found = server.find(prompt(tokens(48))).await;
    assert!(found.workers[0].matched_blocks <= 2, "{found:?}");
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    assert!(metrics.contains("kvindex_index_effects_total{effect=\"refused\"}"), "{metrics}");
}
