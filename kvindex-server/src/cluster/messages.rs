//! What nodes say to each other beside their shards' messages: who they are, founding, joining, and changes for the
//! node that leads a shard. In msgpack behind two bytes: 0, which no shard's message begins with, and a version.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use kvindex_core::replication::{ClusterId, NodeAddress, NodeId, ShardId};

use super::directory::{DirectoryChange, KnownNode};
use crate::node::WorkerChange;

/// First byte of a node's message.
const NODE: u8 = 0;
const VERSION: u8 = 1;

/// Who a node is, and what it wants to be part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// Its cluster and id there; `None` while it has none.
    pub(crate) member: Option<(ClusterId, NodeId)>,
    /// Where it is.
    pub(crate) address: NodeAddress,
    /// Drawn at every start: tells two processes apart.
    pub(crate) run: u64,
    /// Shards of its cluster, or of the one that it would found.
    pub(crate) shards: u16,
    /// Voters that its cluster shall have.
    pub(crate) size: u16,
}

/// What the founding node decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) cluster: ClusterId,
    pub(crate) shards: u16,
    pub(crate) nodes: BTreeMap<NodeId, KnownNode>,
}

/// A change for a shard's leader to propose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum HostCommand {
    /// Of its workers.
    Worker(WorkerChange),
    /// Of the cluster's nodes; only in shard 0.
    Directory(DirectoryChange),
}

/// What a node asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum NodeRequest {
    /// Who are you?
    Hello(Greeting),
    /// Be part of this cluster from its beginning.
    Found(Plan),
    /// Let me join.
    Join { address: NodeAddress, nonce: u64 },
    /// Propose this, if you lead the shard.
    Change { cluster: ClusterId, shard: ShardId, command: HostCommand },
    /// Hand this shard over to another node, if you lead it.
    HandOver { cluster: ClusterId, shard: ShardId, to: NodeId },
}

/// What it hears.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum NodeResponse {
    Hello(Greeting),
    Founding,
    Joined {
        cluster: ClusterId,
        node: NodeId,
        shards: u16,
    },
    /// What applying answered.
    Changed(Bytes),
    Done,
    /// Ask this node, or wait.
    NotLeader(Option<NodeId>),
    /// It may have happened.
    Unsure(String),
    /// It did not, and trying again does not help.
    Refused(String),
}

/// Whether a message is a node's and not a shard's.
pub(crate) fn is_node_message(bytes: &[u8]) -> bool {
    bytes.first() == Some(&NODE)
}

pub(crate) fn write(message: &impl Serialize) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[NODE, VERSION]);
    let mut writer = bytes.writer();
    // Writing into memory does not fail.
    let _ = rmp_serde::encode::write(&mut writer, message);
    writer.into_inner().freeze()
}

pub(crate) fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    match bytes {
        [NODE, VERSION, body @ ..] => {
            rmp_serde::from_slice(body).map_err(|error| format!("the message cannot be read: {error}"))
        }
        [NODE, version, ..] if *version > VERSION => Err(format!(
            "the message is of version {version}, this node speaks version {VERSION}: upgrade this node"
        )),
        _ => Err("this is no message of a kvindex node; is the address right?".into()),
    }
}

impl HostCommand {
    /// As a log entry carries it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        write(self)
    }
}
