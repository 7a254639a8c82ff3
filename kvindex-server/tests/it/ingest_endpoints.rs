//! Endpoints that kvindex binds for engines that connect: followed like any other, and each mistake in the wiring
//! is seen.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use kvindex_proto::v1;
use kvindex_recording::{Publisher, PublisherOptions};
use kvindex_server::ingest::sequencer::Phase;
use kvindex_server::node::RegisterError;
use kvindex_server::trust::TrustState;

use crate::api_server::{Server, worker as api_worker};
use crate::ingest_answers::register_ranks;
use crate::ingest_node::{Follower, checkpoints, free_ports, worker};
use crate::ingest_rig::{LED, Rig, quick, recording, subscription};

/// `bind+tcp://` and `tcp://` of a free port on loopback.
fn free() -> (String, String) {
    let address = format!("tcp://127.0.0.1:{}", free_ports(1));
    (format!("bind+{address}"), address)
}

/// A rig whose stream 0 waits at an endpoint, and that endpoint for publishers.
fn bound() -> (Rig, String) {
    let (ours, theirs) = free();
    let rig = Rig::start(quick());
    rig.ingest.subscribe(subscription(0, &ours, None), LED).unwrap();
    (rig, theirs)
}

/// A publisher that connects.
fn engine(endpoint: &str) -> zmq::Socket {
    let socket = zmq::Context::new().socket(zmq::PUB).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(endpoint).unwrap();
    socket
}

fn options(publish_to: &[String]) -> PublisherOptions {
    let publish_to = (0..).zip(publish_to.iter().cloned()).collect();
    PublisherOptions { publish_to, down: Duration::from_millis(100), ..PublisherOptions::default() }
}

#[test]
fn engines_that_connect_to_us_are_exact_at_every_checkpoint_also_across_their_restarts() {
    let bound = [free(), free()];
    let publish_to = bound.clone().map(|(_, theirs)| theirs);
    let publisher = Publisher::start(recording("restart"), options(&publish_to)).unwrap();
    let follower = Follower::start(&publisher.recording().header);
    for (engine, (ours, _)) in publisher.endpoints().iter().zip(&bound) {
        follower.register(worker(&engine.name, ours, &engine.replay)).unwrap();
    }
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    for checkpoint in checkpoints("restart") {
        publisher.play_until(checkpoint.pos).unwrap();
        follower.assert_exact(&checkpoint);
    }
    publisher.stop().unwrap();
    follower.wait("gone", |f| f.trust(0).reason.contains("disconnected"));
    assert_eq!(follower.trust(0).state, TrustState::Suspect);
}

#[test]
fn dp_ranks_that_connect_to_consecutive_ports_are_exact() {
    let (first, replay) = (free_ports(3), free_ports(3));
    let to: Vec<_> = (first..first + 3).map(|port| format!("tcp://127.0.0.1:{port}")).collect();
    let ports = PublisherOptions { replay_port: Some(replay), ..options(&to) };
    let publisher = Publisher::start(recording("dp"), ports).unwrap();
    let mut follower = Follower::start(&publisher.recording().header);
    register_ranks(&mut follower, format!("bind+tcp://127.0.0.1:{first}"), replay);
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    publisher.play_all().unwrap();
    follower.assert_exact(checkpoints("dp").last().unwrap());
}

#[test]
fn the_engine_may_come_later_and_again() {
    let (rig, endpoint) = bound();
    let status = rig.status(0);
    assert_eq!((status.phase, status.binds, status.connected), (Phase::Pending, true, false));
    for _ in 0..2 {
        let socket = engine(&endpoint);
        rig.wait("connected", |rig| rig.is_connected(0));
        assert_eq!(rig.status(0).publishers, 1);
        drop(socket);
        rig.wait("gone", |rig| !rig.is_connected(0));
    }
}

#[test]
fn several_engines_at_one_endpoint_are_seen_and_counted() {
    let (ours, theirs) = free();
    let publisher = Publisher::start(recording("dup"), options(std::slice::from_ref(&theirs))).unwrap();
    let follower = Follower::start(&publisher.recording().header);
    follower.register(worker("dup", &ours, &publisher.endpoints()[0].replay)).unwrap();
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    publisher.play_until(20).unwrap();
    let checkpoints = checkpoints("dup");
    follower.assert_exact(checkpoints.iter().find(|checkpoint| checkpoint.pos == 20).unwrap());

    // Another engine comes by mistake, and its numbers start from 0.
    let other = engine(&theirs);
    follower.wait("seen", |f| f.trust(0).state == TrustState::Suspect);
    assert!(follower.trust(0).reason.contains("several engines"), "{:?}", follower.trust(0));
    let generation = follower.trust(0).generation;
    follower.wait("its numbers mix with ours", |f| {
        let batch: &[&[u8]] = &[b"", &0u64.to_be_bytes(), &[0x92, 0, 0x90]];
        other.send_multipart(batch, 0).unwrap();
        f.trust(0).generation > generation
    });

    // It leaves, and what it did is undone with what the right one has to replay.
    drop(other);
    publisher.play_all().unwrap();
    follower.assert_exact(checkpoints.last().unwrap());
}

