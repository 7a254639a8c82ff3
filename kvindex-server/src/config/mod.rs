//! Configuration in two steps: what was written (file, environment, flags), then a checked value with units in
//! its types. Nothing after this module reads a file, a variable or a flag.

mod check;
mod cluster;
mod raw;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kvindex_core::GapPolicy;
use kvindex_core::limits::IndexLimits;

use crate::workers::WorkerDefinition;
pub use cluster::ClusterConfig;
pub use raw::RawConfig;

/// Where the server listens when nothing says otherwise: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9590";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where gRPC and HTTP are served.
    pub listen: SocketAddr,
    /// How logs are written.
    pub log: LogConfig,
    /// Where the index survives a restart; `None` for memory only.
    pub snapshot: Option<SnapshotConfig>,
    /// How events are taken in.
    pub ingest: IngestConfig,
    /// What callers may ask for.
    pub limits: ApiLimits,
    /// What the index may grow to.
    pub index: IndexLimits,
    /// How long open calls may take to end at shutdown.
    pub drain: Duration,
    /// How this node takes part in a cluster; `None` for a node alone.
    pub cluster: Option<ClusterConfig>,
    /// Workers known from the start.
    pub workers: Vec<WorkerDefinition>,
}

/// How logs are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Line format.
    pub format: LogFormat,
    /// Filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Where it lies.
    pub path: PathBuf,
    /// How often it is written besides at shutdown; `None` for at shutdown only.
    pub interval: Option<Duration>,
}

/// How events are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestConfig {
    /// Threads that own sockets.
    pub threads: usize,
    /// What an unfillable gap does, for workers that do not say.
    pub gap_policy: GapPolicy,
    /// Silence after which an engine's last batch is asked for again.
    pub idle_poll: Duration,
    /// How long a replay may take to answer, and to go on.
    pub replay_timeout: Duration,
}

/// What callers may ask for. Every refusal names its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Largest request, in bytes.
    pub body_bytes: usize,
    /// Longest prompt, in tokens.
    pub prompt_tokens: usize,
    /// Most questions in one batch.
    pub batch: usize,
    /// Most candidates or labels in one question.
    pub candidates: usize,
    /// Most match streams and watchers open at one time.
    pub streams: usize,
    /// Changes a watcher may lag behind before it loses some.
    pub watch_buffer: usize,
    /// Most registered workers.
    pub workers: usize,
    /// Bytes of the index beyond which blocks are evicted; 0 for no cap.
    pub index_bytes: usize,
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
    /// Something written in a form that cannot be taken in: bad TOML, unknown key, wrong kind of value.
    #[error("{0}")]
    Malformed(Box<figment::Error>),
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

/// A configuration together with where each value came from.
#[derive(Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// Environment variables with our prefix that mean nothing to us: probably misspelt.
    pub unknown_variables: Vec<String>,
    origins: Vec<(&'static str, String, String)>,
}

/// Variables with our prefix that belong to the command line.
const OTHER_VARIABLES: [&str; 4] = ["config", "server", "output", "timeout_ms"];

impl Config {
    /// Reads `file`, then `KVINDEX_*` variables, then `flags`; later ones win.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, or a value is of the wrong kind or out of range.
    pub fn load(file: Option<&Path>, flags: &RawConfig) -> Result<Loaded, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            // Read here and not by figment, which takes a missing file for an empty one.
            std::fs::metadata(path)
                .and_then(|_| std::fs::read_to_string(path))
                .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
            figment = figment.merge(Toml::file_exact(path));
        }
        let figment = figment
            .merge(Env::prefixed("KVINDEX_").only(&raw::KEYS))
            .merge(Serialized::from(flags, figment::Profile::Default));
        let raw: RawConfig = figment.extract().map_err(|error| ConfigError::Malformed(Box::new(error)))?;
        let origin = |key: &str| origin_of(&figment, key);
        let config = raw.check(&origin)?;
        let origins = raw::shown(&config).map(|(key, value)| (key, value, origin(key))).collect();
        Ok(Loaded { config, unknown_variables: unknown_variables(), origins })
    }

    /// The configuration of nothing but defaults.
    ///
    /// # Panics
    /// Never: a test loads the defaults.
    #[must_use]
    pub fn defaults() -> Self {
        match RawConfig::default().check(&|_| "default".into()) {
            Ok(config) => config,
            Err(error) => unreachable!("defaults are valid: {error}"),
        }
    }
}

impl Loaded {
    /// Every value with its origin, one line each, as TOML with comments.
    #[must_use]
    pub fn print_config(&self) -> String {
        let mut text = String::new();
        for (key, value, origin) in &self.origins {
            let _ = writeln!(text, "{key} = {value}  # {origin}");
        }
        let _ = writeln!(text, "# {} static workers", self.config.workers.len());
        for worker in &self.config.workers {
            let _ = writeln!(
                text,
                "#   {} ({}, {} streams)",
                worker.spec.id,
                worker.spec.model,
                worker.streams.len()
            );
        }
        text
    }
}

fn origin_of(figment: &Figment, key: &str) -> String {
    match figment.find_metadata(key) {
        None => "default".into(),
        Some(metadata) => match (&metadata.source, metadata.name.contains("environment")) {
            (_, true) => format!("KVINDEX_{}", key.to_ascii_uppercase()),
            (Some(source), false) if source.file_path().is_some() => source.to_string(),
            _ => format!("--{}", key.replace('_', "-")),
        },
    }
}

fn unknown_variables() -> Vec<String> {
    let known = |name: &str| raw::KEYS.contains(&name) || OTHER_VARIABLES.contains(&name);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names
        .filter(|name| name.strip_prefix("KVINDEX_").is_some_and(|rest| !known(&rest.to_ascii_lowercase())))
        .collect()
}

#[cfg(test)]
mod config_test;
