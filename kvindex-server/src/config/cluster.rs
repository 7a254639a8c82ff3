//! The keys of a cluster's node.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kvindex_core::replication::Settings;
use kvindex_core::replication::log_store::{BackendKind, Durability};

use super::check::Checker;
use super::{Config, ConfigError, RawConfig, Shown, text};
use crate::cluster::DEFAULT_SHARDS;
use crate::net::HostPort;

/// The port of other nodes where only an address is told.
const PEER_PORT: u16 = 9591;

/// A cluster's node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawCluster {
    /// Address and port for the other nodes of a cluster; without it the node is alone.
    #[arg(long, value_name = "ADDRESS")]
    pub peer_listen: Option<String>,
    /// Where other nodes reach this one [default: where it listens, or an own address].
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_peer: Option<String>,
    /// Where clients reach this node [default: where it listens, or an own address].
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where to look for other nodes: host:port or dns:host:port, separated by commas.
    #[arg(long, value_name = "LIST")]
    pub cluster_peers: Option<String>,
    /// Voters that the cluster shall have; so many nodes found it [default: 3].
    #[arg(long, value_name = "N")]
    pub cluster_size: Option<u64>,
    /// Shards of the cluster, fixed when it is founded [default: 8].
    #[arg(long, value_name = "N")]
    pub cluster_shards: Option<u64>,
    /// Directory of a cluster's node: identity, log, snapshots.
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<String>,
    /// What keeps the log: fjall, sled or memory [default: fjall].
    #[arg(long, value_name = "ENGINE")]
    pub log_store: Option<String>,
    /// When log entries count as kept: fsync, async or memory [default: fsync].
    #[arg(long, value_name = "MODE")]
    pub durability: Option<String>,
    /// Followers listen to the engines as well, so that a fail-over loses nothing [default: true].
    #[arg(long, value_name = "BOOL")]
    pub standby: Option<bool>,
    /// Between a leader's signs of life; an election follows after 6 to 8 times that [default: 100].
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// Log after which a shard's snapshot is due [default: 64].
    #[arg(long, value_name = "MIB")]
    pub snapshot_log_mib: Option<u64>,
}

/// How a node takes part in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Where other nodes are served; `None` only in a configuration for a node alone.
    pub peer_listen: Option<SocketAddr>,
    /// Where other nodes reach this one; `None` for where it listens.
    pub advertise_peer: Option<String>,
    /// Where clients reach this node; `None` for where it listens.
    pub advertise: Option<String>,
    /// Where to look for other nodes.
    pub peers: Vec<String>,
    /// Voters that the cluster shall have.
    pub size: u16,
    /// Shards; `None` for what the cluster has, or the usual number if this node founds it.
    pub shards: Option<u16>,
    /// Identity, log and snapshots.
    pub data_dir: PathBuf,
    /// Which engine keeps the log.
    pub log_store: BackendKind,
    /// When log entries count as kept.
    pub durability: Durability,
    /// Whether followers listen to the engines as well.
    pub standby: bool,
    /// Between a leader's signs of life; an election follows after six to eight times that.
    pub heartbeat: Duration,
    /// Bytes of log after which a shard's snapshot is due.
    pub snapshot_after: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        let pace = Settings::default();
        Self {
            peer_listen: None,
            advertise_peer: None,
            advertise: None,
            peers: Vec::new(),
            size: 3,
            shards: None,
            data_dir: PathBuf::new(),
            log_store: BackendKind::default(),
            durability: Durability::default(),
            standby: true,
            heartbeat: pace.heartbeat,
            snapshot_after: pace.snapshot_after,
        }
    }
}

