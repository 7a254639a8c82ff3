//! Long-lived calls: what they tell whom, and that they end with what they rest on.

use kvindex_proto::v1;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::rig::{ALL, Guarded, Way, query, token};

fn tokens() -> String {
    [
        token("root", ALL, "*", ""),
        token("a", ALL, "a", ""),
        token("b", ALL, "b", ""),
        token("both", "read", "a b", ""),
    ]
    .concat()
}

async fn register(node: &Guarded, token: &str, worker: &str) {
    let request = json!({"worker_id": worker, "model": "llama"});
    node.call(Way::Grpc, token, "register", request).await.unwrap();
}

async fn publish(node: &Guarded, token: &str, worker: &str, seq: u64) {
    let event =
        json!({"type": "stored", "block_hashes": [seq + 1], "token_ids": [seq, 1, 2, 3], "block_size": 4});
    let request = json!({"worker_id": worker, "generation": 1, "seq": seq, "events": [event]});
    node.call(Way::Grpc, token, "publish", request).await.unwrap();
}

async fn watch(node: &Guarded, token: &str, request: v1::WatchRequest) -> Streaming<v1::WatchEvent> {
    query(node.channel().await, token).watch(request).await.unwrap().into_inner()
}

/// What a watcher hears until nothing comes any more.
async fn heard(changes: &mut Streaming<v1::WatchEvent>) -> Vec<(String, String)> {
    let mut heard = Vec::new();
    while let Ok(event) = timeout(Duration::from_millis(500), changes.message()).await {
        let event = event.unwrap().unwrap();
        heard.push((event.kind, event.worker_id));
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_of_its_tenants_only() {
    let node = Guarded::start(&tokens()).await;
    let asked_for = v1::WatchRequest { worker_ids: vec!["b/w".into(), "a/w".into()], model: None };
    let mut of_a = watch(&node, "a", v1::WatchRequest::default()).await;
    let mut of_a_asking = watch(&node, "a", asked_for).await;
    let mut of_both = watch(&node, "both", v1::WatchRequest::default()).await;
    let mut of_all = watch(&node, "root", v1::WatchRequest::default()).await;
    for (token, worker) in [("b", "b/w"), ("a", "a/w"), ("root", "default")] {
        register(&node, token, worker).await;
        publish(&node, token, worker, 0).await;
    }
    node.call(Way::Grpc, "b", "unregister", json!({"worker_id": "b/w"})).await.unwrap();
    node.call(Way::Grpc, "a", "unregister", json!({"worker_id": "a/w"})).await.unwrap();
    let of = |worker: &str, heard: &[(String, String)]| heard.iter().filter(|(_, id)| id == worker).count();
    let (a, asking) = (heard(&mut of_a).await, heard(&mut of_a_asking).await);
    assert!(a.iter().all(|(_, worker)| worker == "a/w") && a == asking, "{a:?} {asking:?}");
    let kinds: Vec<&str> = a.iter().map(|(kind, _)| kind.as_str()).collect();
    assert!(
        kinds.contains(&"registered") && kinds.contains(&"stored") && kinds.contains(&"unregistered"),
        "{a:?}"
    );
    let (both, all) = (heard(&mut of_both).await, heard(&mut of_all).await);
    assert_eq!((of("a/w", &both), of("b/w", &both), of("default", &both)), (a.len(), a.len(), 0), "{both:?}");
    assert!(of("a/w", &all) == a.len() && of("b/w", &all) == a.len() && of("default", &all) > 0, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_watcher_loses_does_not_depend_on_another_tenant() {
    let node = Guarded::with(&tokens(), |config| config.limits.watch_buffer = 16).await;
    register(&node, "a", "a/w").await;
    register(&node, "b", "b/w").await;
    let mut of_a = watch(&node, "a", v1::WatchRequest::default()).await;
    let mut of_b = watch(&node, "b", v1::WatchRequest::default()).await;
    // In one call, so that the watchers' tasks get no turn in between: far more than their queues hold.
    let event = |i: u64| json!({"type": "stored", "block_hashes": [i + 1], "token_ids": [i, 1, 2, 3], "block_size": 4});
    let events: Vec<Value> = (0..20_000).map(event).collect();
    let batch = json!({"worker_id": "b/w", "generation": 1, "seq": 0, "events": events});
    node.call(Way::Grpc, "b", "publish", batch).await.unwrap();
    publish(&node, "a", "a/w", 0).await;
    let b = heard(&mut of_b).await;
    assert!(b.iter().any(|(kind, _)| kind == "dropped"), "b's own watcher loses some");
    let a = heard(&mut of_a).await;
    assert!(a.iter().all(|(kind, worker)| kind != "dropped" && worker == "a/w") && !a.is_empty(), "{a:?}");
}

fn streamed(id: u64, tenant: &str) -> v1::MatchStreamRequest {
    let prompt = v1::Prompt {
        model: "llama".into(),
        tenant: tenant.into(),
        token_ids: vec![0, 1, 2, 3],
        ..v1::Prompt::default()
    };
    let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
    v1::MatchStreamRequest { id, request: Some(request) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_stream_answers_of_its_tenants_only_and_goes_on() {
    let node = Guarded::start(&tokens()).await;
    for (token, worker) in [("a", "a/w"), ("b", "b/w")] {
        register(&node, token, worker).await;
        publish(&node, token, worker, 0).await;
    }
    let questions = vec![streamed(1, ""), streamed(2, "b"), streamed(3, "a"), streamed(4, "no-such")];
    let mut client = query(node.channel().await, "a");
    let mut answers = client.match_stream(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let workers = answer.response.map(|response| response.workers.len());
        seen.push((answer.id, workers, answer.error.map(|error| error.code)));
    }
    let denied = Some("permission_denied".to_owned());
    assert_eq!(seen, [(1, Some(1), None), (2, None, denied.clone()), (3, Some(1), None), (4, None, denied)]);
    let mut publisher = query(node.channel().await, "");
    let status = publisher.match_stream(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_their_token_goes_and_stay_when_another_does() {
    let node = Guarded::start(&tokens()).await;
    let mut of_a = watch(&node, "a", v1::WatchRequest::default()).await;
    let mut of_b = watch(&node, "b", v1::WatchRequest::default()).await;
    let mut client = query(node.channel().await, "a");
    let mut answers = client.match_stream(tokio_stream::pending()).await.unwrap().into_inner();
    node.file.write(&[token("root", ALL, "*", ""), token("b", ALL, "b", "")].concat());
    let soon = Duration::from_secs(10);
    let ended = timeout(soon, of_a.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    let ended = timeout(soon, answers.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    register(&node, "b", "b/w").await;
    let event = timeout(soon, of_b.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.kind, "registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires_or_loses_the_right() {
    let soon = jiff::Timestamp::now() + Duration::from_secs(2);
    let expires = format!("expires = \"{soon}\"");
    let file = [token("root", ALL, "*", ""), token("brief", "read", "a", &expires)].concat();
    let node = Guarded::start(&file).await;
    let mut brief = watch(&node, "brief", v1::WatchRequest::default()).await;
    let mut of_root = watch(&node, "root", v1::WatchRequest::default()).await;
    let ended = timeout(Duration::from_secs(10), brief.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    node.file.write(&token("root", "admin", "*", ""));
    let ended = timeout(Duration::from_secs(10), of_root.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_ends_with_its_token() {
    let node = Guarded::with(&tokens(), |config| config.limits.streams = 1).await;
    let url = format!("http://{}", node.server.running.local_addr());
    // So that few answers fill it.
    let narrow = Channel::from_shared(url).unwrap().initial_stream_window_size(1024);
    let mut client = query(narrow.connect().await.unwrap(), "a");
    let questions = tokio_stream::iter((0..).map(|id| streamed(id, "a")));
    let unread = client.match_stream(questions).await.unwrap().into_inner();
    let open = async || query(node.channel().await, "b").watch(v1::WatchRequest::default()).await;
    // Until its answers have nowhere to go any more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(open().await.unwrap_err().code(), Code::ResourceExhausted);
    node.file.write(&[token("root", ALL, "*", ""), token("b", ALL, "b", "")].concat());
    let freed = timeout(Duration::from_secs(10), async {
        while open().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    freed.await.expect("the place is free again");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_watchers_hear_of_their_tenants_only() {
    use std::io::{BufRead, BufReader};
    let node = Guarded::start(&tokens()).await;
    let url = format!("http://{}/v1/watch", node.server.running.local_addr());
    let lines = tokio::task::spawn_blocking(move || {
        let response = ureq::get(url).header("authorization", "Bearer a").call().unwrap();
        BufReader::new(response.into_body().into_reader()).lines()
    });
    let mut lines = lines.await.unwrap();
    register(&node, "b", "b/w").await;
    register(&node, "a", "a/w").await;
    let first = tokio::task::spawn_blocking(move || {
        lines.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned)).unwrap()
    });
    let first = timeout(Duration::from_secs(10), first).await.unwrap().unwrap();
    assert!(first.contains("\"a/w\"") && !first.contains("b/w"), "{first}");
}
