//! Peer messages: what a shard on one node says to the same shard on another. Own structures in msgpack, not
//! openraft's, whose layout changes between releases; golden bytes hold them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::ids::{NodeAddress, NodeId};
use super::raft::{Entry, LogId, Payload, Raft, StoredMembership, Vote};

/// (Term, index).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WirePosition(u64, u64);

impl From<LogId> for WirePosition {
    fn from(id: LogId) -> Self {
        Self(id.leader_id.term, id.index)
    }
}

impl From<WirePosition> for LogId {
    fn from(at: WirePosition) -> Self {
        Self::new_term_index(at.0, at.1)
    }
}

/// (Term, for whom, whether a quorum agreed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireVote(u64, NodeId, bool);

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        Self(vote.leader_id.term, vote.leader_id.voted_for, vote.committed)
    }
}

impl From<WireVote> for Vote {
    fn from(WireVote(term, node, committed): WireVote) -> Self {
        if committed { Self::new_committed(term, node) } else { Self::new(term, node) }
    }
}

/// Voters, as one set or as two while they change, and every node's address, learners' too.
type MembershipParts = (Vec<BTreeSet<NodeId>>, BTreeMap<NodeId, NodeAddress>);

/// Sent as [`MembershipParts`]; a voter without an address is refused where it is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "MembershipParts", try_from = "MembershipParts")]
pub(crate) struct WireMembership(Membership);

type Membership = openraft::Membership<NodeId, NodeAddress>;

impl From<WireMembership> for MembershipParts {
    fn from(WireMembership(membership): WireMembership) -> Self {
        let nodes = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        (membership.get_joint_config().clone(), nodes)
    }
}

impl TryFrom<MembershipParts> for WireMembership {
    type Error = String;

    fn try_from((voters, nodes): MembershipParts) -> Result<Self, String> {
        Membership::new(voters, nodes).map(Self).map_err(|error| error.to_string())
    }
}

/// A membership and the entry that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct WireStoredMembership(Option<WirePosition>, WireMembership);

impl From<&StoredMembership> for WireStoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self(stored.log_id().map(Into::into), WireMembership(stored.membership().clone()))
    }
}

