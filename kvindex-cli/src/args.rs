//! The command line as a whole: which commands there are, and what all of them share.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use crate::demo::Output;
use crate::{
    ask, cluster, config, connect, demo, discover, doctor, dump, examples, explain, man, output, replay,
    serve, token, top, watch, workers,
};

/// Which worker holds how long a prefix of this prompt? A KV-cache metadata index for LLM inference routers.
#[derive(Debug, Parser)]
#[command(name = "kvindex", version, about, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Tables for people, or the response messages as JSON for programs
    #[arg(long, global = true, value_enum, default_value = "table", env = "KVINDEX_OUTPUT")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed or not equal, 2 wrong use or configuration, 3 server unreachable.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: follow engines' KV events and answer routers
    Serve(Box<serve::ServeArgs>),
    /// Play a recording of real engines into a node and check its answers against the engines' own
    Demo(demo::DemoArgs),
    /// Ask which workers hold how long a prefix of a prompt
    Match(Box<ask::MatchArgs>),
    /// Ask where each worker's match ends, and why
    Explain(Box<explain::ExplainArgs>),
    /// Watch a node's workers, shards and questions on a live screen
    Top(Box<top::TopArgs>),
    /// List the registered workers with their streams
    Workers(workers::WorkersArgs),
    /// Make a worker known to a node
    Register(Box<workers::RegisterArgs>),
    /// Make a node forget a worker and all its blocks
    Unregister(workers::UnregisterArgs),
    /// Show a cluster of nodes, or change who belongs to it, votes and leads
    Cluster(cluster::ClusterArgs),
    /// Show or check the configuration that `serve` would run by, or list every key
    Config(config::ConfigArgs),
    /// Look for what is wrong with a node's configuration, machine, network, engines and answers
    Doctor(Box<doctor::DoctorArgs>),
    /// Show which engines would be found in Kubernetes, and why not others
    Discover(Box<discover::DiscoverArgs>),
    /// Watch changes of the index as they happen
    Watch(watch::WatchArgs),
    /// Play a recording as real engines over ZeroMQ
    Replay(replay::ReplayArgs),
    /// Print what a node's snapshot file holds
    Dump(dump::DumpArgs),
    /// Make a token that lets a caller in
    Token(token::TokenArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Which node to ask, and how long to wait for it.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The node to ask
    #[arg(
        long,
        value_name = "URL",
        env = "KVINDEX_SERVER",
        default_value = connect::DEFAULT_SERVER,
        help_heading = "Server"
    )]
    pub(crate) server: String,
    /// File with the token to call with; `KVINDEX_TOKEN` holds a token itself
    #[arg(long, value_name = "PATH", env = "KVINDEX_TOKEN_FILE", help_heading = "Server")]
    pub(crate) token_file: Option<PathBuf>,
    /// CA that must have signed the node's certificate, PEM; needed for https
    #[arg(long, value_name = "PATH", env = "KVINDEX_CA", help_heading = "Server")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to show the node, PEM
    #[arg(
        long,
        value_name = "PATH",
        env = "KVINDEX_CLIENT_CERT",
        requires = "client_key",
        help_heading = "Server"
    )]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(
        long,
        value_name = "PATH",
        env = "KVINDEX_CLIENT_KEY",
        requires = "client_cert",
        help_heading = "Server"
    )]
    pub(crate) client_key: Option<PathBuf>,
    /// Name that the node's certificate must carry [default: the host of --server]
    #[arg(long, value_name = "NAME", env = "KVINDEX_SERVER_NAME", help_heading = "Server")]
    pub(crate) server_name: Option<String>,
    /// How long to wait for its answer, in milliseconds
    #[arg(
        long = "timeout",
        value_name = "MS",
        env = "KVINDEX_TIMEOUT_MS",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u64).range(1..=600_000),
        help_heading = "Server"
    )]
    pub(crate) timeout_ms: u64,
}

/// Prints the completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut examples::command(), "kvindex", &mut script);
    output::write(&script)?;
    Ok(ExitCode::SUCCESS)
}
