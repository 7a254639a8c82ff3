//! Recordings of real engines through real sockets: every batch arrives once, in order, as decoded from the file.

use kvindex_recording::{Faults, PublisherOptions, ReplayFrames, SeqRange};

use crate::ingest_rig::{LED, assert_exact, follow};

#[test]
fn plain_cases_arrive_exactly() {
    for case in ["basic", "basic-v0.11.0", "bytes-cbor", "dup", "dp", "sglang-v0.5.14", "sglang-v0.5.23"] {
        for with_replay in [true, false] {
            let (publisher, rig) = follow(case, PublisherOptions::default(), with_replay);
            publisher.play_all().unwrap();
            assert_exact(&publisher, &rig);
            let counters = rig.ingest.counters();
            assert_eq!(counters.gaps.get(), 0, "{case}");
            assert_eq!(counters.applied.get(), publisher.recording().records.len() as u64, "{case}");
        }
    }
}

#[test]
fn engines_that_restart_inside_a_recording_are_followed() {
    for case in ["restart", "restart-v0.20.2"] {
        for with_replay in [true, false] {
            let (publisher, rig) = follow(case, PublisherOptions::default(), with_replay);
            publisher.play_all().unwrap();
            assert_exact(&publisher, &rig);
            assert_eq!(rig.ingest.counters().new_generations.get(), publisher.stats().restarts, "{case}");
        }
    }
}

#[test]
fn dropped_batches_are_fetched_in_both_framings() {
    for replay_frames in [ReplayFrames::Two, ReplayFrames::Three] {
        let faults = Faults { drop_fraction: 0.3, seed: 7, ..Faults::default() };
        let options = PublisherOptions { replay_frames, faults, ..PublisherOptions::default() };
        let (publisher, rig) = follow("basic", options, true);
        publisher.play_all().unwrap();
        assert_exact(&publisher, &rig);
        assert!(publisher.stats().dropped > 10);
        assert_eq!(publisher.stats().bad_replay_requests, 0);
        assert_eq!(rig.ingest.counters().gaps.get(), 0);
    }
}

#[test]
fn published_twice_is_applied_once() {
    let faults = Faults { dup: vec![SeqRange::new(0, 0..=30)], ..Faults::default() };
    let (publisher, rig) = follow("basic", PublisherOptions { faults, ..Default::default() }, false);
    publisher.play_all().unwrap();
    assert_exact(&publisher, &rig);
    assert_eq!(rig.ingest.counters().duplicates.get(), publisher.stats().duplicated);
}

#[test]
fn a_late_subscriber_gets_everything_from_the_replay() {
    let (publisher, rig) = follow("basic", PublisherOptions::default(), true);
    publisher.play_all().unwrap();
    assert_exact(&publisher, &rig);
    // The same engines again, from an empty service: nothing is published any more.
    let late = crate::ingest_rig::Rig::start(crate::ingest_rig::quick());
    for engine in publisher.endpoints() {
        let source = crate::ingest_rig::subscription(engine.engine, &engine.publish, Some(&engine.replay));
        late.ingest.subscribe(source, LED).unwrap();
    }
    assert_exact(&publisher, &late);
    assert_eq!(late.ingest.counters().received.get(), 0);
}

#[test]
fn an_engine_restarted_by_hand_is_followed_with_and_without_replay() {
    for with_replay in [true, false] {
        let (publisher, rig) = follow("basic", PublisherOptions::default(), with_replay);
        publisher.play_until(40).unwrap();
        assert_exact(&publisher, &rig);
        publisher.restart(0).unwrap();
        publisher.play_all().unwrap();
        // The second life repeats the first byte for byte, as no engine does, so it may pass for duplicates.
        assert_exact(&publisher, &rig);
        assert_eq!(rig.view(1).generation, 0, "the other engine did not restart");
    }
}

#[test]
fn eight_engines_with_losses_duplicates_and_a_restart_come_out_exact() {
    let faults = Faults {
        drop_fraction: 0.05,
        seed: 3,
        dup: vec![SeqRange::new(2, 100..=400)],
        restart_after: vec![(4, 300)],
        ..Faults::default()
    };
    let (publisher, rig) = follow("conv-a", PublisherOptions { faults, ..Default::default() }, true);
    publisher.play_all().unwrap();
    assert_exact(&publisher, &rig);
    assert_eq!(rig.ingest.counters().gaps.get(), 0);
    assert!(publisher.stats().dropped > 100 && publisher.stats().duplicated > 100);
}
