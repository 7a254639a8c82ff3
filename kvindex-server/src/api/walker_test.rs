//! The walk against the decoder: what is decoded holds no more than was walked.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;
use kvindex_proto::v1;
use proptest::prelude::*;
use prost::Message;
use tokio_stream::StreamExt;

fn limits() -> ApiLimits {
    ApiLimits { batch: 4, candidates: 3, ..Config::defaults().limits }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// Walks bodies cut into pieces; the error's message where one is refused.
fn walk_in_pieces(call: &str, bytes: &[u8], cut: usize) -> Result<(), String> {
    let mut walker = Walker::new(Bounds::of(call, &limits()));
    let mut pieces = bytes.chunks(cut);
    pieces.try_for_each(|piece| walker.read(piece)).map_err(|error| error.to_message().message)?;
    assert!(matches!(walker.next, Next::Head(0)), "it ends between two messages: {walker:?}");
    Ok(())
}

fn question(items: usize, candidates: usize, labels: usize) -> v1::MatchRequest {
    let item = v1::PromptItem { identifier: "i".repeat(200), offset: 1 << 40, length: 300 };
    let prompt = v1::Prompt {
        model: "m".into(),
        token_ids: vec![7, 300, 70_000],
        token_ids_le: vec![1; 700].into(),
        sequence_hashes: vec![1, 2],
        items: vec![item; items],
        ..v1::Prompt::default()
    };
    v1::MatchRequest {
        prompt: Some(prompt),
        candidates: vec!["10.0.0.1:80".into(); candidates],
        labels: (0..labels).map(|i| (i.to_string(), String::new())).collect(),
        top_k: Some(3),
        ..v1::MatchRequest::default()
    }
}

/// Found by a review: a number of one byte is four in memory.
#[test]
fn very_many_small_numbers_are_refused_and_many_usual_ones_are_not() {
    let ask = |token: u32, count: usize| {
        let prompt = v1::Prompt { token_ids: vec![token; count], ..v1::Prompt::default() };
        framed(&v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() }.encode_to_vec())
    };
    for cut in [1000, usize::MAX] {
        walk_in_pieces("match", &ask(70_000, 4 << 20), cut).unwrap();
        walk_in_pieces("match", &ask(1, 4 << 20), cut).unwrap();
        let refused = walk_in_pieces("match", &ask(1, 30 << 20), cut).unwrap_err();
        assert!(refused.contains("when decoded"), "{refused}");
    }
}

#[test]
fn what_is_over_a_limit_is_refused_by_its_field_and_what_is_at_it_is_not() {
    let fits = framed(&question(5, 3, 3).encode_to_vec());
    for cut in [1, 7, usize::MAX] {
        walk_in_pieces("match", &fits, cut).unwrap();
        walk_in_pieces("match", &[&fits[..], &fits].concat(), cut).unwrap();
        for (message, reason) in [
            (question(5, 4, 3), "candidates: more than 3 of them, the limit is 3 (max_candidates)"),
            (question(5, 3, 4), "labels: more than 3 of them, the limit is 3 (max_candidates)"),
            (question(4097, 0, 0), "items: more than 4096 of them, the limit is 4096"),
        ] {
            assert_eq!(walk_in_pieces("match", &framed(&message.encode_to_vec()), cut).unwrap_err(), reason);
        }
    }
}

#[test]
fn a_question_among_others_does_not_fail_them() {
    let batch = |count| v1::MatchBatchRequest { requests: vec![question(5000, 4, 4); count] };
    walk_in_pieces("match_batch", &framed(&batch(4).encode_to_vec()), 4096).unwrap();
    let refused = walk_in_pieces("match_batch", &framed(&batch(5).encode_to_vec()), 4096).unwrap_err();
    assert_eq!(refused, "requests: more than 4 of them, the limit is 4 (max_batch)");
    let streamed = v1::MatchStreamRequest { id: 1, request: Some(question(5000, 4, 4)) };
    walk_in_pieces("match_stream", &framed(&streamed.encode_to_vec()).repeat(3), 4096).unwrap();
}

