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
    #[command(flatten)]
    settings: RawConfig,
}

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let loaded = Config::load(args.config.as_deref(), &args.settings)
        .map_err(|error| failure::usage(format!("configuration: {error}")))?;
    if args.print_config {
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
