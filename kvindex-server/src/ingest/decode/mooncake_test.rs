//! Batches of Mooncake's store, in bytes written by hand. Their shape is that of `KvEventPublisher::PublishBatch`
//! in `mooncake-store/src/kv_event/kv_event_publisher.cpp` (kvcache-ai/Mooncake at 3b5a594, August 2026): an array
//! of integer milliseconds, events and rank 0; each event a map in the order below, with the engines' names
//! (`type`, `block_hashes`, `parent_block_hash`) unless its `emit_legacy_compat_fields` is off.
#![allow(clippy::unwrap_used)]

use kvindex_core::{BlockRemoved, BlockStored, DpRank, EngineBlockHash, KvEvent, Tier};

use super::{DecodedBatch, decode};

/// 2024-02-09 21:20:00.123 UTC.
const TIME_MS: u64 = 1_707_513_600_123;
/// A hash above 2^63, so that its two spellings differ.
const HASH: u64 = 0xe3b0_c442_98fc_1c14;

/// Which names an event has for its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Both,
    Standard,
}

fn text(out: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).unwrap();
    if len < 32 {
        out.push(0xa0 | len);
    } else {
        out.extend([0xd9, len]);
    }
    out.extend(text.as_bytes());
}

fn uint64(value: u64) -> Vec<u8> {
    [&[0xcf][..], &value.to_be_bytes()].concat()
}

/// One event. `hash` is nil for an object whose key is no block hash.
fn event(stored: bool, hash: Option<u64>, names: Names) -> Vec<u8> {
    let (word, tag) = if stored { ("stored", "BlockStored") } else { ("removed", "BlockRemoved") };
    let string = |value: &str| {
        let mut out = Vec::new();
        text(&mut out, value);
        out
    };
    let hashes = |spelled: &dyn Fn(u64) -> Vec<u8>| match hash {
        Some(hash) => [vec![0x91], spelled(hash)].concat(),
        None => vec![0x90],
    };
    // The compatible list is of signed integers, as SGLang's.
    let signed = |hash: u64| [&[0xd3][..], &hash.to_be_bytes()].concat();
    let nil = || vec![0xc0];
    let mut fields =
        vec![("event_id", vec![0x07]), ("timestamp", uint64(TIME_MS)), ("event_type", string(word))];
    if names == Names::Both {
        fields.push(("type", string(tag)));
    }
    fields.extend([("model_name", nil()), ("block_size", nil()), ("additional_salt", nil())]);
    fields.extend([("lora_name", nil()), ("tenant_id", string("default")), ("backend_id", string("pool-0"))]);
    fields.extend([
        ("group_id", string("sglang-hicache:e3b0")),
        ("medium", string("cpu")),
        ("dp_rank", nil()),
    ]);
    fields
        .push(("object_key", string("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855_0_k")));
    fields.push(("seq_hashes", hashes(&uint64)));
    if names == Names::Both {
        fields.push(("block_hashes", hashes(&signed)));
    }
    if stored {
        fields.extend([("base_block_idx", vec![0x00]), ("parent_hash", nil()), ("token_ids", nil())]);
        if names == Names::Both {
            fields.push(("parent_block_hash", nil()));
        }
    } else {
        fields.push(("base_block_idx", nil()));
    }
    map(&fields)
}

fn map(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0xde, 0, u8::try_from(fields.len()).unwrap()];
    for (name, value) in fields {
        text(&mut out, name);
        out.extend(value);
    }
    out
}

fn batch(events: &[Vec<u8>]) -> DecodedBatch {
    let count = u8::try_from(events.len()).unwrap();
    decode(&[&[0x93][..], &uint64(TIME_MS), &[0x90 | count], &events.concat(), &[0x00]].concat()).unwrap()
}

/// Known by its hash alone: neither tokens nor block size nor parent are on the wire.
fn stored(hashes: &[u64]) -> KvEvent {
    KvEvent::BlockStored(BlockStored {
        block_hashes: hashes.iter().copied().map(EngineBlockHash).collect(),
        tier: Tier::Host,
        carries_extra_keys: true,
        ..BlockStored::default()
    })
}

fn removed(hashes: &[u64]) -> KvEvent {
    let block_hashes = hashes.iter().copied().map(EngineBlockHash).collect();
    KvEvent::BlockRemoved(BlockRemoved { block_hashes, tier: Tier::Host, ..BlockRemoved::default() })
}

