//! The replay socket itself: what it answers, how far back, and each way it can misbehave.

use std::time::Duration;

use kvindex_recording::{Faults, Publisher, PublisherOptions, ReplayFault, ReplayFrames};
use zmq::Context;

use crate::recording;
use crate::subscriber::Asked;

const SOON: Duration = Duration::from_secs(3);
const NOT_AT_ALL: Duration = Duration::from_millis(300);

/// `basic`, played to its end for nobody: engine 0 has seq 0 to 45 to replay.
fn played(options: PublisherOptions) -> (Publisher, Context) {
    let publisher = Publisher::start(recording("basic"), options).unwrap();
    publisher.play_all().unwrap();
    (publisher, Context::new())
}

fn with(fault: ReplayFault) -> PublisherOptions {
    PublisherOptions {
        faults: Faults { replay: [(0, fault)].into(), ..Faults::default() },
        down: Duration::from_millis(50),
        ..PublisherOptions::default()
    }
}

/// Seqs of an answer from `start` until none comes any more, and whether the end marker was the last.
fn answer(publisher: &Publisher, context: &Context, start: u64) -> (Vec<u64>, bool) {
    let mut asked = Asked::new(context, &publisher.endpoints()[0].replay, start);
    let mut seqs = Vec::new();
    let mut wait = SOON;
    while let Some(frames) = asked.next_frames(wait) {
        let [delimiter, topic, seq, payload] = <[Vec<u8>; 4]>::try_from(frames).unwrap();
        assert!(delimiter.is_empty());
        let seq = u64::from_be_bytes(seq.try_into().unwrap());
        if seq == u64::MAX {
            assert!(topic.is_empty() && payload.is_empty());
            return (seqs, true);
        }
        assert_eq!(topic, b"kv-events");
        seqs.push(seq);
        wait = NOT_AT_ALL;
    }
    (seqs, false)
}

#[test]
fn a_sound_answer_ends_with_the_marker() {
    let (publisher, context) = played(with(ReplayFault::None));
    assert_eq!(answer(&publisher, &context, 40), ((40..46).collect(), true));
    assert_eq!(answer(&publisher, &context, 1000), (vec![], true));
    assert_eq!(publisher.stats().replay_requests, 2);
}

#[test]
fn only_the_buffer_is_replayed() {
    let options = PublisherOptions { buffer_steps: 4, ..PublisherOptions::default() };
    let (publisher, context) = played(options);
    assert_eq!(answer(&publisher, &context, 0), ((42..46).collect(), true));
}

#[test]
fn a_restarted_engine_has_nothing_to_replay() {
    let (publisher, context) = played(with(ReplayFault::None));
    publisher.restart(0).unwrap();
    assert_eq!(answer(&publisher, &context, 0), (vec![], true));
}

#[test]
fn two_frames_leave_out_the_topic() {
    let options = PublisherOptions { replay_frames: ReplayFrames::Two, ..PublisherOptions::default() };
    let (publisher, context) = played(options);
    let mut asked = Asked::new(&context, &publisher.endpoints()[0].replay, 45);
    let message = asked.next_frames(SOON).unwrap();
    assert_eq!((message.len(), &message[1]), (3, &45u64.to_be_bytes().to_vec()));
    let end = asked.next_frames(SOON).unwrap();
    assert_eq!(end, [vec![], vec![0xff; 8], vec![]]);
}

#[test]
fn malformed_requests_get_no_answer() {
    let (publisher, context) = played(PublisherOptions::default());
    let endpoint = &publisher.endpoints()[0].replay;
    for frames in [&[&b""[..]][..], &[b"", b"123"], &[b"", b"12345678", b"more"]] {
        let mut asked = Asked::raw(&context, endpoint, frames);
        assert_eq!(asked.next_frames(NOT_AT_ALL), None);
    }
    assert_eq!(publisher.stats().bad_replay_requests, 3);
}

#[test]
fn silent() {
    let (publisher, context) = played(with(ReplayFault::Silent));
    let mut asked = Asked::new(&context, &publisher.endpoints()[0].replay, 0);
    assert_eq!(asked.next_frames(NOT_AT_ALL), None);
    assert_eq!(publisher.stats().replay_requests, 1);
    // The other engine is sound.
    let mut asked = Asked::new(&context, &publisher.endpoints()[1].replay, 0);
    assert!(asked.next_frames(SOON).is_some());
}

#[test]
fn no_end_marker() {
    let (publisher, context) = played(with(ReplayFault::NoEndMarker));
    assert_eq!(answer(&publisher, &context, 44), (vec![44, 45], false));
}

#[test]
fn garbage_is_no_answer() {
    let (publisher, context) = played(with(ReplayFault::Garbage));
    let mut asked = Asked::new(&context, &publisher.endpoints()[0].replay, 0);
    let mut seen = Vec::new();
    while let Some(frames) = asked.next_frames(if seen.is_empty() { SOON } else { NOT_AT_ALL }) {
        seen.push(frames.len());
    }
    assert_eq!(seen, [1, 4, 7, 4]);
}

#[test]
fn it_stalls_and_stays() {
    let (publisher, context) = played(with(ReplayFault::StallAfter(3)));
    for _ in 0..2 {
        assert_eq!(answer(&publisher, &context, 10), (vec![10, 11, 12], false));
    }
    assert_eq!(publisher.stats().replay_requests, 2, "the socket is still there");
}

#[test]
fn it_dies_midway_and_comes_back_when_told() {
    let (publisher, context) = played(with(ReplayFault::DieMidway(3)));
    assert_eq!(answer(&publisher, &context, 0), (vec![0, 1, 2], false));
    let mut asked = Asked::new(&context, &publisher.endpoints()[0].replay, 0);
    assert_eq!(asked.next_frames(NOT_AT_ALL), None, "nobody is there");
    drop(asked);
    publisher.set_replay_fault(0, ReplayFault::None).unwrap();
    assert_eq!(answer(&publisher, &context, 43), ((43..46).collect(), true));
}
