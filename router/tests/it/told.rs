//! What engines and a group's proxy are told, and by whom; and engines that say nothing at all.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Json, Router};
use kvindex_router::RouterOptions;
use kvindex_router::engine::EngineOptions;
use kvindex_router::stage::Stage;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

use crate::{GROUPS, ONE_AND_TWO, story};

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const PAIR: [&str; 2] = ["x-openfuyao-prefill-pod-address-port", "x-openfuyao-decode-pod-address-port"];

/// What a client says that would choose its engines, or that is about its connection.
const FORGED: [(&str, &str); 8] = [
    ("x-openfuyao-prefill-pod-address-port", "10.0.0.1:1"),
    ("x-openfuyao-decode-pod-address-port", "10.0.0.2:2"),
    ("x-openfuyao-aggregate-pod-address-port", "10.0.0.3:3"),
    ("x-data-parallel-rank", "7"),
    ("connection", "x-of-this-hop, x-openfuyao-decode-pod-address-port"),
    ("x-of-this-hop", "1"),
    ("te", "trailers"),
    ("authorization", "Bearer of-the-engine"),
];

type Told = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// Takes every call, and keeps what it was told.
async fn listens() -> (String, Told) {
    let told = Told::default();
    let keep = async |State(told): State<Told>, head: HeaderMap, Json(body): Json<Value>| {
        told.lock().unwrap().push((head, body));
        Json(json!({"choices": []}))
    };
    let routes = Router::new().fallback(keep).with_state(Arc::clone(&told));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, told)
}

fn ids(stage: &Stage) -> Value {
    let mut request = stage.chat("", false);
    let fields = request.as_object_mut().unwrap();
    fields.remove("messages");
    fields.insert("prompt".into(), (100..164).collect());
    request
}

/// Found by a review: what a client said of pods, ranks and transfers was passed on to the engine.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_choose_engines_or_ranks() {
    let (address, told) = listens().await;
    let stage = Stage::start(&[], EngineOptions::default()).await.unwrap();
    stage.add("listens", &address).await.unwrap();
    let mut request = ids(&stage);
    request["kv_transfer_params"] = json!({"do_remote_prefill": true, "remote_host": "10.0.0.4"});
    request["ec_transfer_params"] = json!({"picture": {"remote_host": "10.0.0.4", "remote_port": 1}});
    request["bootstrap_host"] = json!("10.0.0.4");
    for field in ["bootstrap_port", "bootstrap_room", "bootstrap_pair_key", "data_parallel_rank"] {
        request[field] = json!(1);
    }
    let reply = stage.post_with("/v1/completions", &FORGED, &request).await.unwrap();
    assert_eq!((reply.status, reply.header("x-kvindex-worker")), (200, "listens"));
    let told = told.lock().unwrap();
    let [(head, body)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*body, ids(&stage), "as it came, without them");
    for (name, value) in FORGED {
        let passed = head.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(passed, (name == "authorization").then_some(value), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_proxy_is_told_the_pair_that_the_router_chose() {
    let (address, told) = listens().await;
    let how = RouterOptions { proxy: Some(address), ..RouterOptions::default() };
    let stage = Stage::with_router(&GROUPS, EngineOptions::default(), how).await.unwrap();
    let reply =
        stage.post_with("/v1/chat/completions", &FORGED, &stage.chat(&story("Hans"), false)).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let address = |id: &str| stage.engines.iter().find(|(name, _)| *name == id).unwrap().1.address();
    let group = if reply.header("x-kvindex-worker") == "p0" { ["p0", "d0"] } else { ["p1", "d1"] };
    let told = told.lock().unwrap();
    let [(head, _)] = told.as_slice() else { panic!("{told:?}") };
    for (name, id) in PAIR.into_iter().zip(group) {
        let values: Vec<&str> = head.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, [address(id)], "{name}");
        assert_eq!(reply.header(name), address(id));
    }
    assert!(head.get("x-data-parallel-rank").is_none(), "{head:?}");
}

/// The address of an engine that takes connections and says nothing, until the task ends.
async fn hangs() -> (String, tokio::task::JoinHandle<()>) {
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hung.local_addr().unwrap().to_string();
    let held = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = hung.accept().await {
            connections.push(connection);
        }
    });
    (address, held)
}

/// Found by a review: a request that takes longer than was said was computed at three engines, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_engine_that_takes_too_long_only_one_more_is_asked() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let (one, other) = (hangs().await, hangs().await);
    let how = RouterOptions { answer_timeout: TIMEOUT, ..RouterOptions::default() };
    let stage = Stage::with_router(&ONE_AND_TWO[..1], EngineOptions::default(), how).await.unwrap();
    // Before the third in the list, and so asked before it.
    stage.add("hangs", &one.0).await.unwrap();
    stage.add("hangs-too", &other.0).await.unwrap();
    let request = ids(&stage);
    let post = stage.post("/v1/completions", &request);
    let reply = tokio::time::timeout(SOON, post).await.unwrap().unwrap();
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.text().contains("gave no answer within 1 s"), "{}", reply.text());
    drop((one, other));
}

/// Found by a review: nothing bounded how long an engine was waited for that takes connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_waited_for_no_longer_than_was_said() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (address, held) = hangs().await;
    let how = RouterOptions { answer_timeout: TIMEOUT, ..RouterOptions::default() };
    let stage = Stage::with_router(&ONE_AND_TWO[..1], EngineOptions::default(), how).await.unwrap();
    // Before the other in the list, and so the first that is asked.
    stage.add("hangs", &address).await.unwrap();
    let post = async |path, body| tokio::time::timeout(SOON, stage.post(path, &body)).await.unwrap().unwrap();
    let first = post("/v1/completions", ids(&stage)).await;
    assert_eq!((first.status, first.header("x-kvindex-worker")), (200, "one"), "{}", first.text());
    let took = first.pieces.first().unwrap().0;
    assert!(took >= TIMEOUT, "the one that hangs was asked first: {took:?}");
    // It is left out for a while; then it is asked for token ids, and not waited for either.
    for pause in [Duration::ZERO, TIMEOUT] {
        tokio::time::sleep(pause).await;
        let chat = post("/v1/chat/completions", stage.chat(&story("Hans"), false)).await;
        assert_eq!((chat.status, chat.header("x-kvindex-worker")), (200, "one"), "{}", chat.text());
    }
    held.abort();
}