#[test]
fn strangers_at_a_bound_endpoint_are_no_engines_and_take_none_away() {
    let (rig, endpoint) = bound();
    let address = endpoint.strip_prefix("tcp://").unwrap().to_owned();
    let strangers = || {
        drop(TcpStream::connect(&address).unwrap());
        TcpStream::connect(&address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let wrong_kind = zmq::Context::new().socket(zmq::PUSH).unwrap();
        wrong_kind.connect(&endpoint).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        drop(wrong_kind);
        std::thread::sleep(Duration::from_millis(200));
    };
    strangers();
    assert_eq!(rig.status(0).publishers, 0);
    let silent = TcpStream::connect(&address).unwrap();
    let socket = engine(&endpoint);
    rig.wait("connected", |rig| rig.is_connected(0));
    strangers();
    assert_eq!(rig.status(0).publishers, 1);
    assert_eq!(rig.ingest.counters().extra_publishers.get(), 0);
    drop(silent);
    rig.wait("heard in spite of them", |rig| {
        socket.send_multipart([&b""[..], &0u64.to_be_bytes(), &[0x92, 0, 0x90]], 0).unwrap();
        rig.view(0).next() == 1
    });
    drop(socket);
    rig.wait("gone", |rig| !rig.is_connected(0));
}

#[test]
fn a_taken_address_is_refused_by_field_and_free_again_at_once() {
    let follower = Follower::start(&recording("dup").header);
    let (ours, theirs) = free();
    follower.register(worker("a", &ours, "")).unwrap();
    let refused = follower.register(worker("b", &ours, "")).unwrap_err();
    let RegisterError::NotFollowed { field, message } = &refused else { panic!("{refused:?}") };
    assert_eq!(*field, "endpoint");
    assert!(message.contains(&ours) && message.contains("the address is in use"), "{message}");
    let known: Vec<_> = follower.node.known_workers().into_iter().map(|w| w.definition.spec.id).collect();
    assert_eq!(known.len(), 1, "the refused one is not half known");
    // Registering the holder anew, or another in its place, finds the port free.
    for round in 0..20 {
        let gap_policy = if round % 2 == 0 { "keep_as_suspect" } else { "purge" };
        let again = kvindex_server::RawWorker { gap_policy: gap_policy.into(), ..worker("a", &ours, "") };
        follower.register(again).unwrap();
    }
    assert!(follower.node.unregister(&known[0]));
    follower.register(worker("b", &ours, "")).unwrap();
    drop(follower);
    zmq::Context::new().socket(zmq::SUB).unwrap().bind(&theirs).unwrap();
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let follower = Follower::start(&recording("dup").header);
    // TEST-NET-1: nobody's (RFC 5737).
    let refused = follower.register(worker("a", "bind+tcp://192.0.2.1:5557", "")).unwrap_err().to_string();
    assert!(refused.contains("cannot bind") && refused.contains("no such address"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_in_use_is_a_bad_argument_of_the_register_call() {
    let mut server = Server::start().await;
    let (ours, _) = free();
    let definition = |id: &str| v1::RegisterRequest { endpoint: ours.clone(), ..api_worker(id) };
    server.register_as(definition("a")).await;
    let body = serde_json::json!({"worker_id": "b", "model": "llama", "endpoint": ours});
    let (status, answer) = server.post("/v1/workers", &body).await;
    assert_eq!((status, &answer["error"]["field"]), (400, &serde_json::json!("endpoint")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("address is in use"), "{answer}");
    let listed = server.query.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    let trust = listed.workers[0].streams[0].trust.clone().unwrap();
    assert_eq!(trust.state(), v1::TrustState::Pending);
    assert!(trust.reason.contains("has not connected to the endpoint that kvindex binds"), "{trust:?}");
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    for name in ["extra_publishers", "batches_of_another_rank"] {
        assert!(metrics.contains(&format!("kvindex_ingest_{name}_total 0")), "{name}: {metrics}");
    }
}
