//! An engine in a process of its own, killed without warning in the middle of a replay.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kvindex_recording::{Faults, Publisher, PublisherOptions, Recording, ReplayFault, SeqRange};
use kvindex_server::trust::TrustState;

use crate::ingest_node::{Follower, checkpoints, free_ports, worker};
use crate::ingest_rig::recording;

/// Tells the child its ports and which life it lives: `publish replay life`.
const ORDERS: &str = "KVINDEX_TEST_ENGINE";
/// Batches that the first life's replay brings before it hangs.
const BROUGHT: usize = 8;

/// The engine's process. Killed at the latest when the test ends.
struct Engine(Child);

impl Engine {
    fn start(publish: u16, replay: u16, life: u8) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ingest_killed::engine_process", "--ignored", "--nocapture"])
            .env(ORDERS, format!("{publish} {replay} {life}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// SIGKILL: no socket is closed by the process itself.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may be dead already
        let _ = self.0.wait();
    }
}

/// `dup`, as this life's engine says it: every life does the same work at another time, so its batches differ in
/// their clocks.
fn lived(life: u8) -> Recording {
    let mut recording = recording("dup");
    for record in &mut recording.records {
        // `[ts, …]`: an array's header, a float's, then the float; its last byte is below a microsecond.
        assert_eq!(record.payload[1], 0xcb);
        record.payload[9] ^= life;
    }
    recording
}

/// Not a test but the other process: plays a case, in its first life with lost batches and a replay that hangs.
#[test]
#[ignore = "the process that the test below starts and kills"]
fn engine_process() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let orders: Vec<u16> = orders.split(' ').map(|number| number.parse().unwrap()).collect();
    let life = u8::try_from(orders[2]).unwrap();
    let faults = Faults {
        drop: vec![SeqRange::new(0, 10..=30)],
        replay: [(0, ReplayFault::StallAfter(BROUGHT))].into(),
        ..Faults::default()
    };
    let options = PublisherOptions {
        port: Some(orders[0]),
        replay_port: Some(orders[1]),
        faults: if life == 1 { faults } else { Faults::default() },
        ..PublisherOptions::default()
    };
    let publisher = Publisher::start(lived(life), options).unwrap();
    assert!(publisher.wait_for_subscribers(Duration::from_secs(20)));
    publisher.play_all().unwrap();
    // Until it is killed, or its parent is.
    let _ = std::io::stdin().lines().next();
}

#[test]
fn an_engine_killed_in_the_middle_of_a_replay_is_suspect_and_its_next_life_exact() {
    let (publish, replay) = (free_ports(1), free_ports(1));
    let follower = Follower::start(&lived(1).header);
    let [endpoint, replay_endpoint] = [publish, replay].map(|port| format!("tcp://127.0.0.1:{port}"));
    follower.register(worker("dup", &endpoint, &replay_endpoint)).unwrap();
    let first = Engine::start(publish, replay, 1);
    // Batches 0 to 9 came live. The replay starts with 9, which proves the life, and hangs after 16.
    let reached = |seq: u64| move |f: &Follower| f.trust(0).applied.is_some_and(|applied| applied.0 >= seq);
    follower.wait("the replay's first part", reached(9 + BROUGHT as u64 - 1));
    assert_eq!(follower.trust(0).state, TrustState::Rebuilding, "what is missing is being fetched");
    let before = follower.trust(0).generation;
    first.kill();
    follower.wait("the death", |f| f.trust(0).reason.contains("disconnected"));
    assert_eq!(follower.trust(0).state, TrustState::Suspect);

    let _second = Engine::start(publish, replay, 2);
    let last = checkpoints("dup").pop().unwrap();
    follower.assert_exact(&last);
    assert!(follower.trust(0).generation > before);
}
