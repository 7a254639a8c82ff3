//! Who a node is, kept in its data directory: a file of one JSON object, written whole. A directory without it is
//! a new node's.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kvindex_core::replication::{ClusterId, Identity, NodeId};

use super::directory::KnownNode;

const FILE: &str = "node.json";
const VERSION: u32 = 1;

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("data directory {path}: {source}")]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what this program wrote.
    #[error(
        "{path} is not a node's identity: {reason}. Point data_dir at this node's own directory, or at an empty \
         one to let the node join anew"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is a log, but nothing says whose.
    #[error(
        "{path} holds a log, but no {FILE}, which says whose it is: put the file back, or empty the directory to let \
         the node join anew"
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error("{path} is of version {found}, this program reads up to {VERSION}: upgrade this node")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The configuration asks for another number of shards.
    #[error(
        "{path} says that the cluster has {stored} shards, the configuration asks for {configured} \
         (cluster_shards): a cluster's shard count never changes; set it to {stored}"
    )]
    Shards {
        /// The file.
        path: PathBuf,
        /// What the cluster has.
        stored: u16,
        /// What is asked for.
        configured: u16,
    },
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    version: u32,
    cluster: String,
    node: u64,
    shards: u16,
    /// Nodes that found the cluster together; empty once it is founded, and for nodes that joined.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    founders: BTreeMap<u64, KnownNode>,
}

/// A node's identity and, while its cluster is being founded, with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its identity.
    pub identity: Identity,
    /// Whom it is founding the cluster with; empty for everyone but the founding node, and once that is done.
    pub founders: BTreeMap<NodeId, KnownNode>,
}

/// Reads it; `None` in a new directory. `shards` is what the configuration asks for, if it does.
pub(crate) fn load(directory: &Path, shards: Option<u16>) -> Result<Option<NodeRecord>, IdentityError> {
    let path = directory.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Unusable { path, source }),
    };
    let foreign = |reason: String| IdentityError::Foreign { path: path.clone(), reason };
    let found: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
    let version = found.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0) as u32;
    if version > VERSION {
        return Err(IdentityError::Newer { path, found: version });
    }
    let stored: Stored = serde_json::from_value(found).map_err(|error| foreign(error.to_string()))?;
    let cluster =
        u128::from_str_radix(&stored.cluster, 16).map_err(|error| foreign(format!("cluster: {error}")))?;
    if stored.shards == 0 || stored.node == 0 {
        return Err(foreign("node and shards must not be 0".into()));
    }
    if let Some(configured) = shards.filter(|shards| *shards != stored.shards) {
        return Err(IdentityError::Shards { path, stored: stored.shards, configured });
    }
    let identity = Identity { cluster: ClusterId(cluster), node: NodeId(stored.node), shards: stored.shards };
    let founders = stored.founders.into_iter().map(|(id, node)| (NodeId(id), node)).collect();
    Ok(Some(NodeRecord { identity, founders }))
}

/// Writes it; durable when this returns.
pub(crate) fn store(directory: &Path, record: &NodeRecord) -> Result<(), IdentityError> {
    let path = directory.join(FILE);
    let Identity { cluster, node, shards } = record.identity;
    let founders = record.founders.iter().map(|(id, node)| (id.0, node.clone())).collect();
    let stored = Stored { version: VERSION, cluster: cluster.to_string(), node: node.0, shards, founders };
    let write = || {
        fs::create_dir_all(directory)?;
        let temporary = directory.join("node.json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| IdentityError::Unusable { path: path.clone(), source })
}
