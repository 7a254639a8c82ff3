//! `kvindex serve`: a node, from flags, environment and file to its last snapshot.

use anyhow::Context;
use clap::Args;
use kvindex_server::App;
use kvindex_server::config::{Config, LogConfig, LogFormat, RawConfig};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{failure, output};

/// Run a node. Every setting may come from the file, then `KVINDEX_<KEY>`, then its flag; the last one wins.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file in TOML; the only place for static workers
    #[arg(long, value_name = "PATH", env = "KVINDEX_CONFIG")]
    config: Option<PathBuf>,
    /// Print the configuration in effect, with where each value came from, and end
    #[arg(long)]
    print_config: bool,
    /// Address and port to listen on; port 0 lets the system choose [default: 127.0.0.1:9590]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Log lines as text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Log filter, such as info or kvindex_server=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Snapshot file, read at the start and written at the end [default: memory only]
    #[arg(long, visible_alias = "snapshot", value_name = "PATH")]
    snapshot_path: Option<String>,
    /// Seconds between snapshots; 0 for at shutdown only [default: 0]
    #[arg(long, value_name = "SECONDS")]
    snapshot_interval_s: Option<u64>,
    /// Threads that own engine sockets [default: 1]
    #[arg(long, value_name = "N")]
    ingest_threads: Option<u64>,
    /// What an unfillable gap does: purge or keep_as_suspect [default: purge]
    #[arg(long, value_name = "POLICY")]
    gap_policy: Option<String>,
    /// Silence after which an engine's last batch is asked for again [default: 5000]
    #[arg(long, value_name = "MS")]
    idle_poll_ms: Option<u64>,
    /// How long a replay may take to answer, and to go on [default: 2000]
    #[arg(long, value_name = "MS")]
    replay_timeout_ms: Option<u64>,
    /// Largest request
    #[arg(long, value_name = "BYTES")]
    max_body_bytes: Option<u64>,
    /// Longest prompt
    #[arg(long, value_name = "TOKENS")]
    max_prompt_tokens: Option<u64>,
    /// Most questions in one batch
    #[arg(long, value_name = "N")]
    max_batch: Option<u64>,
    /// Most candidates or labels in one question
    #[arg(long, value_name = "N")]
    max_candidates: Option<u64>,
    /// Most open match streams and watchers
    #[arg(long, value_name = "N")]
    max_streams: Option<u64>,
    /// Changes a watcher may lag behind before it loses some
    #[arg(long, value_name = "N")]
    watch_buffer: Option<u64>,
    /// Most registered workers
    #[arg(long, value_name = "N")]
    max_workers: Option<u64>,
    /// Most (block, owner) entries of the index
    #[arg(long, value_name = "N")]
    max_entries: Option<u64>,
    /// Most bytes of the index; beyond it blocks are evicted, 0 for no cap
    #[arg(long, value_name = "BYTES")]
    max_index_bytes: Option<u64>,
    /// How long open calls may take to end at shutdown [default: 10]
    #[arg(long, value_name = "SECONDS")]
    drain_s: Option<u64>,
    /// Address and port for the other nodes of a cluster; without it the node is alone
    #[arg(long, value_name = "ADDRESS")]
    peer_listen: Option<String>,
    /// Where other nodes reach this one [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise_peer: Option<String>,
    /// Where clients reach this node [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where to look for other nodes: host:port or dns:host:port, separated by commas
    #[arg(long, value_name = "LIST")]
    cluster_peers: Option<String>,
    /// Voters that the cluster shall have; so many nodes found it [default: 3]
    #[arg(long, value_name = "N")]
    cluster_size: Option<u64>,
    /// Shards of the cluster, fixed when it is founded [default: 8]
    #[arg(long, value_name = "N")]
    cluster_shards: Option<u64>,
    /// Directory of a cluster's node: identity, log, snapshots
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
    /// What keeps the log: fjall, sled or memory [default: fjall]
    #[arg(long, value_name = "ENGINE")]
    log_store: Option<String>,
    /// When log entries count as kept: fsync, async or memory [default: fsync]
    #[arg(long, value_name = "MODE")]
    durability: Option<String>,
    /// Followers listen to the engines as well, so that a fail-over loses nothing [default: true]
    #[arg(long, value_name = "BOOL")]
    standby: Option<bool>,
    /// Between a leader's signs of life; an election follows after 6 to 8 times that [default: 100]
    #[arg(long, value_name = "MS")]
    heartbeat_ms: Option<u64>,
    /// Log after which a shard's snapshot is due [default: 64]
    #[arg(long, value_name = "MIB")]
    snapshot_log_mib: Option<u64>,
}

impl ServeArgs {
    fn flags(self) -> RawConfig {
        RawConfig {
            listen: self.listen,
            log_format: self.log_format,
            log_filter: self.log_filter,
            snapshot_path: self.snapshot_path,
            snapshot_interval_s: self.snapshot_interval_s,
            ingest_threads: self.ingest_threads,
            gap_policy: self.gap_policy,
            idle_poll_ms: self.idle_poll_ms,
            replay_timeout_ms: self.replay_timeout_ms,
            max_body_bytes: self.max_body_bytes,
            max_prompt_tokens: self.max_prompt_tokens,
            max_batch: self.max_batch,
            max_candidates: self.max_candidates,
            max_streams: self.max_streams,
            watch_buffer: self.watch_buffer,
            max_workers: self.max_workers,
            max_entries: self.max_entries,
            max_index_bytes: self.max_index_bytes,
            drain_s: self.drain_s,
            peer_listen: self.peer_listen,
            advertise_peer: self.advertise_peer,
            advertise: self.advertise,
            cluster_peers: self.cluster_peers,
            cluster_size: self.cluster_size,
            cluster_shards: self.cluster_shards,
            data_dir: self.data_dir,
            log_store: self.log_store,
            durability: self.durability,
            standby: self.standby,
            heartbeat_ms: self.heartbeat_ms,
            snapshot_log_mib: self.snapshot_log_mib,
            workers: Vec::new(),
        }
    }
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let (file, print) = (args.config.clone(), args.print_config);
    let loaded = Config::load(file.as_deref(), &args.flags())
        .map_err(|error| failure::usage(format!("configuration: {error}")))?;
    if print {
        output::write(loaded.print_config().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    start_log(&loaded.config.log)?;
    for variable in &loaded.unknown_variables {
        tracing::warn!(variable, "means nothing to kvindex; misspelt?");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(serve(loaded.config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let wanted = config.listen;
    let listener = TcpListener::bind(wanted)
        .await
        .with_context(|| format!("cannot listen on {wanted}; is another kvindex running? (--listen)"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    // Before anything starts: a signal that comes early must still end in a snapshot.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let shutdown = async move {
        // First polled when the node serves, so whoever reads this line can connect.
        if let Err(error) = output::line(&format!("kvindex serves on http://{address}")) {
            tracing::debug!(%error, "nobody reads the address");
        }
        wait(&mut interrupt, &mut terminate).await;
    };
    App::run(config, listener, shutdown).await?;
    Ok(())
}

async fn wait(interrupt: &mut Signal, terminate: &mut Signal) {
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    tracing::info!(signal = name, "shutting down");
}

/// Logs go to standard error: standard output is for the address.
fn start_log(log: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter)
        .map_err(|error| failure::usage(format!("configuration: log_filter = {:?}: {error}", log.filter)))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours would be noise in a file.
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
