//! Which types openraft works with here.

use bytes::Bytes;
use openraft::TokioRuntime;
use openraft_rt::deterministic_rng::DeterministicRng;
use serde::{Deserialize, Serialize};
use std::fmt;

use super::ids::{NodeAddress, NodeId};

/// The commands of one log entry, encoded once: what is proposed, sent, stored and applied is the same bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload(pub(crate) Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answered to its proposer; other nodes drop it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer(pub(crate) Bytes);

openraft::declare_raft_types!(
    /// One leader a term, so a log position is (term, index). The random source is seeded: a simulation's runs
    /// repeat, and in service the seed is random.
    pub(crate) Raft:
        D = Payload,
        R = Answer,
        NodeId = NodeId,
        Node = NodeAddress,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = DeterministicRng<TokioRuntime>,
);

pub(crate) type Entry = openraft::type_config::alias::EntryOf<Raft>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Raft>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Raft>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Raft>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Raft>;
