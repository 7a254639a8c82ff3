//! What is around every peer message: who speaks, to whom, and in which version. A message of another cluster or to
//! another node is refused before it is read, because acting on it could damage data.
//!
//! Request, little-endian: version (u8), cluster (u128), from (u64), to (u64), shard (u16), [`Request`] in msgpack.
//! Answer: version (u8), 0 and [`Response`] in msgpack, or 1 and the refusal as text.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::fmt;

use super::ids::{NodeId, ShardId};
use super::wire::{Request, Response};

const VERSION: u8 = 1;
const HEAD: usize = 1 + 16 + 8 + 8 + 2;

/// A cluster's identity, drawn at random when it is founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The sender of a shard's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) cluster: ClusterId,
    pub(crate) from: NodeId,
    pub(crate) shard: ShardId,
}

/// Why a request is refused. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too short to be one.
    #[error("this is no message of a kvindex node")]
    Foreign,
    /// There is no shard here yet.
    #[error("this node has not joined a cluster yet; it does so once it finds one through its list of peers")]
    NoMember,
    /// Of a newer program.
    #[error("the message is of version {theirs}, this node speaks version {VERSION}: upgrade this node")]
    Version {
        /// The message's.
        theirs: u8,
    },
    /// Of another cluster.
    #[error(
        "this node belongs to cluster {ours}, the caller to {theirs}: correct the caller's list of peers, or empty \
         its data directory to let it join this cluster"
    )]
    OtherCluster {
        /// This node's.
        ours: ClusterId,
        /// The caller's.
        theirs: ClusterId,
    },
    /// Meant for another node.
    #[error(
        "this is {ours}, the caller wants {wanted}: two nodes share an address, or a node came back under another id; remove the old id from the cluster"
    )]
    OtherNode {
        /// This node's.
        ours: NodeId,
        /// The one that was meant.
        wanted: NodeId,
    },
    /// Sent under this node's own id.
    #[error(
        "the caller says that it is {0} as well: its data directory was copied from this node; empty it there"
    )]
    SameNode(NodeId),
    /// There is no such shard.
    #[error(
        "this node has {shards} shards, the caller asks for {asked}: a cluster's shard count never changes"
    )]
    NoShard {
        /// How many there are.
        shards: u16,
        /// Which was asked for.
        asked: ShardId,
    },
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error("refused: {0}")]
    Refused(String),
    #[error("the answer cannot be read")]
    Unreadable,
    #[error("the answer is of version {0}, this node speaks version {VERSION}: upgrade this node")]
    Version(u8),
}

/// A request that came in.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) from: NodeId,
    pub(crate) shard: ShardId,
    pub(crate) request: Request,
}

impl Envelope {
    pub(crate) fn request(&self, to: NodeId, request: &Request) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEAD + 64);
        bytes.put_u8(VERSION);
        bytes.put_u128_le(self.cluster.0);
        bytes.put_u64_le(self.from.0);
        bytes.put_u64_le(to.0);
        bytes.put_u16_le(self.shard.0);
        write(bytes, request)
    }

    /// Reads a request that was meant for `me`.
    pub(crate) fn open(cluster: ClusterId, me: NodeId, shards: u16, bytes: &[u8]) -> Result<Opened, Refusal> {
        let Some((mut head, body)) = bytes.split_at_checked(HEAD) else { return Err(Refusal::Foreign) };
        let theirs = head.get_u8();
        if theirs != VERSION {
            return Err(Refusal::Version { theirs });
        }
        let other = ClusterId(head.get_u128_le());
        let (from, to) = (NodeId(head.get_u64_le()), NodeId(head.get_u64_le()));
        let shard = ShardId(head.get_u16_le());
        if other != cluster {
            return Err(Refusal::OtherCluster { ours: cluster, theirs: other });
        }
        if to != me {
            return Err(Refusal::OtherNode { ours: me, wanted: to });
        }
        if from == me {
            return Err(Refusal::SameNode(me));
        }
        if shard.0 >= shards {
            return Err(Refusal::NoShard { shards, asked: shard });
        }
        let request = rmp_serde::from_slice(body).map_err(|_| Refusal::Foreign)?;
        Ok(Opened { from, shard, request })
    }

    pub(crate) fn answer(answer: &Result<Response, Refusal>) -> Bytes {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u8(VERSION);
        match answer {
            Ok(response) => {
                bytes.put_u8(0);
                write(bytes, response)
            }
            Err(refusal) => {
                bytes.put_u8(1);
                bytes.put_slice(refusal.to_string().as_bytes());
                bytes.freeze()
            }
        }
    }

    pub(crate) fn response(bytes: &[u8]) -> Result<Response, ReplyError> {
        match bytes {
            [VERSION, 0, body @ ..] => rmp_serde::from_slice(body).map_err(|_| ReplyError::Unreadable),
            [VERSION, 1, text @ ..] => Err(ReplyError::Refused(String::from_utf8_lossy(text).into_owned())),
            [version, ..] if *version > VERSION => Err(ReplyError::Version(*version)),
            _ => Err(ReplyError::Unreadable),
        }
    }
}

/// Writing into memory does not fail, and these types have no value that msgpack lacks.
fn write(bytes: BytesMut, message: &impl Serialize) -> Bytes {
    let mut writer = bytes.writer();
    let _ = rmp_serde::encode::write(&mut writer, message);
    writer.into_inner().freeze()
}
