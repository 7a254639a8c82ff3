//! The change feed: complete for a reader that keeps up, honest to one that does not, and never in the way.

use kvindex_proto::v1;
use std::io::{BufRead, BufReader};
use tonic::Streaming;

use crate::api_server::{BLOCK, Server, batch, config, removed, stored, worker};

async fn next(changes: &mut Streaming<v1::WatchEvent>) -> v1::WatchEvent {
    let next = tokio::time::timeout(std::time::Duration::from_secs(5), changes.message());
    next.await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_every_change_in_order() {
    let mut server = Server::start().await;
    let mut changes = server.query.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    server.register("a").await;
    server.push("a", 0, vec![stored(3)]).await;
    server.push("a", 1, vec![removed(&[101, 102])]).await;
    server.ingest.publish(batch("a", 2, 0, vec![])).await.unwrap();
    server.ingest.unregister(v1::UnregisterRequest { worker_id: "a".into() }).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event: &v1::WatchEvent| event.kind != "unregistered") {
        let event = next(&mut changes).await;
        assert_eq!(event.worker_id, "a");
        seen.push(event);
    }
    // The last of its kind: the first batch begins a generation too.
    let position =
        |kind: &str| seen.iter().rposition(|e| e.kind == kind).unwrap_or_else(|| panic!("{kind}: {seen:?}"));
    let order = ["registered", "stored", "removed", "generation", "unregistered"].map(position);
    assert!(order.is_sorted(), "{seen:?}");
    let stored: Vec<u64> =
        seen.iter().filter(|e| e.kind == "stored").flat_map(|e| e.sequence_hashes.clone()).collect();
    let mut removed: Vec<u64> =
        seen.iter().filter(|e| e.kind == "removed").flat_map(|e| e.sequence_hashes.clone()).collect();
    removed.sort_unstable();
    let mut expected = stored[1..].to_vec();
    expected.sort_unstable();
    assert_eq!((stored.len(), removed), (3, expected));
    let first = &seen[order[1]];
    assert_eq!(
        (first.generation, first.seq, first.tier.as_str(), first.block_size),
        (1, Some(0), "device", BLOCK)
    );
    assert!(first.at_ms > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_workers_and_models() {
    let mut server = Server::start().await;
    let by_worker = v1::WatchRequest { worker_ids: vec!["b".into()], model: None };
    let mut by_worker = server.query.watch(by_worker).await.unwrap().into_inner();
    let by_model = v1::WatchRequest { worker_ids: Vec::new(), model: Some("qwen".into()) };
    let mut by_model = server.query.watch(by_model).await.unwrap().into_inner();
    server.register("a").await;
    server.register("b").await;
    server.register_as(v1::RegisterRequest { model: "qwen".into(), ..worker("c") }).await;
    server.push("a", 0, vec![stored(1)]).await;
    server.push("b", 0, vec![stored(1)]).await;
    server.push("c", 0, vec![stored(1)]).await;
    for (changes, worker) in [(&mut by_worker, "b"), (&mut by_model, "c")] {
        while next(changes).await.kind != "stored" {}
        assert_eq!(changes.message().now_or_none(), None, "{worker}");
    }
}

/// What a stream has ready without waiting longer than a moment.
trait NowOrNone {
    fn now_or_none(self) -> Option<String>;
}

impl<F: Future<Output = Result<Option<v1::WatchEvent>, tonic::Status>>> NowOrNone for F {
    fn now_or_none(self) -> Option<String> {
        let wait = tokio::time::timeout(std::time::Duration::from_millis(200), self);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait))
            .ok()
            .map(|event| format!("{event:?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_is_told_what_it_lost_and_holds_up_nobody() {
    let mut server = Server::with(config(|c| c.limits.watch_buffer = 16)).await;
    server.register("a").await;
    let mut changes = server.query.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    // Large enough that transport buffers fill up too.
    for seq in 0..4000 {
        let events =
            if seq % 2 == 0 { vec![stored(64)] } else { vec![removed(&(100..164).collect::<Vec<_>>())] };
        server.push("a", seq, events).await;
    }
    let (mut told, mut dropped) = (0, 0);
    while told + dropped < 4000 {
        let event = next(&mut changes).await;
        if event.kind == "dropped" { dropped += event.count } else { told += 1 }
    }
    assert!(dropped > 0, "nothing was dropped, so nothing was tested");
    assert_eq!(told + dropped, 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_served_as_server_sent_events() {
    let mut server = Server::start().await;
    let url = format!("http://{}/v1/watch?worker_ids=a,b&model=llama", server.running.local_addr());
    let response = tokio::task::spawn_blocking(move || ureq::get(url).call().unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    server.register("a").await;
    server.push("a", 0, vec![stored(2)]).await;
    let stored = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(response.into_body().into_reader()).lines().map(Result::unwrap);
        let mut stored = lines.skip_while(|line| line != "event: stored");
        stored.nth(1).unwrap()
    });
    let stored = tokio::time::timeout(std::time::Duration::from_secs(5), stored).await.unwrap().unwrap();
    let event: v1::WatchEvent = serde_json::from_str(stored.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((event.worker_id.as_str(), event.count, event.sequence_hashes.len()), ("a", 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_end_when_the_server_stops() {
    let mut server = Server::start().await;
    let mut changes = server.query.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let Server { running, query, ingest } = server;
    drop((query, ingest));
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(4), running.shutdown());
    stopped.await.unwrap().unwrap();
    assert!(matches!(changes.message().await, Ok(None) | Err(_)));
}
