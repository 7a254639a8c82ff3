//! Broken frames and endpoints: counted or refused, and what is good around them goes through.

use kvindex_core::{Change, EngineBlockHash, GapPolicy};
use kvindex_server::ingest::IngestError;

use crate::ingest_rig::{LED, Rig, quick, sealed, subscription};

/// A batch with one removed block, `[0, [["BlockRemoved", [hash]]]]`.
fn removed(hash: u8) -> Vec<u8> {
    [&[0x92, 0, 0x91, 0x92, 0xac][..], b"BlockRemoved", &[0x91, hash]].concat()
}

struct RawEngine(zmq::Socket);

impl RawEngine {
    fn bind() -> (Self, String) {
        let socket = zmq::Context::new().socket(zmq::PUB).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        (Self(socket), endpoint)
    }

    fn send(&self, frames: &[&[u8]]) {
        self.0.send_multipart(frames, 0).unwrap();
    }

    fn batch(&self, seq: u64, payload: &[u8]) {
        self.send(&[b"kv", &seq.to_be_bytes(), payload]);
    }
}

/// A connected raw engine without replay; PUB drops what is sent before the subscription has arrived, so
/// batch 0 is repeated until it is through.
fn followed() -> (RawEngine, Rig) {
    let (engine, endpoint) = RawEngine::bind();
    let rig = Rig::start(quick());
    rig.ingest.subscribe(subscription(0, &endpoint, None), LED).unwrap();
    rig.wait("first batch", |rig| {
        engine.batch(0, &removed(1));
        rig.view(0).next() == 1
    });
    (engine, rig)
}

#[test]
fn bad_frames_between_good_ones_are_counted() {
    let (engine, rig) = followed();
    let good = removed(2);
    let seq = 1u64.to_be_bytes();
    let bad: [&[&[u8]]; 7] = [
        &[b"kv"],
        &[b"kv", &seq],
        &[b"kv", &seq, &good, b"more"],
        &[b"kv", b"\0\0\0\x01", &good],
        &[b"kv", b"", &good],
        &[b"kv", &[0xff; 8], b""],
        &[b"", b"", b"", b"", b"", b"", b"", b""],
    ];
    bad.iter().for_each(|frames| engine.send(frames));
    engine.batch(1, &good);
    rig.wait_live(0, 2);
    assert_eq!(rig.view(0).batches[&1], Some(sealed(&good)));
    assert_eq!(rig.ingest.counters().bad_frames.get(), bad.len() as u64);
}

#[test]
fn an_undecodable_payload_uses_up_its_number_and_is_declared_lost() {
    let (engine, rig) = followed();
    engine.batch(1, b"");
    engine.batch(2, &removed(3)[..6]);
    engine.batch(3, b"not msgpack at all");
    engine.batch(4, &removed(4));
    rig.wait_live(0, 5);
    let view = rig.view(0);
    assert_eq!(view.lost(), [1, 2, 3]);
    let expected = Change::Removed {
        tier: Default::default(),
        group: Default::default(),
        hashes: vec![EngineBlockHash(4)].into(),
    };
    assert_eq!(view.batches[&4], Some(vec![expected].into()));
    let errors: Vec<_> = rig.ingest.counters().decode_errors().filter(|(_, n)| *n > 0).collect();
    assert_eq!(errors, [("truncated", 1), ("length_beyond_payload", 1), ("wrong_kind", 1)]);
}

#[test]
fn unknown_and_unusable_events_are_counted_and_their_neighbours_kept() {
    let (engine, rig) = followed();
    let odd = [
        &[0x92, 0, 0x93, 0x91, 0xa3][..],
        b"New",
        &[0x92, 0xac],
        b"BlockRemoved",
        &[0x91, 0xc4, 1, 9, 0x91, 0xb0],
        b"AllBlocksCleared",
    ]
    .concat();
    engine.batch(1, &odd);
    rig.wait_live(0, 2);
    // What could not be read may have been a removal, and the index is told so.
    let changes = [Change::Cleared { tier: Some(kvindex_core::Tier::Device) }, Change::Unreadable];
    assert_eq!(rig.view(0).batches[&1].as_deref().unwrap(), changes);
    let counters = rig.ingest.counters();
    assert_eq!((counters.unknown_events.get(), counters.skipped_hash_width.get()), (1, 1));
}

#[test]
fn a_topic_selects() {
    let (engine, endpoint) = RawEngine::bind();
    let rig = Rig::start(quick());
    let mut source = subscription(0, &endpoint, None);
    source.topic = "kv-a".into();
    rig.ingest.subscribe(source, LED).unwrap();
    rig.wait("first batch", |rig| {
        engine.send(&[b"kv-b", &9u64.to_be_bytes(), &removed(1)]);
        engine.send(&[b"kv-a1", &0u64.to_be_bytes(), &removed(1)]);
        rig.view(0).next() > 0
    });
    assert_eq!(rig.view(0).next(), 1);
}

#[test]
fn endpoints_that_cannot_be_are_refused_by_field() {
    let rig = Rig::start(quick());
    let refusal = |endpoint: &str, replay: Option<&str>| {
        rig.ingest.subscribe(subscription(0, endpoint, replay), LED).unwrap_err().to_string()
    };
    let good = "tcp://127.0.0.1:1";
    let impossible =
        ["", "nonsense", "http://h:1", "inproc://x", "ipc://", "tcp://", "tcp://h", "tcp://h:notaport"];
    let more = ["tcp://h:99999", "tcp://h:0", "tcp://:5557", "tcp://a b:5557", "tcp://a/b:5557", "tcp://*:0"];
    for bad in impossible.into_iter().chain(more).chain(["bind+tcp://engine:5557", "bind+tcp://127.0.0.1:0"])
    {
        assert!(refusal(bad, None).starts_with("endpoint: "), "{}", refusal(bad, None));
        assert!(refusal(good, Some(bad)).starts_with("replay_endpoint: "), "{}", refusal(good, Some(bad)));
    }
    // What ZeroMQ finds wrong itself.
    assert!(refusal("tcp://a!b:5557", None).starts_with("endpoint: cannot connect to "));
    assert!(refusal(good, Some("tcp://a!b:5557")).starts_with("replay_endpoint: cannot connect to "));
    // An engine's replay socket binds whatever its address, so there is nothing to wait for.
    for bound in ["tcp://*:5557", "tcp://0.0.0.0:5557", "bind+tcp://127.0.0.1:5557"] {
        assert!(refusal(good, Some(bound)).contains("always binds its replay socket"));
    }
    assert!(refusal(&format!("tcp://{}:1", "h".repeat(2000)), None).contains("the limit is 1024"));
    assert!(rig.ingest.statuses().is_empty(), "nothing half-made stays");
    let mut source = subscription(0, good, None);
    source.topic = "t".repeat(2000);
    source.gap_policy = GapPolicy::KeepAsSuspect;
    let error = rig.ingest.subscribe(source, LED).unwrap_err();
    assert!(matches!(error, IngestError::TooLong { field: "topic", len: 2000, limit: 1024 }));
}