impl Checker<'_> {
    /// `None` without `peer_listen`, which then no other key of a cluster may go without.
    pub(super) fn cluster(&self, all: &RawConfig) -> Result<Option<ClusterConfig>, ConfigError> {
        let raw = &all.cluster;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let Some(listen) = given(&raw.peer_listen) else {
            for (key, text) in [("cluster_peers", &raw.cluster_peers), ("data_dir", &raw.data_dir)] {
                if let Some(value) = given(text) {
                    return Err(self.invalid(key, &value, "needs peer_listen: without it the node is alone"));
                }
            }
            return Ok(None);
        };
        let peer_listen = self.bindable("peer_listen", &listen, PEER_PORT)?;
        let public = self.listen(&all.node)?;
        let advertise_peer = self.reachable("advertise_peer", given(&raw.advertise_peer), peer_listen)?;
        let advertise = self.reachable("advertise", given(&raw.advertise), public)?;
        if let Some(path) = given(&all.node.snapshot_path) {
            let reason = "is for a node alone; a cluster's node keeps its snapshots in data_dir";
            return Err(self.invalid("snapshot_path", &path, reason));
        }
        let defaults = ClusterConfig::default();
        let log_store =
            self.word("log_store", raw.log_store.as_deref(), &BackendKind::ALL.map(|(k, n)| (n, k)))?;
        let data_dir = given(&raw.data_dir);
        if data_dir.is_none() && log_store != BackendKind::Memory {
            return Err(self.invalid(
                "data_dir",
                "",
                "is where a cluster's node keeps its log; log_store = memory needs none",
            ));
        }
        let durability =
            [("fsync", Durability::Fsync), ("async", Durability::ASYNC), ("memory", Durability::Memory)];
        let peers = given(&raw.cluster_peers).unwrap_or_default();
        let peers = peers.split(',').map(str::trim).filter(|peer| !peer.is_empty());
        let shards = raw.cluster_shards.map(|shards| self.number("cluster_shards", Some(shards), 8, 1..=256));
        Ok(Some(ClusterConfig {
            peer_listen: Some(peer_listen),
            advertise_peer,
            advertise,
            peers: peers.map(|peer| self.peer(peer)).collect::<Result<_, _>>()?,
            size: self.number("cluster_size", raw.cluster_size, defaults.size.into(), 1..=9)?,
            shards: shards.transpose()?,
            data_dir: data_dir.map(PathBuf::from).unwrap_or_default(),
            log_store,
            durability: self.word("durability", raw.durability.as_deref(), &durability)?,
            standby: raw.standby.unwrap_or(defaults.standby),
            heartbeat: self.millis("heartbeat_ms", raw.heartbeat_ms, 100)?,
            snapshot_after: self.number::<u64>("snapshot_log_mib", raw.snapshot_log_mib, 64, 1..=1 << 20)?
                << 20,
        }))
    }

    fn peer(&self, peer: &str) -> Result<String, ConfigError> {
        let (many, name) = match peer.strip_prefix("dns:") {
            Some(name) => ("dns:", name),
            None => ("", peer),
        };
        let must = "must be host:port, or dns:host:port for every address of a name";
        match HostPort::parse(name) {
            Ok(HostPort { port: 0, .. }) => {
                Err(self.invalid("cluster_peers", peer, &format!("{must}; it has port 0")))
            }
            Ok(address) => Ok(format!("{many}{address}")),
            Err(error) => Err(self.invalid("cluster_peers", peer, &format!("{must}; it {error}"))),
        }
    }
}

/// The values in effect; a node alone has those that a cluster's would have by default.
pub(super) fn shown(config: &Config) -> Shown {
    let alone = ClusterConfig::default();
    let cluster = config.cluster.as_ref().unwrap_or(&alone);
    let address = |address: Option<&String>| text(address.map_or("", String::as_str));
    vec![
        ("peer_listen", text(cluster.peer_listen.map_or_else(String::new, |listen| listen.to_string()))),
        ("advertise_peer", address(cluster.advertise_peer.as_ref())),
        ("advertise", address(cluster.advertise.as_ref())),
        ("cluster_peers", text(cluster.peers.join(","))),
        ("cluster_size", cluster.size.to_string()),
        ("cluster_shards", cluster.shards.unwrap_or(DEFAULT_SHARDS).to_string()),
        ("data_dir", text(cluster.data_dir.display())),
        ("log_store", text(cluster.log_store.name())),
        ("durability", text(cluster.durability.name())),
        ("standby", cluster.standby.to_string()),
        ("heartbeat_ms", cluster.heartbeat.as_millis().to_string()),
        ("snapshot_log_mib", (cluster.snapshot_after >> 20).to_string()),
    ]
}
