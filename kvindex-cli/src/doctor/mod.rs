//! `kvindex doctor`: looks at everything a node needs before and while it runs, and names what is wrong with the next
//! step. It changes nothing.

mod engines;
mod files;
mod finding;
mod kubernetes;
mod machine;
mod network;
mod running;

use anyhow::Context;
use clap::Args;
use kvindex_server::config::{Config, ConfigError, RawConfig};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::{Output, ServerArgs};
use crate::output;
use finding::{Finding, Findings};

/// Look for what is wrong with a node's configuration, machine, network, engines and answers
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Configuration file in TOML, as for `serve`
    #[arg(long, value_name = "PATH", env = "KVINDEX_CONFIG")]
    config: Option<PathBuf>,
    /// Show what is well too
    #[arg(long)]
    all: bool,
    /// Ask no running node
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    settings: Box<RawConfig>,
}

pub(crate) fn run(args: &DoctorArgs, output: Output) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let findings = runtime.block_on(examine(args));
    match output {
        Output::Json => output::json_line(&findings.all())?,
        Output::Table => output::line(&findings.table(args.all))?,
    }
    Ok(if findings.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(args: &DoctorArgs) -> Findings {
    let mut findings = Findings::default();
    if let Some(config) = configuration(args, &mut findings) {
        files::examine(&config, &mut findings);
        machine::examine(&config, &mut findings).await;
        network::examine(&config, &mut findings).await;
        kubernetes::examine(&config.discovery, &mut findings).await;
        engines::examine(&config.workers, &mut findings).await;
    }
    if args.offline {
        findings.note(Finding::skipped("node", "not asked (--offline)"));
    } else {
        running::examine(&args.server, &mut findings).await;
    }
    findings
}

/// The configuration that `serve` would run by; without one nothing of this machine can be judged.
fn configuration(args: &DoctorArgs, findings: &mut Findings) -> Option<Config> {
    match Config::load(args.config.as_deref(), &args.settings) {
        Ok(loaded) => {
            for variable in &loaded.unknown_variables {
                let what = format!("{variable} means nothing to kvindex");
                findings.note(Finding::doubtful("configuration", what, "correct its name, or unset it"));
            }
            findings.note(Finding::well("configuration", "is valid"));
            Some(loaded.config)
        }
        Err(error) => {
            let next = match &error {
                ConfigError::Unknown { .. } => "`kvindex config keys` lists every key",
                ConfigError::Unreadable { .. } => "name a file that can be read (--config, KVINDEX_CONFIG)",
                ConfigError::Malformed(_) | ConfigError::Invalid { .. } => {
                    "correct it; nothing else was looked at"
                }
            };
            findings.note(Finding::wrong("configuration", error.to_string(), next));
            None
        }
    }
}
