//! Losses, dead and lying replay sockets: what cannot be had is declared lost, and nothing else is touched.

use std::time::Duration;

use kvindex_core::{BatchSeq, Generation};
use kvindex_recording::{Faults, Publisher, PublisherOptions, ReplayFault, SeqRange};
use kvindex_server::ingest::sequencer::Phase;
use kvindex_server::ingest::{Begin, Resume};
use xxhash_rust::xxh3::xxh3_64;

use crate::ingest_rig::{LED, Rig, assert_exact, follow, quick, subscription, truth};

fn with(faults: Faults) -> PublisherOptions {
    PublisherOptions { faults, ..PublisherOptions::default() }
}

/// Plays `basic` with batches 5 to 7 of engine 0 not published and its replay socket at fault; returns what was
/// declared lost there. Engine 1 must not suffer.
fn lost_with(faults: Faults) -> (Vec<u64>, Rig) {
    let (publisher, rig) = follow("basic", with(faults), true);
    publisher.play_all().unwrap();
    let expected = truth(publisher.recording(), 0, publisher.position());
    rig.wait_live(0, expected.len() as u64);
    let view = rig.view(0);
    for (seq, batch) in view.batches.iter().filter(|(_, batch)| batch.is_some()) {
        assert_eq!(Some(batch), expected.get(seq), "batch {seq}");
    }
    let other = truth(publisher.recording(), 1, publisher.position());
    rig.wait_live(1, other.len() as u64);
    assert_eq!(rig.view(1).batches, other);
    (view.lost(), rig)
}

fn dropped_with(fault: ReplayFault) -> (Vec<u64>, Rig) {
    let drop = vec![SeqRange::new(0, 5..=7)];
    lost_with(Faults { drop, replay: [(0, fault)].into(), ..Faults::default() })
}

#[test]
fn a_loss_that_no_replay_fills_is_a_gap() {
    let (lost, rig) = lost_with(Faults { lose: vec![SeqRange::new(0, 5..=7)], ..Faults::default() });
    assert_eq!(lost, [5, 6, 7]);
    assert_eq!((rig.ingest.counters().gaps.get(), rig.ingest.counters().gap_batches.get()), (1, 3));
    assert_eq!(rig.status(0).gaps, 1);
}

#[test]
fn without_a_replay_socket_every_drop_is_a_gap() {
    let faults = Faults { drop: vec![SeqRange::new(0, 5..=7)], ..Faults::default() };
    let (publisher, rig) = follow("basic", with(faults), false);
    publisher.play_all().unwrap();
    rig.wait_live(0, truth(publisher.recording(), 0, publisher.position()).len() as u64);
    assert_eq!(rig.view(0).lost(), [5, 6, 7]);
}

#[test]
fn a_replay_socket_that_answers_garbage_costs_only_what_it_should_have_filled() {
    let (lost, rig) = dropped_with(ReplayFault::Garbage);
    assert_eq!(lost, [5, 6, 7]);
    assert!(rig.ingest.counters().replays_failed.get() > 0);
}

#[test]
fn a_replay_socket_that_never_answers_costs_only_what_it_should_have_filled() {
    let (lost, rig) = dropped_with(ReplayFault::Silent);
    assert_eq!(lost, [5, 6, 7]);
    assert!(rig.ingest.counters().replays_failed.get() > 0);
}

#[test]
fn a_replay_without_end_marker_still_fills_the_gap() {
    let (lost, rig) = dropped_with(ReplayFault::NoEndMarker);
    assert!(lost.is_empty(), "{lost:?}");
    assert!(rig.ingest.counters().replays_failed.get() > 0);
}

