//! Entries and marks as bytes on disk.
//!
//! ```text
//! entry: version 1 | kind | term u64 | position u64 | payload ...            | checksum u64
//! mark:  version 1 | a u64 | b u64 | c u64                                   | checksum u64
//! ```
//! Numbers are little-endian. Kinds: 0 blank, 1 commands, 2 membership (msgpack of voters and nodes). `position` is
//! how many bytes of entries the shard's log had seen before this one, so that the size of a log is a subtraction.
//! A mark's numbers: vote = term, node, 1 if a quorum agreed; committed = term, index, 0; purged = term, index,
//! position of the entry after it. The checksum is XXH3-64 over shard, index (or the mark's byte) and all bytes before
//! it: a record at the wrong place is damaged too. openraft's own serialisation is not used, since it changes between
//! releases.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::Xxh3;

use super::super::ids::{NodeAddress, NodeId, ShardId};
use super::super::raft::{Entry, LogId, Payload, Vote};
use super::backend::Mark;
use super::error::LogError;

const VERSION: u8 = 1;
const CHECKSUM: usize = 8;
const ENTRY_HEAD: usize = 18;
const MARK: usize = 25 + CHECKSUM;

const BLANK: u8 = 0;
const COMMANDS: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Where a record belongs, for its checksum and for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) shard: ShardId,
    pub(super) what: What,
    /// The directory.
    pub(super) place: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Entry(u64),
    Mark(Mark),
}

impl At<'_> {
    fn describe(&self) -> String {
        match self.what {
            What::Entry(index) => format!("entry {index}"),
            What::Mark(mark) => format!("mark {mark:?}").to_lowercase(),
        }
    }

    fn damaged(&self, why: impl Into<String>) -> LogError {
        LogError::Damaged {
            shard: self.shard,
            what: self.describe(),
            place: self.place.to_owned(),
            why: why.into(),
        }
    }

    fn checksum(&self, bytes: &[u8]) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.update(&self.shard.0.to_le_bytes());
        match self.what {
            What::Entry(index) => hasher.update(&index.to_le_bytes()),
            What::Mark(mark) => hasher.update(&[mark.byte()]),
        }
        hasher.update(bytes);
        hasher.digest()
    }

    fn seal(&self, mut bytes: BytesMut) -> Bytes {
        let sum = self.checksum(&bytes);
        bytes.put_u64_le(sum);
        bytes.freeze()
    }

    /// The record without its checksum, which is right.
    fn open(&self, record: &Bytes, at_least: usize) -> Result<Bytes, LogError> {
        let found = record.first().copied().ok_or_else(|| self.damaged("it is empty"))?;
        if record.len() < at_least + CHECKSUM {
            return Err(self.damaged(format!("it has {} bytes", record.len())));
        }
        let body = record.slice(..record.len() - CHECKSUM);
        if self.checksum(&body) != read_u64(record, record.len() - CHECKSUM) {
            return Err(self.damaged("its checksum does not fit"));
        }
        if found != VERSION {
            return Err(LogError::Newer {
                shard: self.shard,
                what: self.describe(),
                place: self.place.to_owned(),
                found,
                known: VERSION,
            });
        }
        Ok(body)
    }
}

/// Zero when there are too few bytes, which the length check before has ruled out.
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..at + 8).and_then(|slice| slice.try_into().ok());
    u64::from_le_bytes(eight.unwrap_or_default())
}

/// Voters, as one set or as two while they change, and every node's address.
#[derive(Serialize, Deserialize)]
struct StoredMembers {
    voters: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, NodeAddress>,
}

/// An entry, and how many bytes of entries there were before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) entry: Entry,
    pub(super) position: u64,
}

