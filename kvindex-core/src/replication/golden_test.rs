//! Golden bytes of what nodes say to each other and of a shard's snapshot. Set `KVINDEX_WRITE_GOLDEN=1` to write
//! them for a new version, beside the old ones.
#![allow(clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{EntryPayload, Membership};
use std::collections::{BTreeMap, BTreeSet};

use super::container::{Packer, unpack};
use super::envelope::{ClusterId, Envelope, Refusal};
use super::ids::{NodeAddress, NodeId, ShardId};
use super::raft::{Entry, LogId, Payload, SnapshotMeta, StoredMembership, Vote};
use super::wire::{Request, Response};

const ENVELOPE: Envelope = Envelope { cluster: ClusterId(0x1234), from: NodeId(1), shard: ShardId(3) };

fn golden(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("KVINDEX_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    assert!(kept == bytes, "{name} changed: {} bytes kept, {} now", kept.len(), bytes.len());
}

fn at(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

fn members() -> Membership<NodeId, NodeAddress> {
    let address = |n: u64| NodeAddress { peer: format!("node-{n}:9591"), public: format!("node-{n}:9590") };
    let nodes: BTreeMap<NodeId, NodeAddress> = (1..=3).map(|n| (NodeId(n), address(n))).collect();
    let voters = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect::<BTreeSet<_>>();
    Membership::new(vec![voters(&[1, 2]), voters(&[1, 2, 3])], nodes).unwrap()
}

fn requests() -> Vec<Request> {
    let vote = Vote::new_committed(7, NodeId(2));
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Payload(Bytes::from_static(b"commands"))),
        EntryPayload::Membership(members()),
    ];
    let entries = (10..).zip(payloads).map(|(index, payload)| Entry { log_id: at(7, index), payload }.into());
    let last = Some(at(7, 9).into());
    vec![
        Request::Append { vote: (&vote).into(), previous: last, entries: entries.collect(), commit: None },
        Request::Vote { vote: (&Vote::new(8, NodeId(3))).into(), last, transfer: false, trial: true },
        Request::Transfer { vote: (&vote).into(), to: NodeId(3), last },
        Request::Snapshot {
            vote: (&vote).into(),
            transfer: 1,
            offset: 4,
            total: 9,
            part: Bytes::from_static(b"parts"),
        },
        Request::ReadPosition { lease: true },
        Request::Propose(Bytes::from_static(b"entry")),
        Request::WentBack { had: at(7, 9).into() },
    ]
}

fn responses() -> Vec<Response> {
    let vote = Vote::new(8, NodeId(3));
    let last = Some(at(7, 9).into());
    vec![
        Response::Appended,
        Response::AppendedUpTo(last),
        Response::Conflict,
        Response::HigherVote((&vote).into()),
        Response::Vote { vote: (&vote).into(), granted: true, last },
        Response::Transferring,
        Response::SnapshotTaken(Some((&vote).into())),
        Response::SnapshotLost,
        Response::ReadPosition(at(7, 9).into()),
        Response::Proposed(at(7, 9).into(), Bytes::from_static(b"answer")),
        Response::NotLeader(Some(NodeId(2))),
        Response::Unsure("why".into()),
        Response::Failed("why".into()),
        Response::Noted,
    ]
}

/// All messages in a row, each behind its length.
#[test]
fn peer_messages_version_1() {
    let mut all = BytesMut::new();
    let mut keep = |message: Bytes| {
        all.put_u32_le(u32::try_from(message.len()).unwrap());
        all.put_slice(&message);
        message
    };
    for request in requests() {
        let bytes = keep(ENVELOPE.request(NodeId(2), &request));
        let opened = Envelope::open(ENVELOPE.cluster, NodeId(2), 8, &bytes).unwrap();
        assert_eq!((opened.from, opened.shard, opened.request), (NodeId(1), ShardId(3), request));
    }
    for response in responses() {
        let bytes = keep(Envelope::answer(&Ok(response.clone())));
        assert_eq!(Envelope::response(&bytes).unwrap(), response);
    }
    keep(Envelope::answer(&Err(Refusal::NoMember)));
    golden("peer-messages-v1.bin", &all);
}

#[test]
fn a_message_cut_off_or_flipped_anywhere_is_refused_or_another_message() {
    for request in requests() {
        let bytes = ENVELOPE.request(NodeId(2), &request);
        for end in 0..bytes.len() {
            assert!(
                Envelope::open(ENVELOPE.cluster, NodeId(2), 8, &bytes[..end]).is_err(),
                "{request:?} to {end}"
            );
        }
        for place in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[place] ^= 0x41;
            // Must not panic; integrity is the transport's.
            let _ = Envelope::open(ENVELOPE.cluster, NodeId(2), 8, &flipped);
        }
    }
}

fn snapshot() -> (SnapshotMeta, Bytes) {
    let meta = SnapshotMeta {
        last_log_id: Some(at(7, 9)),
        last_membership: StoredMembership::new(Some(at(2, 1)), members()),
    };
    let mut packer = Packer::new(ShardId(3), &meta);
    packer.push(b"first piece");
    packer.push(&[0; 300]);
    let bytes = packer.finish();
    (meta, bytes)
}

#[test]
fn a_shards_snapshot_version_1() {
    let (meta, bytes) = snapshot();
    golden("shard-snapshot-v1.bin", &bytes);
    let (read, pieces) = unpack(ShardId(3), &bytes).unwrap();
    assert_eq!(read, meta);
    assert_eq!(pieces, [Bytes::from_static(b"first piece"), Bytes::from(vec![0; 300])]);
}

#[test]
fn a_damaged_foreign_or_newer_snapshot_is_told_apart() {
    let (_, bytes) = snapshot();
    for place in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 1;
        assert!(unpack(ShardId(3), &flipped.into()).is_err(), "a flip at {place} goes unnoticed");
        assert!(unpack(ShardId(3), &bytes.slice(..place)).is_err(), "a cut at {place} goes unnoticed");
    }
    let said = |bytes: &[u8], shard: u16| {
        unpack(ShardId(shard), &Bytes::copy_from_slice(bytes)).unwrap_err().to_string()
    };
    assert_eq!(said(b"something else", 3), "it is no snapshot of a shard");
    assert_eq!(said(&bytes, 4), "it is of shard 3");
    let mut newer = bytes.to_vec();
    newer[8] = 9;
    assert!(said(&newer, 3).contains("of version 9, this program reads up to 1: upgrade this node first"));
}