/// Found by a review: an error in a frame took the questions before it along.
#[tokio::test]
async fn questions_before_a_wrong_one_are_handed_over_in_whatever_frames_they_came() {
    let good = framed(&v1::MatchStreamRequest { id: 1, request: Some(question(1, 1, 1)) }.encode_to_vec());
    let wrong = framed(&[0x0b, 0]);
    for (bytes, whole) in [
        ([&good[..], &good, &wrong, &good].concat(), good.len() * 2),
        ([&good[..], &wrong].concat(), good.len()),
        (wrong.clone(), 0),
    ] {
        let body = Walked::around(Body::from(bytes.clone()), Bounds::of("match_stream", &limits()));
        let mut pieces = body.into_data_stream();
        let mut came = Vec::new();
        let refused = loop {
            match pieces.next().await.unwrap() {
                Ok(piece) => came.extend_from_slice(&piece),
                Err(error) => break error,
            }
        };
        assert_eq!(came, bytes[..whole]);
        assert!(refused.to_string().contains("protobuf"), "{refused}");
    }
}

#[test]
fn empty_parts_are_refused_by_what_they_take() {
    let event = |keys: usize| v1::PublishEvent {
        extra_keys: vec![v1::BlockExtraKeys { keys: vec![v1::ExtraKey::default(); keys] }],
        ..v1::PublishEvent::default()
    };
    let batch = |events| v1::PublishRequest { events, ..v1::PublishRequest::default() };
    let usual = batch(vec![event(2); 1000]);
    walk_in_pieces("publish", &framed(&usual.encode_to_vec()), 4096).unwrap();
    // Two bytes each on the wire.
    let events = [0x32, 0].repeat(1 << 20);
    let keys = batch(vec![event(1 << 20)]).encode_to_vec();
    assert!(keys.len() < 5 << 20);
    for bytes in [events, keys] {
        let refused = walk_in_pieces("publish", &framed(&bytes), 16 << 10).unwrap_err();
        assert!(refused.contains("when decoded") && refused.contains("max_body_bytes"), "{refused}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [
        &[0x0a, 5, 0][..],
        &[0x0a],
        &[0x0b, 0],
        &[0x00, 0],
        &[0x09, 1],
        &[0xff; 11],
        &[0x0a, 2, 0x52, 1],
        &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
    ] {
        // Another message behind it, because a body that ends early is the decoder's to find.
        let refused = walk_in_pieces("match", &[framed(bytes), framed(&[])].concat(), 1).unwrap_err();
        assert!(refused.contains("protobuf"), "{bytes:?}: {refused}");
    }
    let refused = walk_in_pieces("list_workers", &framed(&vec![0; (1 << 20) + 1]), 99).unwrap_err();
    assert!(refused.contains("the limit is 1048576"), "{refused}");
}

/// Bytes that are often a message: keys and lengths that fit beside each other.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(vec![0x0a, 2, 0x52, 0]),
        1 => Just(vec![0x0a, 0]),
        4 => Just(vec![0x12, 1, b'x']),
        1 => Just(vec![0x2a, 0]),
        1 => Just(vec![0x50, 1]),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Nothing that is decoded holds more than the limits say when it was walked before, and what holds less passes.
    #[test]
    fn what_passes_and_is_decoded_is_within_the_limits(bytes in bytes(), cut in 1usize..9) {
        let walked = walk_in_pieces("match", &[framed(&bytes), framed(&[])].concat(), cut);
        if let Ok(question) = v1::MatchRequest::decode(&bytes[..]) {
            let over = question.candidates.len() > 3;
            match walked {
                Ok(()) => prop_assert!(!over, "{question:?}"),
                // Groups, which the decoder passes over, and labels that are the same ones again.
                Err(reason) if !over => {
                    prop_assert!(reason.contains("protobuf") || reason.contains("labels"), "{reason}");
                }
                Err(_) => {}
            }
        }
    }
}