/// An entry as bytes.
pub(super) fn encode_entry(shard: ShardId, entry: &Entry, position: u64) -> Result<Bytes, LogError> {
    let at = At { shard, what: What::Entry(entry.log_id.index), place: "memory" };
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(Payload(bytes)) => (COMMANDS, bytes.clone()),
        EntryPayload::Membership(members) => {
            let nodes = members.nodes().map(|(id, node)| (*id, node.clone())).collect();
            let stored = StoredMembers { voters: members.get_joint_config().clone(), nodes };
            let bytes = rmp_serde::to_vec(&stored).map_err(|error| at.damaged(error.to_string()))?;
            (MEMBERSHIP, bytes.into())
        }
    };
    let mut bytes = BytesMut::with_capacity(ENTRY_HEAD + payload.len() + CHECKSUM);
    bytes.put_u8(VERSION);
    bytes.put_u8(kind);
    bytes.put_u64_le(entry.log_id.leader_id.term);
    bytes.put_u64_le(position);
    bytes.put_slice(&payload);
    Ok(at.seal(bytes))
}

/// The entry at `index`.
pub(super) fn decode_entry(
    shard: ShardId,
    index: u64,
    record: &Bytes,
    place: &str,
) -> Result<Stored, LogError> {
    let at = At { shard, what: What::Entry(index), place };
    let body = at.open(record, ENTRY_HEAD)?;
    let payload = body.slice(ENTRY_HEAD..);
    let payload = match body.get(1) {
        Some(&BLANK) => EntryPayload::Blank,
        Some(&COMMANDS) => EntryPayload::Normal(Payload(payload)),
        Some(&MEMBERSHIP) => {
            let StoredMembers { voters, nodes } =
                rmp_serde::from_slice(&payload).map_err(|error| at.damaged(error.to_string()))?;
            let members =
                openraft::Membership::new(voters, nodes).map_err(|error| at.damaged(error.to_string()))?;
            EntryPayload::Membership(members)
        }
        kind => return Err(at.damaged(format!("its kind is {kind:?}"))),
    };
    let log_id = LogId::new_term_index(read_u64(&body, 2), index);
    Ok(Stored { entry: Entry { log_id, payload }, position: read_u64(&body, 10) })
}

fn encode_mark(shard: ShardId, mark: Mark, numbers: [u64; 3]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(MARK);
    bytes.put_u8(VERSION);
    numbers.iter().for_each(|number| bytes.put_u64_le(*number));
    At { shard, what: What::Mark(mark), place: "memory" }.seal(bytes)
}

fn decode_mark(shard: ShardId, mark: Mark, record: &Bytes, place: &str) -> Result<[u64; 3], LogError> {
    let body = At { shard, what: What::Mark(mark), place }.open(record, MARK - CHECKSUM)?;
    Ok([read_u64(&body, 1), read_u64(&body, 9), read_u64(&body, 17)])
}

/// A vote as a mark.
pub(super) fn encode_vote(shard: ShardId, vote: &Vote) -> Bytes {
    let numbers = [vote.leader_id.term, vote.leader_id.voted_for.0, u64::from(vote.committed)];
    encode_mark(shard, Mark::Vote, numbers)
}

/// The vote of a mark.
pub(super) fn decode_vote(shard: ShardId, record: &Bytes, place: &str) -> Result<Vote, LogError> {
    let [term, node, committed] = decode_mark(shard, Mark::Vote, record, place)?;
    Ok(if committed == 0 { Vote::new(term, NodeId(node)) } else { Vote::new_committed(term, NodeId(node)) })
}

/// A place in the log as a mark, with the log's position there.
pub(super) fn encode_log_id(shard: ShardId, mark: Mark, id: &LogId, position: u64) -> Bytes {
    encode_mark(shard, mark, [id.leader_id.term, id.index, position])
}

/// The place of a mark, and the log's position there.
pub(super) fn decode_log_id(
    shard: ShardId,
    mark: Mark,
    record: &Bytes,
    place: &str,
) -> Result<(LogId, u64), LogError> {
    let [term, index, position] = decode_mark(shard, mark, record, place)?;
    Ok((LogId::new_term_index(term, index), position))
}