#[test]
fn a_replay_that_dies_midway_fills_what_it_brought() {
    // The first replay, at the start, brings nothing and leaves the socket alive.
    let (publisher, rig) =
        follow("basic", with(Faults { drop: vec![SeqRange::new(0, 5..=7)], ..Faults::default() }), true);
    rig.wait("first replay", |rig| rig.status(0).phase == Phase::Live);
    publisher.set_replay_fault(0, ReplayFault::DieMidway(2)).unwrap();
    publisher.play_all().unwrap();
    let expected = truth(publisher.recording(), 0, publisher.position());
    rig.wait_live(0, expected.len() as u64);
    // Two messages came: the last applied batch, which proves the life, and batch 5.
    assert_eq!(rig.view(0).lost(), [6, 7]);
}

#[test]
fn a_lost_tail_is_found_in_the_silence_after_it() {
    let last = truth(&crate::ingest_rig::recording("basic"), 0, usize::MAX).len() as u64 - 1;
    let faults = Faults { drop: vec![SeqRange::new(0, last - 2..=last)], ..Faults::default() };
    let (publisher, rig) = follow("basic", with(faults), true);
    publisher.play_all().unwrap();
    assert_exact(&publisher, &rig);
    assert_eq!(rig.ingest.counters().gaps.get(), 0);
    assert_eq!(publisher.stats().dropped, 3);
}

#[test]
fn a_restart_into_silence_is_found() {
    let (publisher, rig) = follow("basic", PublisherOptions::default(), true);
    publisher.play_until(40).unwrap();
    assert_exact(&publisher, &rig);
    publisher.restart(0).unwrap();
    rig.wait("new generation", |rig| rig.status(0).generation == Generation(1));
    assert_eq!(rig.view(0).batches.len(), 0, "the new life has stored nothing yet");
    rig.wait_live(0, 0);
}

#[test]
fn an_engine_with_a_short_memory_leaves_a_gap_at_the_start() {
    let options = PublisherOptions { buffer_steps: 10, ..PublisherOptions::default() };
    let (publisher, first) = follow("basic", options, true);
    publisher.play_all().unwrap();
    assert_exact(&publisher, &first);
    let late = Rig::start(quick());
    let engine = &publisher.endpoints()[0];
    late.ingest.subscribe(subscription(0, &engine.publish, Some(&engine.replay)), LED).unwrap();
    let expected = truth(publisher.recording(), 0, publisher.position());
    late.wait_live(0, expected.len() as u64);
    assert_eq!((late.view(0).applied(), late.view(0).lost().len()), (10, expected.len() - 10));
}

#[test]
fn a_restored_stream_is_rebuilt_from_the_replay() {
    let (publisher, first) = follow("basic", PublisherOptions::default(), true);
    publisher.play_all().unwrap();
    assert_exact(&publisher, &first);
    let later = Rig::start(quick());
    let engine = &publisher.endpoints()[0];
    // Nothing proves that the engine's life is the index's.
    let resume = Resume { generation: Generation(0), applied: Some(BatchSeq(3)), payload_digest: None };
    let source = subscription(0, &engine.publish, Some(&engine.replay));
    later.ingest.subscribe(source, Begin::Led(Some(resume))).unwrap();
    later.wait("rebuilt", |rig| rig.view(0).generation == 1);
    let expected = truth(publisher.recording(), 0, publisher.position());
    later.wait_live(0, expected.len() as u64);
    assert_eq!(later.view(0).batches, expected);
}

/// A service that begins with what `first` has of engine 0, and the digest of its last batch.
fn restored(first: &Rig, publisher: &Publisher, with_replay: bool) -> Rig {
    let view = first.view(0);
    let last =
        publisher.recording().records.iter().take(publisher.position()).rfind(|r| r.engine == 0).unwrap();
    let resume = Resume {
        generation: Generation(view.generation),
        applied: Some(BatchSeq(last.seq)),
        payload_digest: Some(xxh3_64(&last.payload)),
    };
    let later = Rig::start(quick());
    later.restore(0, view);
    let engine = &publisher.endpoints()[0];
    let source = subscription(0, &engine.publish, with_replay.then_some(engine.replay.as_str()));
    later.ingest.subscribe(source, Begin::Led(Some(resume))).unwrap();
    later.wait("connected", |rig| rig.is_connected(0));
    later
}

