//! Long-lived streams from end to end: what happens to a replay, a restart, a rank or a tail, the node's answers
//! end equal to the engines' own, or with a stamp that says in which way they may be wrong.

use std::time::Duration;

use kvindex_core::Generation;
use kvindex_recording::{
    Faults, Publisher, PublisherOptions, Recording, ReplayFault, ReplayFrames, SeqRange,
};
use kvindex_server::trust::TrustState;
use kvindex_server::{RawStream, RawWorker};

use crate::ingest_node::{Follower, checkpoints, free_ports, worker};
use crate::ingest_rig::recording;

fn with(faults: Faults) -> PublisherOptions {
    PublisherOptions { faults, down: Duration::from_millis(100), ..PublisherOptions::default() }
}

fn dropped(seqs: std::ops::RangeInclusive<u64>) -> Faults {
    Faults { drop: vec![SeqRange::new(0, seqs)], ..Faults::default() }
}

/// A case's engines, followed and connected.
fn follow(case: &str, options: PublisherOptions) -> (Publisher, Follower) {
    follow_as(case, options, |_| ())
}

fn follow_as(
    case: &str,
    options: PublisherOptions,
    change: impl Fn(&mut RawWorker),
) -> (Publisher, Follower) {
    let publisher = Publisher::start(recording(case), options).unwrap();
    let follower = Follower::start(&publisher.recording().header);
    follower.follow(publisher.endpoints(), change);
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    (0..follower.streams.len()).for_each(|engine| follower.wait_connected(engine));
    (publisher, follower)
}

#[test]
fn what_a_replay_brings_makes_answers_exact_in_both_framings() {
    for replay_frames in [ReplayFrames::Two, ReplayFrames::Three] {
        let options = PublisherOptions { replay_frames, ..with(dropped(10..=25)) };
        let (publisher, follower) = follow("dup", options);
        publisher.play_all().unwrap();
        follower.assert_exact(checkpoints("dup").last().unwrap());
        let stats = publisher.stats();
        assert_eq!((stats.dropped, stats.bad_replay_requests), (16, 0));
        assert!(stats.replayed >= 16, "{stats:?}");
    }
}

/// The engine has forgotten part of what is missing, so its answer starts later than asked.
#[test]
fn a_replay_that_starts_later_leaves_answers_too_low_and_says_so() {
    let options = PublisherOptions { buffer_steps: 5, ..with(dropped(10..=25)) };
    let (publisher, follower) = follow("dup", options.clone());
    publisher.play_all().unwrap();
    let checkpoints = checkpoints("dup");
    let last = checkpoints.last().unwrap();
    follower.wait_applied(last, 0, TrustState::Rebuilding);
    follower.assert_never_too_high(last, 0);
    assert_eq!(follower.trust(0).generation, Generation(0), "the same life, with a hole");
    assert!(publisher.stats().replayed > 0);
    // What was known before may be kept instead, and is not to be relied on then.
    let (publisher, follower) = follow_as("dup", options, |w| w.gap_policy = "keep_as_suspect".into());
    publisher.play_all().unwrap();
    follower.wait_applied(last, 0, TrustState::Suspect);
}

#[test]
fn a_replay_without_end_marker_makes_answers_exact() {
    let replay = [(0, ReplayFault::NoEndMarker)].into();
    let (publisher, follower) = follow("dup", with(Faults { replay, ..dropped(10..=25) }));
    publisher.play_all().unwrap();
    follower.assert_exact(checkpoints("dup").last().unwrap());
}

#[test]
fn a_lost_tail_is_found_while_the_engine_is_idle() {
    let (publisher, follower) = follow("dup", with(dropped(30..=38)));
    publisher.play_all().unwrap();
    // Nothing is ever published after batch 29; only asking tells.
    follower.assert_exact(checkpoints("dup").last().unwrap());
    assert_eq!(publisher.stats().dropped, 9);
}

/// `restart`, with the engine's second life (6 batches) put before its first (8): the later life's numbers run
/// past the earlier one's.
fn longer_second_life() -> Recording {
    let mut recording = recording("restart");
    let mut records = recording.records[12..18].to_vec();
    records.extend_from_slice(&recording.records[..12]);
    recording.records = records;
    recording
}

