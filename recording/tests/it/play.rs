//! The publisher over real sockets: a subscriber that repairs gaps ends with every message.

use std::time::{Duration, Instant};

use kvindex_recording::{
    Faults, Pace, Publisher, PublisherError, PublisherOptions, PublisherStats, ReplayFrames, SeqRange, Truth,
};

use crate::subscriber::{Received, Subscriber, last_lives};
use crate::{case, recording};

fn with(faults: Faults) -> PublisherOptions {
    PublisherOptions { faults, down: Duration::from_millis(100), ..PublisherOptions::default() }
}

/// Plays a case to its end; what was received, sent, and what of it the recording says is missing.
fn play(name: &str, options: PublisherOptions) -> (Received, PublisherStats, Vec<(usize, u64)>) {
    let frames = match options.replay_frames {
        ReplayFrames::Two => 2,
        ReplayFrames::Three => 3,
    };
    let publisher = Publisher::start(recording(name), options).unwrap();
    let mut subscriber = Subscriber::connect(&publisher, frames);
    let end = subscriber.while_playing(|| publisher.play_all());
    assert_eq!(end, publisher.recording().records.len());
    assert_eq!(publisher.position(), end);
    let received = subscriber.received;
    let mut missing = Vec::new();
    for (engine, life) in last_lives(publisher.recording(), end).iter().enumerate() {
        for (seq, payload) in life {
            match received.lives[engine].get(seq) {
                Some(got) => assert_eq!(got, payload, "engine {engine} seq {seq}"),
                None => missing.push((engine, *seq)),
            }
        }
        assert!(received.lives[engine].keys().all(|seq| life.contains_key(seq)));
    }
    let stats = publisher.stats();
    publisher.stop().unwrap();
    (received, stats, missing)
}

#[test]
fn plain() {
    let (received, stats, missing) = play("basic", with(Faults::default()));
    assert_eq!(missing, []);
    assert_eq!((received.restarts, received.duplicates, received.replays), (0, 0, 0));
    assert_eq!(stats, PublisherStats { published: 112, ..PublisherStats::default() });
}

#[test]
fn a_large_recording_arrives_whole() {
    let (received, stats, missing) = play("conv-a", with(Faults::default()));
    assert_eq!(missing, []);
    // One engine of the recording restarts in it.
    assert_eq!((received.restarts, stats.restarts), (1, 1));
    assert_eq!((received.replays, stats.published), (0, 8421));
}

#[test]
fn dropped_messages_are_replayed() {
    let faults = Faults { drop: vec![SeqRange::new(0, 5..=9), SeqRange::new(1, 3..=3)], ..Faults::default() };
    let (received, stats, missing) = play("basic", with(faults));
    assert_eq!(missing, []);
    assert_eq!((received.replays, stats.dropped, stats.replay_requests), (2, 6, 2));
    assert!(stats.replayed >= 6);
}

#[test]
fn dropped_messages_are_replayed_in_two_frames() {
    let faults = Faults { drop: vec![SeqRange::new(0, 5..=9)], ..Faults::default() };
    let options = PublisherOptions { replay_frames: ReplayFrames::Two, ..with(faults) };
    let (received, _, missing) = play("basic", options);
    assert_eq!(missing, []);
    assert_eq!(received.replays, 1);
}

#[test]
fn lost_messages_stay_lost() {
    let faults = Faults { lose: vec![SeqRange::new(0, 5..=6)], ..Faults::default() };
    let (_, stats, missing) = play("basic", with(faults));
    assert_eq!(missing, [(0, 5), (0, 6)]);
    assert_eq!(stats.lost, 2);
}

#[test]
fn doubled_messages_come_twice() {
    let faults = Faults { dup: vec![SeqRange::new(0, 4..=6)], ..Faults::default() };
    let (received, stats, missing) = play("basic", with(faults));
    assert_eq!(missing, []);
    assert_eq!((received.duplicates, stats.duplicated), (3, 3));
}

#[test]
fn random_drops_follow_the_seed_and_spare_the_last() {
    let lossy = |seed| with(Faults { drop_fraction: 0.3, seed, ..Faults::default() });
    let (_, first, missing) = play("basic", lossy(7));
    assert_eq!(missing, []);
    assert!((10..60).contains(&first.dropped), "{first:?}");
    let (_, again, _) = play("basic", lossy(7));
    assert_eq!(again.dropped, first.dropped);
    let all = with(Faults { drop_fraction: 1.0, ..Faults::default() });
    let (received, stats, missing) = play("basic", all);
    assert_eq!(missing, []);
    // Each engine's last message is what tells of all the others.
    assert_eq!((stats.published, received.replays), (2, 2));
}

#[test]
fn a_restart_plays_the_life_again() {
    let faults = Faults { restart_after: vec![(0, 10)], ..Faults::default() };
    let (received, stats, missing) = play("basic", with(faults));
    assert_eq!(missing, []);
    assert_eq!((received.restarts, stats.restarts), (1, 1));
    assert_eq!(stats.published, 112 + 11);
}

#[test]
fn restarts_inside_a_recording() {
    for name in ["restart", "restart-v0.20.2"] {
        let (received, stats, missing) = play(name, with(Faults::default()));
        assert_eq!(missing, []);
        assert_eq!((received.restarts, stats.restarts, received.replays), (2, 2, 0));
    }
}

