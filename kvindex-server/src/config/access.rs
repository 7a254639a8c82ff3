//! The keys of who may call, and of how much is worked on at one time.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use super::check::Checker;
use super::{Config, ConfigError, Shown, text};

/// Who may call, and how much is worked on at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawAccess {
    /// File of tokens and tenants, read again when it changes; without it every caller may do everything.
    #[arg(long, value_name = "PATH")]
    pub access_file: Option<String>,
    /// Serve /metrics without a token, also with an access file [default: false].
    #[arg(long, value_name = "BOOL")]
    pub metrics_open: Option<bool>,
    /// Queries that run at one time; 0 for one a core [default: 0].
    #[arg(long, value_name = "N")]
    pub max_running_queries: Option<u64>,
    /// Longest a query waits to run; one that would wait longer is refused at once [default: 500].
    #[arg(long, value_name = "US")]
    pub max_query_wait_us: Option<u64>,
    /// Longest that a request's body, or a stream's next question, may take to arrive [default: 30000].
    #[arg(long, value_name = "MS")]
    pub body_timeout_ms: Option<u64>,
    /// Most bytes of requests held at one time [default: 512 MiB, or the largest request].
    #[arg(long, value_name = "BYTES")]
    pub max_held_bytes: Option<u64>,
    /// Most calls begun and not yet answered to the end [default: 4096].
    #[arg(long, value_name = "N")]
    pub max_open_calls: Option<u64>,
}

/// Who may call, and how much is worked on at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    /// Tokens and tenants; `None` lets every caller do everything.
    pub file: Option<PathBuf>,
    /// Whether `/metrics` asks for no token even so.
    pub metrics_open: bool,
    /// Queries that run at one time; 0 for one a core.
    pub running_queries: usize,
    /// Longest a query waits to run.
    pub query_wait: Duration,
    /// Longest that a body, or a stream's next question once it has begun, may take to arrive.
    pub body_timeout: Duration,
    /// Most bytes of requests held at one time.
    pub held_bytes: usize,
    /// Most calls begun and not yet answered to the end.
    pub open_calls: usize,
}

const HELD_BYTES: u64 = 512 << 20;

impl AccessConfig {
    /// Threads that serve calls. One for each query that runs at one time: each looks after sockets before it runs one.
    /// One more would not help those but have the sockets to itself, and wait for a core while queries run.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.slots().max(cores())
    }

    /// Queries that run at one time on this machine.
    #[must_use]
    pub fn slots(&self) -> usize {
        if self.running_queries == 0 { cores() } else { self.running_queries }
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

impl Checker<'_> {
    pub(super) fn access(&self, raw: &RawAccess, body_bytes: usize) -> Result<AccessConfig, ConfigError> {
        let file = raw.access_file.clone().filter(|path| !path.is_empty());
        let wait = self.number("max_query_wait_us", raw.max_query_wait_us, 500, 100..=10_000_000)?;
        let body = body_bytes as u64;
        Ok(AccessConfig {
            file: file.map(PathBuf::from),
            metrics_open: raw.metrics_open.unwrap_or(false),
            running_queries: self.number("max_running_queries", raw.max_running_queries, 0, 0..=1024)?,
            query_wait: Duration::from_micros(wait),
            body_timeout: self.millis("body_timeout_ms", raw.body_timeout_ms, 30_000)?,
            held_bytes: self.number(
                "max_held_bytes",
                raw.max_held_bytes,
                HELD_BYTES.max(body),
                body..=1 << 44,
            )?,
            open_calls: self.number("max_open_calls", raw.max_open_calls, 4096, 1..=1 << 20)?,
        })
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let access = &config.access;
    let file = access.file.as_ref().map_or_else(String::new, |path| path.display().to_string());
    vec![
        ("access_file", text(file)),
        ("metrics_open", access.metrics_open.to_string()),
        ("max_running_queries", access.running_queries.to_string()),
        ("max_query_wait_us", access.query_wait.as_micros().to_string()),
        ("body_timeout_ms", access.body_timeout.as_millis().to_string()),
        ("max_held_bytes", access.held_bytes.to_string()),
        ("max_open_calls", access.open_calls.to_string()),
    ]
}
