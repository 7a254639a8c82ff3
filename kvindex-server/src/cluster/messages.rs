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
    /// It has lately heard from leaders of all its cluster's shards, which a quorum follows.
    pub(crate) led: bool,
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
pub enum HostCommand {
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
    /// Could you go on with this shard's streams?
    Warm { cluster: ClusterId, shard: ShardId },
    /// Have the cluster keep no more than so many entries: this node cannot bear more.
    MakeRoom { cluster: ClusterId, node: NodeId, keep: u64 },
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
    /// To a hello: whoever asks was removed from this cluster.
    Dismissed,
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
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        write(self)
    }

    /// Out of a log entry.
    ///
    /// # Errors
    /// When it is of a newer version, or none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        read(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kvindex_core::WorkerId;

    fn address() -> NodeAddress {
        NodeAddress { peer: "a:9591".into(), public: "a:9590".into() }
    }

    fn requests() -> Vec<NodeRequest> {
        let cluster = ClusterId(0x1234);
        let greeting = Greeting {
            member: Some((cluster, NodeId(2))),
            address: address(),
            run: 5,
            shards: 8,
            size: 3,
            led: true,
        };
        let known = KnownNode { address: address(), nonce: 5, voter: true };
        let nodes = BTreeMap::from([(NodeId(1), known)]);
        let worker = WorkerId::new("vllm-0").unwrap();
        let change = |command| NodeRequest::Change { cluster, shard: ShardId(1), command };
        vec![
            NodeRequest::Hello(greeting),
            NodeRequest::Found(Plan { cluster, shards: 8, nodes: nodes.clone() }),
            NodeRequest::Join { address: address(), nonce: 7 },
            change(HostCommand::Worker(WorkerChange::Unregister { worker })),
            change(HostCommand::Directory(DirectoryChange::Found { nodes, size: 3 })),
            change(HostCommand::Directory(DirectoryChange::Dismiss(NodeId(2)))),
            NodeRequest::HandOver { cluster, shard: ShardId(1), to: NodeId(2) },
            NodeRequest::Warm { cluster, shard: ShardId(1) },
            NodeRequest::MakeRoom { cluster, node: NodeId(2), keep: 1 << 40 },
        ]
    }

    /// Log entries hold host commands in this form, so it is golden. Set `KVINDEX_WRITE_GOLDEN=1` for a new version.
    #[test]
    fn node_messages_version_1() {
        let mut all = Vec::new();
        for request in requests() {
            let bytes = write(&request);
            assert!(is_node_message(&bytes));
            assert_eq!(read::<NodeRequest>(&bytes).unwrap(), request);
            all.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            all.extend_from_slice(&bytes);
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/node-messages-v1.bin");
        if std::env::var_os("KVINDEX_WRITE_GOLDEN").is_some() {
            std::fs::write(path, &all).unwrap();
        }
        assert!(std::fs::read(path).unwrap() == all, "node messages changed");
    }

    #[test]
    fn foreign_and_newer_messages_say_what_to_do() {
        let said = |bytes: &[u8]| read::<NodeRequest>(bytes).unwrap_err();
        assert!(said(b"GET / HTTP/1.1").contains("is the address right?"));
        assert!(said(&[0, 9, 1, 2]).contains("of version 9, this node speaks version 1: upgrade this node"));
        assert!(said(&[0, 1, 0xc1]).contains("cannot be read"));
    }
}