#[test]
fn a_restart_on_request_keeps_ports_and_comes_again_with_the_next_play() {
    let publisher = Publisher::start(recording("basic"), with(Faults::default())).unwrap();
    let endpoints = publisher.endpoints().to_vec();
    let mut subscriber = Subscriber::connect(&publisher, 3);
    subscriber.while_playing(|| publisher.play_until(60));
    subscriber.while_playing(|| publisher.restart(1).map(|()| 0));
    assert_eq!(subscriber.received.restarts, 0, "silent until something is said");
    // Nothing new is played, but the engine is brought back to where it was.
    assert_eq!(subscriber.while_playing(|| publisher.play_until(60)), 60);
    assert_eq!(subscriber.received.restarts, 1);
    assert_eq!(subscriber.received.lives, last_lives(publisher.recording(), 60));
    subscriber.while_playing(|| publisher.play_all());
    assert_eq!(subscriber.received.lives, last_lives(publisher.recording(), 112));
    assert_eq!(publisher.endpoints(), endpoints);
    assert!(matches!(publisher.restart(9), Err(PublisherError::UnknownEngine { engine: 9, engines: 2 })));
}

#[test]
fn it_stops_at_every_checkpoint() {
    let publisher = Publisher::start(recording("dup"), with(Faults::default())).unwrap();
    let mut subscriber = Subscriber::connect(&publisher, 3);
    for checkpoint in Truth::open(&case("dup")).unwrap().step_by(12) {
        let checkpoint = checkpoint.unwrap();
        let at = subscriber.while_playing(|| publisher.play_until(checkpoint.pos));
        assert_eq!((at, publisher.position()), (checkpoint.pos, checkpoint.pos));
        let next: Vec<u64> = subscriber.received.lives.iter().map(|l| l.len() as u64).collect();
        assert_eq!(next, checkpoint.next_seq);
    }
}

#[test]
fn the_pace_is_kept_and_progress_is_told() {
    let options = PublisherOptions { pace: Pace::Rate(100.0), ..PublisherOptions::default() };
    let publisher = Publisher::start(recording("basic"), options).unwrap();
    let start = Instant::now();
    let mut told = Vec::new();
    publisher.play_until_with(50, |at| told.push(at)).unwrap();
    // The 50th message is due 490 ms after the first. Slower is only a busy machine.
    assert!(start.elapsed() >= Duration::from_millis(480));
    assert!(told.len() > 2 && told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&50));
}

#[test]
fn the_recorded_timing_is_kept() {
    let recorded = recording("restart");
    let seconds = recorded.records[11].t_us as f64 / 1e6;
    let options = PublisherOptions {
        // Made to last a quarter of a second, whatever the recording's own length.
        pace: Pace::Speed(seconds * 4.0),
        ..PublisherOptions::default()
    };
    let publisher = Publisher::start(recorded, options).unwrap();
    let start = Instant::now();
    publisher.play_until(12).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(240));
}

#[test]
fn stop_interrupts_a_slow_play() {
    let options = PublisherOptions { pace: Pace::Rate(0.001), ..PublisherOptions::default() };
    let publisher = Publisher::start(recording("basic"), options).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let playing = scope.spawn(|| publisher.play_all());
        while publisher.position() == 0 {
            std::thread::yield_now();
        }
        publisher.halt();
        assert!(matches!(playing.join().unwrap(), Err(PublisherError::Stopped)));
    });
    assert!(matches!(publisher.play_all(), Err(PublisherError::Stopped)));
    publisher.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn chosen_ports_are_used_and_taken_ones_are_refused() {
    let free = Publisher::start(recording("dup"), PublisherOptions::default()).unwrap();
    let port = |endpoint: &str| -> u16 { endpoint.rsplit_once(':').unwrap().1.parse().unwrap() };
    let (publish, replay) = {
        let endpoint = &free.endpoints()[0];
        (port(&endpoint.publish), port(&endpoint.replay))
    };
    let options =
        PublisherOptions { port: Some(publish), replay_port: Some(replay), ..PublisherOptions::default() };
    let taken = Publisher::start(recording("dup"), options.clone()).unwrap_err();
    assert!(taken.to_string().contains(&format!("cannot bind tcp://127.0.0.1:{publish}")), "{taken}");
    free.stop().unwrap();
    let chosen = Publisher::start(recording("dup"), options).unwrap();
    assert_eq!(chosen.endpoints()[0].publish, format!("tcp://127.0.0.1:{publish}"));
    assert_eq!(chosen.endpoints()[0].replay, format!("tcp://127.0.0.1:{replay}"));
}

#[test]
fn senseless_options_are_refused_by_name() {
    let fault = |faults| PublisherOptions { faults, ..PublisherOptions::default() };
    let plain = PublisherOptions::default;
    for (field, options) in [
        ("pace", PublisherOptions { pace: Pace::Rate(0.0), ..plain() }),
        ("pace", PublisherOptions { pace: Pace::Speed(f64::NAN), ..plain() }),
        ("port", PublisherOptions { port: Some(65535), ..plain() }),
        ("port", PublisherOptions { port: Some(0), ..plain() }),
        ("replay_port", PublisherOptions { port: Some(5557), replay_port: Some(5558), ..plain() }),
        ("hwm", PublisherOptions { hwm: -1, ..plain() }),
        ("buffer_steps", PublisherOptions { buffer_steps: 0, ..plain() }),
        ("publish_to", PublisherOptions { publish_to: [(2, "tcp://h:1".into())].into(), ..plain() }),
        ("publish_to", PublisherOptions { publish_to: [(0, "h:1".into())].into(), ..plain() }),
        ("faults.drop_fraction", fault(Faults { drop_fraction: 1.5, ..Faults::default() })),
        ("faults.lose", fault(Faults { lose: vec![SeqRange::new(2, 0..=1)], ..Faults::default() })),
        ("faults.restart_after", fault(Faults { restart_after: vec![(5, 1)], ..Faults::default() })),
    ] {
        let error = Publisher::start(recording("basic"), options).unwrap_err();
        assert!(
            matches!(error, PublisherError::BadOption { field: named, .. } if named == field),
            "{field}: {error}"
        );
    }
}