#[test]
fn a_restored_stream_goes_on_where_the_engine_still_has_the_last_batch() {
    let (publisher, first) = follow("basic", PublisherOptions::default(), true);
    publisher.play_until(40).unwrap();
    assert_exact(&publisher, &first);
    let later = restored(&first, &publisher, true);
    let known = truth(publisher.recording(), 0, 40).len() as u64;
    later.wait_live(0, known);
    publisher.play_all().unwrap();
    let expected = truth(publisher.recording(), 0, publisher.position());
    later.wait_live(0, expected.len() as u64);
    assert_eq!((later.view(0).generation, later.view(0).batches), (0, expected.clone()));
    assert_eq!(later.ingest.counters().applied.get(), expected.len() as u64 - known, "no batch came twice");
}

#[test]
fn a_restored_stream_goes_on_without_replay_where_the_next_number_follows() {
    let (publisher, first) = follow("basic", PublisherOptions::default(), true);
    publisher.play_until(40).unwrap();
    assert_exact(&publisher, &first);
    let later = restored(&first, &publisher, false);
    assert_eq!(later.status(0).phase, Phase::Pending, "not heard yet");
    // Its subscription must have reached the publisher: without replay what comes earlier is lost.
    std::thread::sleep(Duration::from_millis(300));
    publisher.play_all().unwrap();
    let expected = truth(publisher.recording(), 0, publisher.position());
    later.wait_live(0, expected.len() as u64);
    assert_eq!((later.view(0).generation, later.view(0).batches), (0, expected));
}

#[test]
fn a_restored_stream_whose_engine_started_again_meanwhile_is_rebuilt() {
    let (publisher, first) = follow("basic", PublisherOptions::default(), true);
    publisher.play_until(40).unwrap();
    assert_exact(&publisher, &first);
    publisher.restart(0).unwrap();
    let later = restored(&first, &publisher, true);
    later.wait("rebuilt", |rig| rig.status(0).generation == Generation(1));
    assert_eq!(later.view(0).batches.len(), 0);
}

#[test]
fn an_engine_that_comes_up_later_is_found_and_one_that_leaves_is_seen_to() {
    let (publisher, rig) = follow("basic", PublisherOptions::default(), true);
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    rig.ingest.subscribe(subscription(7, &format!("tcp://127.0.0.1:{port}"), None), LED).unwrap();
    publisher.play_all().unwrap();
    assert_exact(&publisher, &rig);
    let status = rig.status(7);
    assert_eq!((status.phase, status.connected, status.received), (Phase::Pending, false, 0));
    let socket = zmq::Context::new().socket(zmq::PUB).unwrap();
    socket.bind(&format!("tcp://127.0.0.1:{port}")).unwrap();
    rig.wait("connected", |rig| rig.is_connected(7));
    drop(socket);
    rig.wait("disconnected", |rig| !rig.is_connected(7));
}

#[test]
fn unsubscribing_ends_a_stream_and_its_name_is_free_again() {
    let (publisher, rig) = follow("basic", PublisherOptions::default(), true);
    publisher.play_until(20).unwrap();
    let engine = &publisher.endpoints()[0];
    let source = subscription(0, &engine.publish, Some(&engine.replay));
    let again = rig.ingest.subscribe(source.clone(), LED).unwrap_err();
    assert_eq!(again.to_string(), "stream engine-0/dp0 is followed already");
    assert!(rig.ingest.unsubscribe(&source.stream));
    assert!(!rig.ingest.unsubscribe(&source.stream));
    assert_eq!(rig.ingest.status(&source.stream), None);
    let seen = rig.view(0);
    publisher.play_until(40).unwrap();
    rig.wait_live(1, truth(publisher.recording(), 1, 40).len() as u64);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.view(0), seen);
    rig.ingest.shutdown();
    assert_eq!(rig.ingest.subscribe(source, LED).unwrap_err().to_string(), "ingest is shut down");
}
