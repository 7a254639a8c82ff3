//! Configuration in two steps: what was written (file, environment, flags), then a checked value with units in
//! its types. Nothing after this module reads a file, a variable or a flag.
//!
//! Keys are one flat list: `key` in the file, `KVINDEX_KEY` in the environment, `--key` on the command line. Each
//! section of them is one file here: the keys as written, which are its flags as well, what they are checked to,
//! and how the values in effect print.

mod access;
mod cgroup;
mod check;
mod cluster;
mod dialects;
mod discovery;
mod hitrate;
mod ingest;
mod limits;
mod live;
mod load;
mod net;
mod node;
mod telemetry;
mod tls;

use clap::Args;
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kvindex_core::limits::IndexLimits;

use crate::workers::{RawWorker, WorkerDefinition};
pub use access::{AccessConfig, RawAccess};
pub use cluster::{ClusterConfig, RawCluster};
pub use dialects::{DialectsConfig, MooncakeJson, RawDialects, TokenizerFile};
pub use discovery::{DiscoveryConfig, LabelKeys, PortSettings, RawDiscovery};
pub use hitrate::{HitRateConfig, HitRateKey, HitRateValue};
pub use ingest::{IngestConfig, RawIngest};
pub use limits::{ApiLimits, RawLimits};
pub use live::{Changes, LiveConfig};
pub use net::{NetConfig, RawNet};
pub use node::{DEFAULT_LISTEN, LogConfig, LogFormat, RawNode, SnapshotConfig};
pub use telemetry::{RawTelemetry, TraceConfig};
pub use tls::{PeerTlsConfig, PublicTlsConfig, RawTls, TlsConfig};

/// The configuration as written. A key left out keeps its default.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct RawConfig {
    /// The node by itself.
    #[command(flatten)]
    pub node: RawNode,
    /// Taking events in.
    #[command(flatten)]
    pub ingest: RawIngest,
    /// Limits.
    #[command(flatten)]
    pub limits: RawLimits,
    /// Who may call, and how much at one time.
    #[command(flatten)]
    pub access: RawAccess,
    /// Calls of other indexers.
    #[command(flatten)]
    pub dialects: RawDialects,
    /// The cluster.
    #[command(flatten)]
    pub cluster: RawCluster,
    /// The network.
    #[command(flatten)]
    pub net: RawNet,
    /// Encryption.
    #[command(flatten)]
    pub tls: RawTls,
    /// Traces.
    #[command(flatten)]
    pub telemetry: RawTelemetry,
    /// Engines found in Kubernetes.
    #[command(flatten)]
    pub discovery: RawDiscovery,
    /// Static workers; only in the file.
    #[arg(skip)]
    pub workers: Vec<RawWorker>,
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where gRPC and HTTP are served.
    pub listen: SocketAddr,
    /// How logs are written.
    pub log: LogConfig,
    /// Where the index survives a restart; `None` for memory only.
    pub snapshot: Option<SnapshotConfig>,
    /// How long open calls may take to end at shutdown.
    pub drain: Duration,
    /// How events are taken in.
    pub ingest: IngestConfig,
    /// What callers may ask for.
    pub limits: ApiLimits,
    /// Who may call, and how much is worked on at one time.
    pub access: AccessConfig,
    /// Which other indexers' calls are answered.
    pub dialects: DialectsConfig,
    /// What the index may grow to.
    pub index: IndexLimits,
    /// How this node takes part in a cluster; `None` for a node alone.
    pub cluster: Option<ClusterConfig>,
    /// How the network is used.
    pub net: NetConfig,
    /// How connections are encrypted.
    pub tls: TlsConfig,
    /// Where traces of calls go; `None` for nowhere.
    pub trace: Option<TraceConfig>,
    /// How engines are found in Kubernetes.
    pub discovery: DiscoveryConfig,
    /// Workers known from the start.
    pub workers: Vec<WorkerDefinition>,
}

/// Values in effect, as they stand in a TOML file.
type Shown = Vec<(&'static str, String)>;

impl Config {
    /// Every value in effect, in the order of the keys.
    fn shown(&self) -> Shown {
        let sections = [
            node::shown,
            ingest::shown,
            limits::shown,
            access::shown,
            dialects::shown,
            cluster::shown,
            net::shown,
            tls::shown,
            telemetry::shown,
            discovery::shown,
        ];
        sections.iter().flat_map(|shown| shown(self)).collect()
    }
}

/// The memory that the operating system lets this process have, by its control groups, in bytes, and the file that says
/// so; `None` where there is no such limit.
#[must_use]
pub fn memory_granted() -> Option<(u64, PathBuf)> {
    cgroup::MemoryLimit::of_this_process().map(|limit| (limit.bytes, limit.file))
}

/// A text as TOML. JSON's escapes are TOML's too.
fn text(value: impl Display) -> String {
    serde_json::Value::from(value.to_string()).to_string()
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something written in a form that cannot be taken in: bad TOML, wrong kind of value.
    #[error("{0}")]
    Malformed(Box<figment::Error>),
    /// A key that means nothing.
    #[error("{key} ({origin}): there is no such key{}", nearest.as_ref().map_or_else(String::new, |key| format!("; is it {key}?")))]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        origin: String,
        /// The key that is written most like it.
        nearest: Option<String>,
    },
    /// A value outside its range.
    #[error("{key} = {value} ({origin}): {reason}")]
    Invalid {
        /// The key, such as `max_batch` or `workers[2].endpoint`.
        key: String,
        /// The value as written.
        value: String,
        /// Who said so.
        origin: String,
        /// What is accepted.
        reason: String,
    },
}

/// One key with its value in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// Its value, as it stands in a TOML file.
    pub value: String,
    /// Who set it: `default`, a file, a variable or a flag.
    pub origin: String,
}

/// A configuration together with where each value came from.
#[derive(Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Environment variables with our prefix that mean nothing to us: probably misspelt.
    pub unknown_variables: Vec<String>,
    /// Every key, in order.
    pub settings: Vec<Setting>,
}

impl Loaded {
    /// Every value with its origin, one line each, as TOML with comments.
    #[must_use]
    pub fn print_config(&self) -> String {
        let mut text = String::new();
        for Setting { key, value, origin } in &self.settings {
            let _ = writeln!(text, "{key} = {value}  # {origin}");
        }
        let _ = writeln!(text, "# {} static workers", self.config.workers.len());
        for worker in &self.config.workers {
            let (spec, streams) = (&worker.spec, worker.streams.len());
            let _ = writeln!(text, "#   {} ({}, {streams} streams)", spec.id, spec.model);
        }
        text
    }
}

#[cfg(test)]
mod config_test;
