//! What a node needs to know to be part of a cluster.

use std::time::Duration;

use kvindex_core::replication::{NodeAddress, Settings};

/// Shards of a cluster whose configuration names no number.
pub const DEFAULT_SHARDS: u16 = 8;

/// How this node takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where other nodes and clients reach this node.
    pub address: NodeAddress,
    /// Where to look for other nodes: `host:port`, or `dns:host:port` for every address behind a name.
    pub peers: Vec<String>,
    /// Voters that the cluster shall have: so many nodes found it together.
    pub size: u16,
    /// Shards, for the founding; `None` to take what there is.
    pub shards: Option<u16>,
    /// Followers listen to the engines as well, so that no event is lost when one of them takes over.
    pub standby: bool,
    /// How shards pace themselves.
    pub pace: Settings,
    /// How long a change may take.
    pub patience: Duration,
}
