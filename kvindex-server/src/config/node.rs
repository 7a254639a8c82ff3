//! The keys of a node by itself: its door, its log lines, its snapshot, its end.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::check::Checker;
use super::{Config, ConfigError, Shown, text};

/// Where the server listens when nothing says otherwise: this machine only.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9590";

/// The consensus library tells each heartbeat that is late, the Kubernetes client each attempt that is refused, the log
/// store each table it writes; what follows from it is told here, once.
const DEFAULT_FILTER: &str =
    "info,openraft=error,kube_runtime=error,kube_client=off,fjall=warn,lsm_tree=warn";

/// A node by itself: its door, its log, its snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawNode {
    /// Address and port to listen on; port 0 lets the system choose [default: 127.0.0.1:9590].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Log lines as text or json [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Log filter, such as info or kvindex_server=debug.
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Snapshot file, read at the start and written at the end [default: memory only].
    #[arg(long, visible_alias = "snapshot", value_name = "PATH")]
    pub snapshot_path: Option<String>,
    /// Seconds between snapshots; 0 for at shutdown only [default: 0].
    #[arg(long, value_name = "SECONDS")]
    pub snapshot_interval_s: Option<u64>,
    /// How long open calls may take to end at shutdown [default: 10].
    #[arg(long, value_name = "SECONDS")]
    pub drain_s: Option<u64>,
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

impl Checker<'_> {
    pub(super) fn listen(&self, raw: &RawNode) -> Result<SocketAddr, ConfigError> {
        let listen = raw.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        self.bindable("listen", listen, 9590)
    }

    pub(super) fn log(&self, raw: &RawNode) -> Result<LogConfig, ConfigError> {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Ok(LogConfig {
            format: self.word("log_format", raw.log_format.as_deref(), &formats)?,
            filter: raw.log_filter.clone().unwrap_or_else(|| DEFAULT_FILTER.into()),
        })
    }

    pub(super) fn drain(&self, raw: &RawNode) -> Result<Duration, ConfigError> {
        Ok(Duration::from_secs(self.number("drain_s", raw.drain_s, 10, 0..=3600)?))
    }

    pub(super) fn snapshot(&self, raw: &RawNode) -> Result<Option<SnapshotConfig>, ConfigError> {
        let interval: u64 = self.number("snapshot_interval_s", raw.snapshot_interval_s, 0, 0..=86_400)?;
        let Some(path) = raw.snapshot_path.as_deref().filter(|path| !path.is_empty()) else {
            return if interval == 0 {
                Ok(None)
            } else {
                Err(self.invalid("snapshot_interval_s", &interval.to_string(), "needs snapshot_path"))
            };
        };
        let interval = (interval > 0).then(|| Duration::from_secs(interval));
        Ok(Some(SnapshotConfig { path: PathBuf::from(path), interval }))
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let snapshot = config.snapshot.as_ref();
    let interval = snapshot.and_then(|s| s.interval).map_or(0, |i| i.as_secs());
    vec![
        ("listen", text(config.listen)),
        ("log_format", text(format)),
        ("log_filter", text(&config.log.filter)),
        ("snapshot_path", text(snapshot.map_or_else(String::new, |s| s.path.display().to_string()))),
        ("snapshot_interval_s", interval.to_string()),
        ("drain_s", config.drain.as_secs().to_string()),
    ]
}
