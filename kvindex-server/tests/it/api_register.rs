//! Register and unregister: idempotent, never silently different.

use kvindex_proto::v1;
use serde_json::json;
use tonic::Code;

use crate::api_server::{Server, blocks, config, prompt, stored, tokens, worker};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_definition_twice_is_no_error() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(1)]).await;
    let same = v1::RegisterRequest { address: Some("10.0.0.1:8000".into()), ..worker("a") };
    let again = server.ingest.register(same).await.unwrap().into_inner();
    assert_eq!(again.outcome, "unchanged");
    assert_eq!(blocks(&server.find(prompt(tokens(16))).await), [("a", 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_definition_needs_replace_and_the_error_says_what_differs() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(1)]).await;
    let moved = v1::RegisterRequest { address: Some("10.0.0.2:8000".into()), ..worker("a") };
    let status = server.ingest.register(moved.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    for part in ["address", "10.0.0.1:8000", "10.0.0.2:8000"] {
        assert!(status.message().contains(part), "{status}");
    }
    let (code, _) = server.post("/v1/workers", &serde_json::to_value(&moved).unwrap()).await;
    assert_eq!(code, 409);
    let replaced = server.ingest.register(v1::RegisterRequest { replace: true, ..moved }).await.unwrap();
    assert_eq!(replaced.into_inner().outcome, "replaced");
    let answer = server.find(prompt(tokens(16))).await;
    assert_eq!(answer.workers[0].address.as_deref(), Some("10.0.0.2:8000"));
    assert_eq!(blocks(&answer), [("a", 1)], "a new address keeps the blocks");
    let other_engine = v1::RegisterRequest { engine: "sglang".into(), replace: true, ..worker("a") };
    server.ingest.register(other_engine).await.unwrap();
    assert_eq!(
        server.find(prompt(tokens(16))).await.workers.iter().map(|w| w.matched_blocks).sum::<u64>(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unregistering_forgets_and_is_idempotent() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(1)]).await;
    let request = v1::UnregisterRequest { worker_id: "a".into() };
    assert!(server.ingest.unregister(request.clone()).await.unwrap().into_inner().removed);
    assert!(!server.ingest.unregister(request).await.unwrap().into_inner().removed);
    assert!(server.find(prompt(tokens(16))).await.workers.is_empty());
    server.register("a").await;
    assert_eq!(
        server.find(prompt(tokens(16))).await.workers.iter().map(|w| w.matched_blocks).sum::<u64>(),
        0
    );
    assert_eq!(server.http("DELETE", "/v1/workers/a", "").await, (200, r#"{"removed":true}"#.into()));
    assert_eq!(server.http("DELETE", "/v1/workers/a", "").await, (200, r#"{"removed":false}"#.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_definitions_are_refused_by_field() {
    let mut server = Server::start().await;
    let ranks = v1::RegisterRequest {
        endpoint: "tcp://h:5557".into(),
        replay_endpoint: "tcp://h:5558".into(),
        data_parallel_size: 2,
        ..worker("a")
    };
    for (start, request) in [
        ("worker_id: ", v1::RegisterRequest { worker_id: String::new(), ..worker("a") }),
        ("worker_id: ", worker(&"x".repeat(257))),
        ("model: ", v1::RegisterRequest { model: String::new(), ..worker("a") }),
        ("engine: ", v1::RegisterRequest { engine: "tgi".into(), ..worker("a") }),
        ("endpoint: ", v1::RegisterRequest { endpoint: "10.0.0.1:5557".into(), ..worker("a") }),
        ("replay_endpoint: ", ranks),
        (
            "streams[0].endpoint: ",
            v1::RegisterRequest { streams: vec![v1::StreamSource::default()], ..worker("a") },
        ),
    ] {
        let status = server.ingest.register(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(start), "{start}: {status}");
    }
    let (code, body) = server.post("/v1/workers", &json!({"worker_id": "a", "modle": "llama"})).await;
    assert_eq!((code, &body["error"]["field"]), (400, &json!("modle")));
    assert!(
        server
            .query
            .list_workers(v1::ListWorkersRequest::default())
            .await
            .unwrap()
            .into_inner()
            .workers
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_listed_with_their_streams() {
    let definition = kvindex_server::RawWorker {
        worker_id: "static".into(),
        model: "qwen".into(),
        endpoint: "tcp://127.0.0.1:1".into(),
        replay_endpoint: "tcp://127.0.0.1:11".into(),
        data_parallel_size: 2,
        ..kvindex_server::RawWorker::default()
    };
    let definition = definition.check(kvindex_core::GapPolicy::Purge).unwrap();
    let mut server = Server::with(config(|c| c.workers = vec![definition])).await;
    server.register("a").await;
    server.push("a", 0, vec![stored(2)]).await;
    let all =
        server.query.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner().workers;
    assert_eq!(all.iter().map(|w| w.worker_id.as_str()).collect::<Vec<_>>(), ["a", "static"]);
    let pushed = &all[0].streams[0];
    assert_eq!((pushed.endpoint.as_deref(), pushed.blocks), (None, 2));
    assert_eq!(pushed.trust.as_ref().unwrap().state(), v1::TrustState::Live);
    let second = &all[1].streams[1];
    assert_eq!((second.dp_rank, second.endpoint.as_deref()), (1, Some("tcp://127.0.0.1:2")));
    assert_eq!(second.replay_endpoint.as_deref(), Some("tcp://127.0.0.1:12"));
    assert_eq!(second.trust.as_ref().unwrap().state(), v1::TrustState::Pending);
    let (status, text) = server.http("GET", "/v1/workers?model=qwen", "").await;
    let listed: v1::ListWorkersResponse = serde_json::from_str(&text).unwrap();
    assert_eq!((status, listed.workers.len(), listed.workers[0].gap_policy.as_str()), (200, 1, "purge"));
}
