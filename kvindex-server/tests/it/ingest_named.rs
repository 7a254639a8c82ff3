//! Engines whose endpoint is a name: found, followed over restarts, and asked for replays.

use std::time::Duration;

use kvindex_recording::{Publisher, PublisherOptions};

use crate::ingest_node::free_ports;
use crate::ingest_rig::{LED, Rig, assert_exact, quick, recording, subscription};

fn by_name(endpoint: &str) -> String {
    endpoint.replace("127.0.0.1", "localhost")
}

#[test]
fn engines_are_followed_by_name_across_their_restarts() {
    let options = PublisherOptions { down: Duration::from_millis(100), ..PublisherOptions::default() };
    let publisher = Publisher::start(recording("restart"), options).unwrap();
    let rig = Rig::start(quick());
    for engine in publisher.endpoints() {
        assert!(engine.publish.contains("127.0.0.1"), "{}", engine.publish);
        let (publish, replay) = (by_name(&engine.publish), by_name(&engine.replay));
        rig.ingest.subscribe(subscription(engine.engine, &publish, Some(&replay)), LED).unwrap();
    }
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    publisher.play_all().unwrap();
    assert_exact(&publisher, &rig);
}

#[test]
fn an_engine_that_comes_late_is_found_and_what_it_said_before_is_asked_for() {
    let publisher = Publisher::start(recording("restart"), PublisherOptions::default()).unwrap();
    let first = publisher.endpoints()[0].clone();
    let rig = Rig::start(quick());
    // Nobody is there yet.
    let nobody = free_ports(1);
    rig.ingest.subscribe(subscription(9, &format!("tcp://localhost:{nobody}"), None), LED).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!rig.is_connected(9));
    let late = zmq::Context::new().socket(zmq::PUB).unwrap();
    late.bind(&format!("tcp://127.0.0.1:{nobody}")).unwrap();
    rig.wait("the late engine", |rig| rig.is_connected(9));
    // A name that leads nowhere holds nobody up.
    let lost = subscription(8, "tcp://no-such-engine.invalid:5557", None);
    rig.ingest.subscribe(lost, LED).unwrap();
    let replay = by_name(&first.replay);
    let named = subscription(first.engine, &by_name(&first.publish), Some(&replay));
    rig.ingest.subscribe(named, LED).unwrap();
    rig.wait("the engine", |rig| rig.is_connected(first.engine));
    assert!(!rig.is_connected(8));
    assert!(rig.ingest.unsubscribe(&crate::ingest_rig::stream_id(8)));
}
