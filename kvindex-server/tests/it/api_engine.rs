//! A registered engine over real ZeroMQ: its events reach answers, and trust follows its link.

use kvindex_proto::v1;
use std::time::Duration;

use crate::api_server::{Server, prompt, tokens, worker};

/// An engine's publisher on a port of the system's choice.
struct Engine {
    socket: zmq::Socket,
    endpoint: String,
}

impl Engine {
    fn start() -> Self {
        let socket = zmq::Context::new().socket(zmq::PUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        Self { socket, endpoint }
    }

    fn send(&self, seq: u64, payload: &[u8]) {
        self.socket.send_multipart([&b""[..], &seq.to_be_bytes(), payload], 0).unwrap();
    }
}

/// `[1.0, [["BlockStored", [7], nil, [0..16], 16, nil]]]` in MessagePack.
pub(crate) fn one_block() -> Vec<u8> {
    let mut payload = vec![0x92, 0xcb];
    payload.extend_from_slice(&1.0f64.to_be_bytes());
    payload.extend_from_slice(&[0x91, 0x96, 0xab]);
    payload.extend_from_slice(b"BlockStored");
    payload.extend_from_slice(&[0x91, 0x07, 0xc0, 0xdc, 0x00, 0x10]);
    payload.extend(0u8..16);
    payload.extend_from_slice(&[0x10, 0xc0]);
    payload
}

async fn trust(server: &mut Server) -> v1::Trust {
    let listed = server.query.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    listed.workers[0].streams[0].trust.clone().unwrap()
}

async fn until(server: &mut Server, state: v1::TrustState, mut meanwhile: impl FnMut()) {
    for _ in 0..200 {
        if trust(server).await.state() == state {
            return;
        }
        meanwhile();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("not {state:?} after 5 s: {:?}", trust(server).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_answers_and_trust_follows_the_link() {
    let mut server = Server::start().await;
    let engine = Engine::start();
    server.register_as(v1::RegisterRequest { endpoint: engine.endpoint.clone(), ..worker("a") }).await;
    assert_eq!(trust(&mut server).await.state(), v1::TrustState::Pending);
    assert_eq!(server.http("GET", "/readyz", "").await.0, 200, "an engine that says nothing is no reason");
    // Sent again until the subscription has arrived; repeats are ignored.
    until(&mut server, v1::TrustState::Live, || engine.send(0, &one_block())).await;
    let answer = server.find(prompt(tokens(16))).await;
    assert_eq!((answer.workers[0].matched_blocks, answer.workers[0].uncached_tokens), (1, 0));
    assert_eq!(answer.workers[0].trust.as_ref().unwrap().state(), v1::TrustState::Live);
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    assert!(metrics.contains("kvindex_ingest_batches_applied_total 1"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    drop(engine);
    until(&mut server, v1::TrustState::Suspect, || ()).await;
    assert!(trust(&mut server).await.reason.contains("disconnected"));
    assert!(
        server
            .ingest
            .unregister(v1::UnregisterRequest { worker_id: "a".into() })
            .await
            .unwrap()
            .into_inner()
            .removed
    );
    assert!(server.find(prompt(tokens(16))).await.workers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_description_leaves_the_stream_alone() {
    let mut server = Server::start().await;
    let engine = Engine::start();
    let definition = v1::RegisterRequest { endpoint: engine.endpoint.clone(), ..worker("a") };
    server.register_as(definition.clone()).await;
    until(&mut server, v1::TrustState::Live, || engine.send(0, &one_block())).await;
    let moved = v1::RegisterRequest { address: Some("10.0.0.2:8000".into()), replace: true, ..definition };
    assert_eq!(server.ingest.register(moved).await.unwrap().into_inner().outcome, "replaced");
    assert_eq!(trust(&mut server).await.state(), v1::TrustState::Live);
    let answer = server.find(prompt(tokens(16))).await;
    assert_eq!(
        (answer.workers[0].matched_blocks, answer.workers[0].address.as_deref()),
        (1, Some("10.0.0.2:8000"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_engine_is_pending_and_harms_nobody() {
    let mut server = Server::start().await;
    server.register_as(v1::RegisterRequest { endpoint: "tcp://127.0.0.1:1".into(), ..worker("a") }).await;
    server.register("b").await;
    server.push("b", 0, vec![crate::api_server::stored(1)]).await;
    let answer = server.find(prompt(tokens(16))).await;
    let state = |id: &str| {
        answer.workers.iter().find(|w| w.worker_id == id).map(|w| w.trust.clone().unwrap().state())
    };
    assert_eq!(state("b"), Some(v1::TrustState::Live));
    assert!(matches!(state("a"), None | Some(v1::TrustState::Pending)), "{answer:?}");
    assert_eq!(trust(&mut server).await.reason, "not connected to the engine yet");
}

/// Found in review: a stream whose new generation had no batch yet was followed from generation 0 again, and
/// everything it said was stale.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_without_batches_is_not_forgotten_when_followed_anew() {
    let mut server = Server::start().await;
    let engine = Engine::start();
    let definition = v1::RegisterRequest { endpoint: engine.endpoint.clone(), ..worker("a") };
    server.register_as(definition.clone()).await;
    let stream = kvindex_core::StreamId {
        worker: kvindex_core::WorkerId::new("a").unwrap(),
        dp_rank: kvindex_core::DpRank(0),
    };
    let generation = kvindex_core::Generation(3);
    let restarted = {
        let registration = kvindex_core::Registration::default();
        kvindex_core::Command::NewGeneration { stream, generation, at_ms: 1, registration }
    };
    server.running.node().apply(&[restarted]);
    let again = v1::RegisterRequest { gap_policy: "keep_as_suspect".into(), replace: true, ..definition };
    assert_eq!(server.ingest.register(again).await.unwrap().into_inner().outcome, "replaced");
    for _ in 0..200 {
        engine.send(0, &one_block());
        let answer = server.find(prompt(tokens(16))).await;
        if answer.workers.first().is_some_and(|w| w.matched_blocks == 1) {
            assert_eq!(trust(&mut server).await.generation, 3, "it had nothing that could be another life's");
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nothing the engine said arrived: {:?}", trust(&mut server).await);
}
