//! `kvindex cluster`: how a cluster stands, and changes of its nodes. Every change says first what it would do.

mod plan;
mod tables;
mod view;

use clap::{Args, Subcommand};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use kvindex_client::Client;

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::{failure, output};
use plan::{Change, Plan};
use view::View;

/// Show a cluster, or change its nodes.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the nodes, and every shard as the asked node sees it
    Status(StatusArgs),
    /// Remove a node for good; its id is never used again
    Remove(RemoveArgs),
    /// Give a node a vote
    Promote(NodeArgs),
    /// Take a node's vote away; it follows and answers on
    Demote(NodeArgs),
    /// Let another node lead a shard; a while later the cluster spreads its leaders over the voters again
    Transfer(TransferArgs),
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Also a digest of each shard's part of the index, which is equal on nodes that applied the same entries
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Id of the node
    #[arg(value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    /// Remove it even if too few of the others answer to go on without it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    consent: ConsentArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// Id of the node
    #[arg(value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    #[command(flatten)]
    consent: ConsentArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct TransferArgs {
    /// Number of the shard
    #[arg(value_name = "SHARD", value_parser = clap::value_parser!(u32).range(0..=i64::from(u16::MAX)))]
    shard: u32,
    /// Id of the node that shall lead it
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    to: u64,
    #[command(flatten)]
    consent: ConsentArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Whether to go ahead.
#[derive(Debug, Args)]
struct ConsentArgs {
    /// Do it without asking
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: ClusterArgs, format: Output) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Status(args) => status(&args, format),
        Verb::Remove(args) => {
            let change = Change::Remove { node: args.node, force: args.force };
            make(change, &args.consent, &args.server, format)
        }
        Verb::Promote(args) => {
            make(Change::Vote { node: args.node, voter: true }, &args.consent, &args.server, format)
        }
        Verb::Demote(args) => {
            make(Change::Vote { node: args.node, voter: false }, &args.consent, &args.server, format)
        }
        Verb::Transfer(args) => {
            let change = Change::Transfer { shard: args.shard, to: args.to };
            make(change, &args.consent, &args.server, format)
        }
    }
}

fn status(args: &StatusArgs, format: Output) -> anyhow::Result<ExitCode> {
    let response = with_client(&args.server, async |client| {
        let called = client.cluster_status(args.digests).await;
        called.map_err(|error| failure::of_call(&args.server.server, error))
    })?;
    match format {
        Output::Json => output::json_line(&response)?,
        Output::Table => output::line(&tables::status(&response))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Plans a change, asks whether to go ahead, makes it.
fn make(
    change: Change,
    consent: &ConsentArgs,
    server: &ServerArgs,
    format: Output,
) -> anyhow::Result<ExitCode> {
    with_client(server, async |client| {
        let view = View::of(&client, server).await?;
        let plan = Plan::of(change, &view).map_err(anyhow::Error::msg)?;
        if consent.dry_run {
            match format {
                Output::Json => output::json_line(&plan)?,
                Output::Table => output::line(&plan.text())?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        if !consent.yes && !agreed(&plan)? {
            return Err(anyhow::anyhow!("nothing was changed"));
        }
        apply(&client, change).await.map_err(|error| failure::of_call(&server.server, error))?;
        match format {
            Output::Json => output::json_line(&plan)?,
            Output::Table => {
                output::line(&format!(
                    "{}: accepted; `kvindex cluster status` shows how far it is",
                    plan.what
                ))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn apply(client: &Client, change: Change) -> Result<(), kvindex_client::CallError> {
    match change {
        Change::Remove { node, force } => client.remove_node(node, force).await,
        Change::Vote { node, voter } => client.set_voter(node, voter).await,
        Change::Transfer { shard, to } => client.hand_over(shard, to).await,
    }
}

/// Shows the plan and asks. The question goes to standard error: standard output is for the answer.
fn agreed(plan: &Plan) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let message =
            "standard input is no terminal to ask on: --yes goes ahead, --dry-run says what would happen";
        return Err(failure::usage(message));
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{}\nGo ahead? [y/N] ", plan.text())?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