#[test]
fn what_the_store_sends_is_understood_with_and_without_the_engines_names() {
    for names in [Names::Both, Names::Standard] {
        let decoded = batch(&[
            event(true, Some(HASH), names),
            event(false, Some(HASH), names),
            event(true, None, names),
        ]);
        assert_eq!(decoded.batch.events, [stored(&[HASH]), removed(&[HASH]), stored(&[])]);
        assert_eq!((decoded.batch.engine_time_ms, decoded.batch.dp_rank), (TIME_MS, Some(DpRank(0))));
        let left_out = (decoded.unknown_events, decoded.skipped.total(), decoded.events_without_tokens);
        assert_eq!(left_out, (0, 0, 0));
    }
}

/// The standard's own example of a stored event (Mooncake, `docs/source/api-reference/http/conductor-indexer.md`),
/// with tokens for its three blocks.
#[test]
fn an_event_of_the_standard_with_parent_and_tokens_is_understood() {
    let standard = |salt: Vec<u8>| {
        let mut word = Vec::new();
        text(&mut word, "stored");
        map(&[
            ("event_id", vec![42]),
            ("event_type", word),
            ("block_size", vec![2]),
            ("additional_salt", salt),
            ("dp_rank", vec![0]),
            ("seq_hashes", vec![0x93, 11, 12, 13]),
            ("base_block_idx", vec![5]),
            ("parent_hash", vec![9]),
            ("token_ids", vec![0x96, 1, 2, 3, 4, 5, 6]),
        ])
    };
    let expected = BlockStored {
        block_hashes: [11, 12, 13].map(EngineBlockHash).to_vec(),
        parent: Some(EngineBlockHash(9)),
        token_ids: vec![1, 2, 3, 4, 5, 6],
        block_size: 2,
        carries_extra_keys: true,
        ..BlockStored::default()
    };
    let decoded = batch(&[standard(vec![0xc0])]);
    assert_eq!(decoded.batch.events, [KvEvent::BlockStored(expected.clone())]);
    assert_eq!(decoded.events_without_tokens, 0);
    // A deployment's salt is part of its hashes: without it the tokens would name other blocks.
    let salted = batch(&[standard(vec![0xa2, b'w', b'8'])]);
    assert_eq!(
        salted.batch.events,
        [KvEvent::BlockStored(BlockStored { token_ids: Vec::new(), ..expected })]
    );
    assert_eq!(salted.events_without_tokens, 1);
}

#[test]
fn where_both_names_are_there_the_engines_own_count() {
    let both = map(&[
        ("type", [&[0xab][..], b"BlockStored"].concat()),
        ("block_hashes", vec![0x91, 1]),
        ("parent_block_hash", vec![2]),
        ("seq_hashes", vec![0x91, 3]),
        ("parent_hash", vec![4]),
    ]);
    let decoded = batch(&[both]);
    let [KvEvent::BlockStored(event)] = &decoded.batch.events[..] else { panic!("{decoded:?}") };
    assert_eq!((event.block_hashes[0].0, event.parent.unwrap().0), (1, 2));
}

#[test]
fn a_clear_of_one_medium_is_the_devices_or_left_out_and_counted() {
    let cleared = |medium: &str| {
        let string = |value: &str| {
            let mut out = Vec::new();
            text(&mut out, value);
            out
        };
        batch(&[map(&[("event_type", string("cleared")), ("medium", string(medium))])])
    };
    assert_eq!(cleared("gpu").batch.events, [KvEvent::AllBlocksCleared]);
    let other = cleared("cpu");
    assert_eq!((other.batch.events.len(), other.skipped.malformed), (0, 1), "the index is told of these");
}

/// Earlier designs of the store (its `mooncake_event_subscriber_guide.md`) name other events in positional form.
#[test]
fn the_stores_former_events_are_unknown_and_passed_over() {
    let name = [&[0x92, 0xaf][..], b"BlockStoreEvent", &[0xa1, b'k']].concat();
    let decoded = batch(&[name, event(true, Some(1), Names::Both)]);
    assert_eq!((decoded.unknown_events, decoded.batch.events), (1, vec![stored(&[1])]));
}
