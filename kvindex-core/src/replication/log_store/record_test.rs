//! The bytes of records, held by a golden file: what an old node wrote must be read for ever.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};

use super::super::ids::{NodeAddress, NodeId, ShardId};
use super::super::raft::{Entry, LogId, Payload, Vote};
use super::backend::Mark;
use super::error::LogError;
use super::record::{decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote};

/// Records of version 1, each after its length.
const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/log-records-v1.bin");
const SHARD: ShardId = ShardId(0x0102);

fn entries() -> Vec<Entry> {
    let id = |term, index| LogId::new_term_index(term, index);
    let address = |n: u16| NodeAddress { peer: format!("node-{n}:7000"), public: format!("node-{n}:8000") };
    let nodes: BTreeMap<_, _> = (1..=4).map(|n| (NodeId(n.into()), address(n))).collect();
    let voters = |ids: [u64; 3]| ids.map(NodeId).into_iter().collect::<BTreeSet<_>>();
    let changing = Membership::new(vec![voters([1, 2, 3]), voters([2, 3, 4])], nodes).unwrap();
    vec![
        Entry { log_id: id(1, 0), payload: EntryPayload::Blank },
        Entry {
            log_id: id(1, 1),
            payload: EntryPayload::Normal(Payload(Bytes::from_static(b"some commands"))),
        },
        Entry { log_id: id(3, 2), payload: EntryPayload::Membership(changing) },
        Entry { log_id: id(u64::MAX, u64::MAX - 1), payload: EntryPayload::Normal(Payload(Bytes::new())) },
    ]
}

fn marks() -> [Bytes; 4] {
    let at = LogId::new_term_index(4, 77);
    [
        encode_vote(SHARD, &Vote::new(5, NodeId(9))),
        encode_vote(SHARD, &Vote::new_committed(6, NodeId(8))),
        encode_log_id(SHARD, Mark::Committed, &at, 0),
        encode_log_id(SHARD, Mark::Purged, &at, 123_456),
    ]
}

fn written() -> Vec<Bytes> {
    let entries = entries();
    let records = entries.iter().zip(0..).map(|(entry, at)| encode_entry(SHARD, entry, 1000 * at).unwrap());
    records.chain(marks()).collect()
}

fn golden() -> Vec<Bytes> {
    let mut rest = Bytes::from_static(GOLDEN);
    let mut records = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest.split_to(1)[0]);
        records.push(rest.split_to(length));
    }
    records
}

#[test]
fn records_are_written_as_ever() {
    let bytes: Vec<u8> = written()
        .iter()
        .flat_map(|record| [&[u8::try_from(record.len()).unwrap()], record.as_ref()].concat())
        .collect();
    if std::env::var_os("KVINDEX_WRITE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/log-records-v1.bin"), &bytes)
            .unwrap();
        return;
    }
    assert_eq!(bytes, GOLDEN);
}

#[test]
fn records_are_read_for_ever() {
    let golden = golden();
    for ((entry, record), at) in entries().into_iter().zip(&golden).zip(0..) {
        let stored = decode_entry(SHARD, entry.log_id.index, record, "here").unwrap();
        assert_eq!((stored.entry, stored.position), (entry, 1000 * at));
    }
    let [granted, quorum, committed, purged] = <[Bytes; 4]>::try_from(golden[4..].to_vec()).unwrap();
    assert_eq!(decode_vote(SHARD, &granted, "here"), Ok(Vote::new(5, NodeId(9))));
    assert_eq!(decode_vote(SHARD, &quorum, "here"), Ok(Vote::new_committed(6, NodeId(8))));
    let at = LogId::new_term_index(4, 77);
    assert_eq!(decode_log_id(SHARD, Mark::Committed, &committed, "here"), Ok((at, 0)));
    assert_eq!(decode_log_id(SHARD, Mark::Purged, &purged, "here"), Ok((at, 123_456)));
}

#[test]
fn marks_are_damaged_by_any_bit_and_at_any_other_place() {
    let record = marks()[3].clone();
    let read = |shard, mark, record: Vec<u8>| decode_log_id(shard, mark, &record.into(), "here");
    for bit in 0..record.len() * 8 {
        let mut record = record.to_vec();
        record[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(read(SHARD, Mark::Purged, record), Err(LogError::Damaged { .. })), "bit {bit}");
    }
    assert!(read(SHARD, Mark::Committed, record.to_vec()).is_err());
    assert!(read(ShardId(0), Mark::Purged, record.to_vec()).is_err());
}

/// A record of a later version is not called damaged: its checksum is found where it always was.
#[test]
fn a_later_version_asks_for_an_upgrade() {
    let mut record = marks()[2].to_vec();
    record[0] = 2;
    let body = record.len() - 8;
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&SHARD.0.to_le_bytes());
    hasher.update(b"c");
    hasher.update(&record[..body]);
    record[body..].copy_from_slice(&hasher.digest().to_le_bytes());
    let error = decode_log_id(SHARD, Mark::Committed, &record.into(), "/data/log").unwrap_err();
    assert_eq!(
        error.to_string(),
        "shard 258, mark committed, in /data/log has version 2, this program reads up to 1: upgrade this node"
    );
}