/// The engine restarts and says more than it had said before, all while nobody listens. Numbers alone would make
/// the new life look like the old one with a gap.
#[test]
fn a_restart_whose_numbers_ran_past_ours_is_seen_by_digest() {
    let options = PublisherOptions { resubscribe_wait: Duration::ZERO, ..with(Faults::default()) };
    let publisher = Publisher::start(longer_second_life(), options).unwrap();
    let follower = Follower::start(&publisher.recording().header);
    follower.follow(publisher.endpoints(), |_| ());
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    publisher.play_until(6).unwrap();
    let at_5 = |f: &Follower| f.trust(0).applied.is_some_and(|seq| seq.0 == 5);
    follower.wait("the first life", |f| at_5(f) && f.trust(0).state == TrustState::Live);
    let before = follower.trust(0);
    // All but the last record of the new life go out before the subscription is back.
    publisher.play_until(16).unwrap();
    publisher.play_all().unwrap();
    let checkpoints = checkpoints("restart");
    let truth = checkpoints.iter().find(|checkpoint| checkpoint.pos == 12).unwrap();
    follower.assert_exact(truth);
    assert!(follower.trust(0).generation > before.generation);
    assert_eq!(publisher.stats().restarts, 1);
}

#[test]
fn engines_that_restart_inside_a_recording_are_exact_at_every_checkpoint() {
    let (publisher, follower) = follow("restart", with(Faults::default()));
    for checkpoint in checkpoints("restart") {
        publisher.play_until(checkpoint.pos).unwrap();
        follower.assert_exact(&checkpoint);
    }
}

/// Ports that count up with the rank, as engines do it: one registration for all ranks.
#[test]
fn dp_ranks_on_consecutive_ports_are_exact() {
    let (publish, replay) = (free_ports(3), free_ports(3));
    let ports = PublisherOptions { port: Some(publish), replay_port: Some(replay), ..with(dropped(2..=3)) };
    let publisher = Publisher::start(recording("dp"), ports).unwrap();
    let mut follower = Follower::start(&publisher.recording().header);
    register_ranks(&mut follower, format!("tcp://127.0.0.1:{publish}"), replay);
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    publisher.play_all().unwrap();
    follower.assert_exact(checkpoints("dp").last().unwrap());
    assert_eq!(publisher.stats().dropped, 2);
}

/// Registers one worker of three ranks, which all recorded engines are ranks of.
pub(crate) fn register_ranks(follower: &mut Follower, endpoint: String, replay_port: u16) {
    let definition = RawWorker {
        streams: Vec::new(),
        endpoint,
        replay_endpoint: format!("tcp://127.0.0.1:{replay_port}"),
        data_parallel_size: 3,
        ..worker("dp", "", "")
    };
    follower.register(definition).unwrap();
    for (rank, stream) in (0..).zip(&mut follower.streams) {
        stream.worker = kvindex_core::WorkerId::new("dp").unwrap();
        stream.dp_rank = kvindex_core::DpRank(rank);
    }
}

/// Each stream follows its neighbour's port. The answers are the neighbour's, so nothing in them is odd; only the
/// batches themselves tell.
#[test]
fn a_port_of_another_rank_is_noticed() {
    let publisher = Publisher::start(recording("dp"), with(Faults::default())).unwrap();
    let mut follower = Follower::start(&publisher.recording().header);
    let engines = publisher.endpoints();
    let stream = |dp_rank: u32, at: usize| RawStream {
        dp_rank,
        endpoint: engines[at].publish.clone(),
        replay_endpoint: engines[at].replay.clone(),
        ..RawStream::default()
    };
    let streams = vec![stream(0, 1), stream(1, 0), stream(2, 2)];
    follower.register(RawWorker { streams, ..worker("dp", "", "") }).unwrap();
    for (rank, stream) in (0..).zip(&mut follower.streams) {
        stream.worker = kvindex_core::WorkerId::new("dp").unwrap();
        stream.dp_rank = kvindex_core::DpRank(rank);
    }
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    publisher.play_all().unwrap();
    let (checkpoint, reason) = (checkpoints("dp").pop().unwrap(), |f: &Follower, rank| f.trust(rank).reason);
    follower.wait_applied(&checkpoint, 2, TrustState::Live);
    for rank in 0..2 {
        follower.wait("noticed", |f| reason(f, rank).contains("name another data-parallel rank"));
    }
    assert_eq!(reason(&follower, 2), "", "the one that is right is left alone");
}

#[test]
fn a_restarted_node_keeps_what_it_knows_of_engines_that_still_have_the_last_batch() {
    // Of the first batches the engines' buffers know nothing any more: only the snapshot does.
    let options = PublisherOptions { buffer_steps: 5, ..PublisherOptions::default() };
    let (publisher, follower) = follow("basic", options);
    let checkpoints = checkpoints("basic");
    let (middle, last) = (&checkpoints[checkpoints.len() / 2], checkpoints.last().unwrap());
    publisher.play_until(middle.pos).unwrap();
    follower.assert_exact(middle);
    let file = std::env::temp_dir().join(format!("kvindex-kept-{}.snapshot", std::process::id()));
    let follower = follower.restarted(&file);
    std::fs::remove_file(&file).unwrap();
    follower.assert_exact(middle);
    publisher.play_all().unwrap();
    follower.assert_exact(last);
    assert!((0..follower.streams.len()).all(|engine| follower.trust(engine).generation == Generation(0)));
}
