//! `kvindex serve`: a node, from flags, environment and file to its last snapshot.

mod logs;
mod reload;

use anyhow::Context;
use clap::Args;
use kvindex_server::config::{Config, Loaded, RawConfig};
use kvindex_server::{App, Listeners};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{failure, output};
use logs::Logs;
use reload::Reload;

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(loaded.config.access.threads())
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(serve(args, loaded))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &ServeArgs, loaded: Loaded) -> anyhow::Result<()> {
    let logs = Logs::start(&loaded.config)?;
    for variable in &loaded.unknown_variables {
        tracing::warn!(variable, "means nothing to kvindex; misspelt?");
    }
    let listeners = Listeners::bind(&loaded.config)?;
    let scheme = if loaded.config.tls.public.is_some() { "https" } else { "http" };
    // Before anything starts: a signal that comes early must still end in a snapshot.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let running = App::start(loaded.config, listeners).await?;
    // The node serves, so whoever reads this line can connect.
    let address = running.local_addr();
    if let Err(error) = output::line(&format!("kvindex serves on {scheme}://{address}")) {
        tracing::debug!(%error, "nobody reads the address");
    }
    let reload = Reload {
        file: args.config.clone(),
        flags: &args.settings,
        live: running.live_config().clone(),
        logs: &logs,
        metrics: running.node().metrics().clone(),
    };
    let shutdown = async {
        tokio::select! {
            () = wait(&mut interrupt, &mut terminate) => {}
            () = reload.run(hang_up) => {}
        }
    };
    let ended = running.until(shutdown).await;
    logs.end();
    Ok(ended?)
}

async fn wait(interrupt: &mut Signal, terminate: &mut Signal) {
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    tracing::info!(signal = name, "shutting down");
}
