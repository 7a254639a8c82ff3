//! Bad, odd and hostile payloads: each loses no more than it must, and none panics.
#![allow(clippy::unwrap_used)]

use kvindex_core::limits::{MAX_BLOCK_SIZE, MAX_BLOCKS_PER_EVENT, MAX_NAME_BYTES, MAX_SALT_BYTES};
use kvindex_core::{BlockStored, EngineBlockHash, ExtraKey, KvEvent, Tier};
use proptest::prelude::*;
use rmp::encode::{
    write_array_len, write_bin, write_f64, write_map_len, write_nil, write_sint, write_str, write_u64,
};

use super::vectors_test::payloads;
use super::{DecodeError, DecodedBatch, decode};

/// A value to encode: just enough msgpack to write odd events readably.
#[derive(Clone)]
enum V {
    Nil,
    Int(i64),
    Big(u64),
    Text(&'static str),
    Bytes(Vec<u8>),
    List(Vec<V>),
    Map(Vec<(V, V)>),
}

use V::{Big, Bytes, Int, List, Map, Nil, Text};

fn put(out: &mut Vec<u8>, value: &V) {
    match value {
        Nil => write_nil(out).unwrap(),
        Int(n) => {
            write_sint(out, *n).unwrap();
        }
        Big(n) => write_u64(out, *n).unwrap(),
        Text(text) => write_str(out, text).unwrap(),
        Bytes(bytes) => write_bin(out, bytes).unwrap(),
        List(items) => {
            write_array_len(out, u32::try_from(items.len()).unwrap()).unwrap();
            items.iter().for_each(|item| put(out, item));
        }
        Map(entries) => {
            write_map_len(out, u32::try_from(entries.len()).unwrap()).unwrap();
            for (key, value) in entries {
                put(out, key);
                put(out, value);
            }
        }
    }
}

fn payload(events: Vec<V>) -> Vec<u8> {
    let mut out = Vec::new();
    write_array_len(&mut out, 3).unwrap();
    write_f64(&mut out, 1.5).unwrap();
    put(&mut out, &List(events));
    put(&mut out, &Int(0));
    out
}

fn ints(values: impl IntoIterator<Item = i64>) -> V {
    List(values.into_iter().map(Int).collect())
}

/// A stored event of two blocks of two tokens, with some fields replaced.
fn stored(changes: &[(&'static str, V)]) -> V {
    let mut fields = vec![
        ("type", Text("BlockStored")),
        ("block_hashes", ints([11, 12])),
        ("parent_block_hash", Nil),
        ("token_ids", ints([1, 2, 3, 4])),
        ("block_size", Int(2)),
    ];
    for (name, value) in changes {
        fields.retain(|(field, _)| field != name);
        fields.push((*name, value.clone()));
    }
    Map(fields.into_iter().map(|(name, value)| (Text(name), value)).collect())
}

fn removed(hash: i64) -> V {
    List(vec![Text("BlockRemoved"), ints([hash])])
}

/// Decodes one event between two good ones, which must survive.
fn between(event: V) -> DecodedBatch {
    let decoded = decode(&payload(vec![removed(1), event, removed(2)])).unwrap();
    let events = &decoded.batch.events;
    assert_eq!(events.first(), Some(&removed_event(1)));
    assert_eq!(events.last(), Some(&removed_event(2)));
    decoded
}

fn removed_event(hash: u64) -> KvEvent {
    let block_hashes = vec![EngineBlockHash(hash)];
    KvEvent::BlockRemoved(kvindex_core::BlockRemoved { block_hashes, ..Default::default() })
}

fn only_stored(decoded: &DecodedBatch) -> &BlockStored {
    match &decoded.batch.events[..] {
        [_, KvEvent::BlockStored(stored), _] => stored,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_tags_keys_and_fields_are_passed_over() {
    let unknown = [
        List(vec![Text("BlockMigrated"), Map(vec![(Int(1), Nil)])]),
        Map(vec![(Text("type"), Text("Heartbeat")), (Text("block_hashes"), Text("not hashes"))]),
        Map(vec![(Text("event_type"), Text("updated")), (Text("seq_hashes"), ints([1]))]),
        Map(vec![(Text("seq_hashes"), ints([1]))]),
    ];
    for event in unknown {
        let decoded = between(event);
        assert_eq!((decoded.unknown_events, decoded.skipped.total()), (1, 0));
    }
    let odd_map = stored(&[("wings", List(vec![Nil, ints([1])])), ("medium", Text("cpu"))]);
    assert_eq!(only_stored(&between(odd_map)).tier, Tier::Host);
    let mut long = vec![Text("BlockStored"), ints([7]), Nil, ints([1, 2]), Int(2), Nil, Nil, Nil, Nil];
    long.extend([Int(3), Text("mla"), Nil, Text("new"), ints([1])]);
    let decoded = between(List(long));
    assert_eq!((only_stored(&decoded).group.0, decoded.unknown_events), (3, 0));
}

#[test]
fn a_type_after_the_fields_is_found() {
    let event = stored(&[("type", Text("BlockStored"))]);
    assert_eq!(only_stored(&between(event)).token_ids, [1, 2, 3, 4]);
}

#[test]
fn hashes_of_every_kind() {
    let wide = Bytes((0..32).collect());
    let kinds = List(vec![Int(-2), Big(u64::MAX), wide, Bytes(vec![1; 8])]);
    let decoded = between(stored(&[("block_hashes", kinds), ("parent_block_hash", Int(-9))]));
    let event = only_stored(&decoded);
    let expected = [u64::MAX - 1, u64::MAX, 0x1819_1a1b_1c1d_1e1f, 0x0101_0101_0101_0101];
    assert_eq!(event.block_hashes, expected.map(EngineBlockHash));
    assert_eq!(event.parent, Some(EngineBlockHash(9u64.wrapping_neg())));
}

#[test]
fn a_hash_of_unknown_width_loses_its_event_only() {
    for odd in [Bytes(vec![1, 2]), Bytes(vec![0; 65]), Text("abcd"), Nil, ints([1])] {
        let decoded = between(stored(&[("block_hashes", List(vec![Int(1), odd]))]));
        assert_eq!((decoded.skipped.hash_width, decoded.skipped.total()), (1, 1));
    }
}

#[test]
fn block_sizes_are_bounded() {
    let at_limit = i64::from(MAX_BLOCK_SIZE);
    assert_eq!(only_stored(&between(stored(&[("block_size", Int(at_limit))]))).block_size, MAX_BLOCK_SIZE);
    assert_eq!(only_stored(&between(stored(&[("block_size", Nil)]))).block_size, 0);
    for size in [at_limit + 1, -1] {
        let decoded = between(stored(&[("block_size", Int(size))]));
        assert_eq!((decoded.skipped.block_size, decoded.skipped.total()), (1, 1));
    }
}

#[test]
fn malformed_fields_lose_their_event_only() {
    let bad = [
        ("token_ids", Text("x")),
        ("lora_name", Int(1)),
        ("medium", Int(1)),
        ("group_idx", Int(70_000)),
        ("cache_salt", ints([1])),
        ("block_hashes", Map(vec![])),
        ("type", Nil),
    ];
    for (name, value) in bad {
        let decoded = between(stored(&[(name, value)]));
        assert_eq!((decoded.skipped.malformed, decoded.skipped.total()), (1, 1), "{name}");
    }
    for event in [Nil, Int(3), List(vec![]), List(vec![Int(1)])] {
        assert_eq!(between(event).skipped.malformed, 1);
    }
    let without_hashes = List(vec![Text("BlockRemoved")]);
    assert_eq!(between(without_hashes).skipped.malformed, 1);
}

#[test]
fn tokens_that_are_no_tokens_leave_the_hashes() {
    let pairs = List(vec![ints([1, 2]), ints([2, 3]), ints([3, 4]), ints([4, 5])]);
    let forms = [
        pairs,
        ints([1, -2, 3, 4]),
        List(vec![Int(1), Big(1 << 32), Int(3), Int(4)]),
        List(vec![Int(1), Big(1 << 63), Nil, Text("x")]),
        Bytes(vec![1, 2, 3]),
    ];
    for tokens in forms {
        let decoded = between(stored(&[("token_ids", tokens)]));
        let event = only_stored(&decoded);
        assert_eq!(event.block_hashes, [EngineBlockHash(11), EngineBlockHash(12)]);
        assert!(event.token_ids.is_empty());
        assert_eq!((decoded.events_without_tokens, decoded.skipped.total()), (1, 0));
    }
}

#[test]
fn tokens_of_every_kind() {
    let tokens = [0, 127, 128, 255, 256, 65_535, 65_536, i64::from(u32::MAX)];
    let decoded = between(stored(&[("token_ids", ints(tokens))]));
    assert_eq!(only_stored(&decoded).token_ids, tokens.map(|t| u32::try_from(t).unwrap()));
    let long_form = List(vec![Big(7), Int(8)]);
    assert_eq!(only_stored(&between(stored(&[("token_ids", long_form)]))).token_ids, [7, 8]);
    let packed = Bytes([1u32, 70_000].iter().flat_map(|t| t.to_le_bytes()).collect());
    let decoded = between(stored(&[("token_ids", packed)]));
    assert_eq!(
        (only_stored(&decoded).token_ids.as_slice(), decoded.events_without_tokens),
        (&[1, 70_000][..], 0)
    );
    assert!(only_stored(&between(stored(&[("token_ids", Nil)]))).token_ids.is_empty());
}

#[test]
fn extra_keys_of_every_form() {
    let text = |text: &str| ExtraKey::Text(text.into());
    let item = |identifier: &str, offset| ExtraKey::Item { identifier: identifier.into(), offset };
    let digest = || Bytes(vec![9; 32]);
    let cases = [
        (List(vec![Text("salt")]), vec![text("salt")]),
        (List(vec![List(vec![Text("img"), Int(-6)])]), vec![item("img", -6)]),
        (List(vec![List(vec![Text("mm"), Text("img"), Int(4)])]), vec![item("img", 4)]),
        (List(vec![List(vec![Text("mm"), Int(4)])]), vec![item("mm", 4)]),
        (List(vec![List(vec![Text("cache_salt"), Text("s")])]), vec![text("s")]),
        (List(vec![List(vec![Text("lora"), Text("n"), Text("/p")])]), vec![text("n")]),
        (List(vec![digest()]), vec![ExtraKey::Bytes(vec![9; 32])]),
        (List(vec![List(vec![Text("prompt_embeds"), digest()])]), vec![ExtraKey::Bytes(vec![9; 32])]),
    ];
    for (keys, expected) in cases {
        let decoded = between(stored(&[("extra_keys", List(vec![Nil, keys]))]));
        assert_eq!(only_stored(&decoded).extra_keys, [vec![], expected]);
        assert_eq!(decoded.events_without_tokens, 0);
    }
    for none in [Nil, List(vec![Nil, Nil])] {
        assert!(only_stored(&between(stored(&[("extra_keys", none)]))).extra_keys.is_empty());
    }
    for odd in [Text("x"), List(vec![Int(1), Nil]), List(vec![Nil, ints([1])])] {
        let decoded = between(stored(&[("extra_keys", odd)]));
        assert!(only_stored(&decoded).token_ids.is_empty(), "a guessed identity would match wrong prompts");
        assert_eq!(decoded.events_without_tokens, 1);
    }
}

#[test]
fn batches_of_two_three_or_more_elements_and_clocks_of_two_kinds() {
    let batch = |fields: Vec<V>| {
        let mut out = Vec::new();
        put(&mut out, &List(fields));
        decode(&out)
    };
    assert_eq!(
        batch(vec![Int(1_700_000_000_123), List(vec![])]).unwrap().batch.engine_time_ms,
        1_700_000_000_123
    );
    assert_eq!(
        batch(vec![Int(1_700_000_000), List(vec![])]).unwrap().batch.engine_time_ms,
        1_700_000_000_000
    );
    assert_eq!(batch(vec![Nil, List(vec![]), Int(2), Text("more")]).unwrap().batch.dp_rank.unwrap().0, 2);
    assert_eq!(batch(vec![Nil, List(vec![]), Int(-1)]).unwrap().batch.dp_rank, None);
    assert!(matches!(batch(vec![Nil]), Err(DecodeError::TooFew { field: "batch", len: 1, least: 2 })));
    assert!(matches!(batch(vec![Nil, Nil]), Err(DecodeError::WrongKind { field: "events", .. })));
}

#[test]
fn claims_beyond_the_payload_and_other_frames_are_errors_that_name_the_field() {
    let name = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert_eq!(name(b""), "batch: payload ends in the middle of it");
    assert_eq!(name(b"\x91"), "batch: claims 1 elements with 0 bytes left");
    assert_eq!(name(b"\x80"), "batch: expected an array, found a map");
    assert_eq!(name(b"\x05"), "batch: expected an array, found an integer");
    assert_eq!(name(b"\xdd\xff\xff\xff\xff\xc0"), "batch: claims 4294967295 elements with 1 bytes left");
    assert_eq!(name(b"\x92\xc0\x90\xc0"), "payload: 1 bytes after the batch");
    let mut huge = payload(vec![stored(&[])]);
    let at = huge.windows(2).position(|w| w == [0x92, 11]).unwrap();
    huge.splice(at..=at, [0xdd, 0x7f, 0xff, 0xff, 0xff]);
    assert!(name(&huge).starts_with("block_hashes: claims 2147483647 elements"));
    assert!(name(&vec![0; super::MAX_PAYLOAD_BYTES + 1]).contains("the limit is 67108864"));
    let blocks = vec![0; MAX_BLOCKS_PER_EVENT + 1];
    let event = List(vec![Text("BlockRemoved"), ints(blocks)]);
    assert!(name(&payload(vec![event])).contains(&format!("the limit is {MAX_BLOCKS_PER_EVENT}")));
}

#[test]
fn deep_nesting_costs_nothing() {
    let mut bytes = payload(vec![]);
    bytes.truncate(10); // up to the events
    bytes.push(0x91);
    bytes.extend(std::iter::repeat_n(0x91, 1_000_000));
    bytes.extend([0xc0, 0x00]);
    assert_eq!(decode(&bytes).unwrap().skipped.malformed, 1);
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..8);
    (prop::sample::select(payloads()), edits).prop_map(|(mut bytes, edits)| {
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), byte),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.get_mut(at).into_iter().for_each(|b| *b = byte),
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn arbitrary_events_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let mut payload = vec![0x92, 0xc0, 0x91, 0x9c, 0xab];
        payload.extend(b"BlockStored");
        payload.extend(bytes);
        let _ = decode(&payload);
    }

    #[test]
    fn mutated_real_payloads_never_panic(bytes in mutated()) {
        if let Ok(decoded) = decode(&bytes) {
            prop_assert!(super::blocks_of(&decoded.batch) <= bytes.len());
        }
    }
}

#[test]
fn a_name_that_a_namespace_would_keep_for_good_is_bounded() {
    let named = |field: &'static str, len: usize| stored(&[(field, Text("n".repeat(len).leak()))]);
    for (field, limit) in [("lora_name", MAX_NAME_BYTES), ("cache_salt", MAX_SALT_BYTES)] {
        let batch = decode(&payload(vec![named(field, limit), named(field, limit + 1)])).unwrap();
        assert_eq!(batch.batch.events.len(), 1, "{field}");
        assert!(matches!(batch.batch.events[0], KvEvent::BlockStored(_)), "{field}");
    }
    let metadata = |len: usize| {
        let salt = Text("n".repeat(len).leak());
        stored(&[("lora_name", Map(vec![(Text("cache_salt"), salt)]))])
    };
    let batch = decode(&payload(vec![metadata(MAX_SALT_BYTES), metadata(MAX_SALT_BYTES + 1)])).unwrap();
    assert_eq!(batch.batch.events.len(), 1);
}
