//! Pushed events: exactly once, in order, and never beside a subscription.

use kvindex_proto::v1;
use serde_json::json;
use tonic::Code;

use crate::api_server::{Server, batch, blocks, prompt, removed, stored, tokens, worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_applied_exactly_once() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(2)]).await;
    server.push("a", 1, vec![stored(2)]).await;
    let again = server.ingest.publish(batch("a", 1, 1, vec![stored(2)])).await.unwrap().into_inner();
    assert_eq!((again.applied_seq, again.duplicate), (1, true));
    // Two copies are held, not three: two removals empty the cache, one does not.
    server.push("a", 2, vec![removed(&[100, 101])]).await;
    assert_eq!(blocks(&server.find(prompt(tokens(32))).await), [("a", 2)]);
    server.push("a", 3, vec![removed(&[100, 101])]).await;
    assert_eq!(blocks(&server.find(prompt(tokens(32))).await), [("a", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_refused_with_the_expected_number() {
    let mut server = Server::start().await;
    server.register("a").await;
    let status = server.ingest.publish(batch("a", 1, 5, vec![])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("expected 0"), "{status}");
    server.push("a", 0, vec![stored(1)]).await;
    let (code, body) =
        server.post("/v1/publish", &json!({"worker_id": "a", "generation": 1, "seq": 2})).await;
    assert_eq!((code, &body["error"]["field"]), (412, &json!("seq")));
    assert!(body["error"]["message"].as_str().unwrap().contains("expected 1"), "{body}");
    let (code, body) =
        server.post("/v1/publish", &json!({"worker_id": "a", "generation": 1, "seq": 1})).await;
    assert_eq!((code, &body["applied_seq"]), (200, &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_drops_the_old_one() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(3)]).await;
    server.ingest.publish(batch("a", 2, 0, vec![stored(1)])).await.unwrap();
    let answer = server.find(prompt(tokens(48))).await;
    assert_eq!(blocks(&answer), [("a", 1)]);
    assert_eq!(answer.workers[0].trust.as_ref().unwrap().generation, 2);
    let status = server.ingest.publish(batch("a", 1, 1, vec![])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("generation: "), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cleared_empties_the_stream() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(3)]).await;
    let cleared = v1::PublishEvent { r#type: "cleared".into(), ..v1::PublishEvent::default() };
    server.push("a", 1, vec![cleared]).await;
    assert_eq!(blocks(&server.find(prompt(tokens(48))).await), [("a", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engines_own_payload_is_taken() {
    let mut server = Server::start().await;
    server.register("a").await;
    let request =
        v1::PublishRequest { payload: crate::api_engine::one_block().into(), ..batch("a", 1, 0, vec![]) };
    server.ingest.publish(request).await.unwrap();
    assert_eq!(blocks(&server.find(prompt(tokens(16))).await), [("a", 1)]);
    let by_engine_hash = v1::Prompt { engine_block_hashes: vec![7], block_size: 16, ..prompt(Vec::new()) };
    assert_eq!(blocks(&server.find(by_engine_hash).await), [("a", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn salt_lora_and_rank_keep_blocks_apart() {
    let mut server = Server::start().await;
    server.register("a").await;
    let salted = v1::PublishEvent { cache_salt: Some("s".into()), ..stored(1) };
    let lora = v1::PublishEvent { lora_name: Some("l".into()), block_hashes: vec![200, 201], ..stored(2) };
    server.push("a", 0, vec![salted, lora]).await;
    let other_rank = v1::PublishRequest { dp_rank: 1, ..batch("a", 1, 0, vec![stored(3)]) };
    server.ingest.publish(other_rank).await.unwrap();
    let with = |salt: Option<&str>, lora: Option<&str>| v1::Prompt {
        cache_salt: salt.map(str::to_owned),
        lora_name: lora.map(str::to_owned),
        ..prompt(tokens(48))
    };
    for (salt, lora, rank_0, rank_1) in [(None, None, 0, 3), (Some("s"), None, 1, 0), (None, Some("l"), 2, 0)]
    {
        let answer = server.find(with(salt, lora)).await;
        let held = |rank| answer.workers.iter().find(|w| w.dp_rank == rank).map_or(0, |w| w.matched_blocks);
        assert_eq!((held(0), held(1)), (rank_0, rank_1), "{salt:?} {lora:?} {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_workers_and_subscribed_streams_are_refused() {
    let mut server = Server::start().await;
    let status = server.ingest.publish(batch("nobody", 1, 0, vec![])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let subscribed = v1::RegisterRequest { endpoint: "tcp://127.0.0.1:1".into(), ..worker("a") };
    server.register_as(subscribed).await;
    let status = server.ingest.publish(batch("a", 1, 0, vec![])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("tcp://127.0.0.1:1"), "{status}");
}