impl From<WireStoredMembership> for StoredMembership {
    fn from(WireStoredMembership(at, membership): WireStoredMembership) -> Self {
        Self::new(at.map(Into::into), membership.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum WireBody {
    Blank,
    Commands(Bytes),
    Membership(WireMembership),
}

/// One log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireEntry(WirePosition, WireBody);

impl From<Entry> for WireEntry {
    fn from(entry: Entry) -> Self {
        let body = match entry.payload {
            EntryPayload::Blank => WireBody::Blank,
            EntryPayload::Normal(Payload(bytes)) => WireBody::Commands(bytes),
            EntryPayload::Membership(membership) => WireBody::Membership(WireMembership(membership)),
        };
        Self(entry.log_id.into(), body)
    }
}

impl From<WireEntry> for Entry {
    fn from(WireEntry(at, body): WireEntry) -> Self {
        let payload = match body {
            WireBody::Blank => EntryPayload::Blank,
            WireBody::Commands(bytes) => EntryPayload::Normal(Payload(bytes)),
            WireBody::Membership(membership) => EntryPayload::Membership(membership.0),
        };
        Self { log_id: at.into(), payload }
    }
}

/// What one node's shard asks another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Entries to append, or none as a heartbeat.
    Append {
        /// The leader's.
        vote: WireVote,
        /// The entry before the first.
        previous: Option<WirePosition>,
        /// The entries.
        entries: Vec<WireEntry>,
        /// Up to where the leader has committed.
        commit: Option<WirePosition>,
    },
    /// A vote, or with `trial` the question whether it would be given.
    Vote {
        /// The candidate's.
        vote: WireVote,
        /// The candidate's last entry.
        last: Option<WirePosition>,
        /// The old leader asked for this election.
        transfer: bool,
        /// Only a question.
        trial: bool,
    },
    /// The leader wants the receiver to lead.
    Transfer {
        /// The leader's.
        vote: WireVote,
        /// Who shall lead.
        to: NodeId,
        /// What it must have.
        last: Option<WirePosition>,
    },
    /// A part of a snapshot; the last one completes it.
    Snapshot {
        /// The leader's.
        vote: WireVote,
        /// Tells transfers apart.
        transfer: u64,
        /// Where in the snapshot this part begins.
        offset: u64,
        /// Bytes of the whole snapshot.
        total: u64,
        /// The part.
        part: Bytes,
    },
    /// Up to where one must have applied to read what was acknowledged before this moment.
    ReadPosition {
        /// The leader may trust its lease.
        lease: bool,
    },
    /// Commands to propose, encoded as an entry.
    Propose(Bytes),
    /// To a follower whose log went back.
    WentBack {
        /// The last entry that it acknowledged to the sender, which leads.
        had: WirePosition,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// All entries are in the log.
    Appended,
    /// The entries up to here are.
    AppendedUpTo(Option<WirePosition>),
    /// The entry before the first is not there, or another one is.
    Conflict,
    /// There is a later vote.
    HigherVote(WireVote),
    /// Whether the vote was given.
    Vote {
        /// The receiver's.
        vote: WireVote,
        /// Given.
        granted: bool,
        /// Its last entry.
        last: Option<WirePosition>,
    },
    /// Leadership is being taken over.
    Transferring,
    /// The snapshot's part is there, or with the last one, the snapshot; the receiver's vote.
    SnapshotTaken(Option<WireVote>),
    /// The part was not expected: the transfer has to begin anew.
    SnapshotLost,
    /// Read once this is applied.
    ReadPosition(WirePosition),
    /// The proposal is applied: where, and what it answered.
    Proposed(WirePosition, Bytes),
    /// The receiver does not lead; who does, if known. Nothing was done.
    NotLeader(Option<NodeId>),
    /// It is not known whether it will happen.
    Unsure(String),
    /// Nothing was done.
    Failed(String),
    /// What was told is known.
    Noted,
}

impl From<AppendEntriesRequest<Raft>> for Request {
    fn from(rpc: AppendEntriesRequest<Raft>) -> Self {
        Self::Append {
            vote: (&rpc.vote).into(),
            previous: rpc.prev_log_id.map(Into::into),
            entries: rpc.entries.into_iter().map(Into::into).collect(),
            commit: rpc.leader_commit.map(Into::into),
        }
    }
}

impl Request {
    pub(crate) fn vote(rpc: &VoteRequest<Raft>, trial: bool) -> Self {
        Self::Vote {
            vote: (&rpc.vote).into(),
            last: rpc.last_log_id.map(Into::into),
            transfer: rpc.leadership_transfer,
            trial,
        }
    }
}

impl From<AppendEntriesResponse<Raft>> for Response {
    fn from(answer: AppendEntriesResponse<Raft>) -> Self {
        match answer {
            AppendEntriesResponse::Success => Self::Appended,
            AppendEntriesResponse::PartialSuccess(at) => Self::AppendedUpTo(at.map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote((&vote).into()),
        }
    }
}

impl From<VoteResponse<Raft>> for Response {
    fn from(answer: VoteResponse<Raft>) -> Self {
        Self::Vote {
            vote: (&answer.vote).into(),
            granted: answer.vote_granted,
            last: answer.last_log_id.map(Into::into),
        }
    }
}

impl Response {
    /// As the answer to an append; `None` when it is none.
    pub(crate) fn into_append(self) -> Option<AppendEntriesResponse<Raft>> {
        Some(match self {
            Self::Appended => AppendEntriesResponse::Success,
            Self::AppendedUpTo(at) => AppendEntriesResponse::PartialSuccess(at.map(Into::into)),
            Self::Conflict => AppendEntriesResponse::Conflict,
            Self::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
            _ => return None,
        })
    }

    /// As the answer to a vote; `None` when it is none.
    pub(crate) fn into_vote(self) -> Option<VoteResponse<Raft>> {
        match self {
            Self::Vote { vote, granted, last } => {
                let vote: Vote = vote.into();
                Some(VoteResponse::new(vote, last.map(Into::into), granted))
            }
            _ => None,
        }
    }
}
