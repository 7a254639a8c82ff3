//! kvindex: the one binary. Reads the command line, runs one command, and turns its end into an exit code.

mod args;
mod ask;
mod cluster;
mod config;
mod connect;
mod demo;
mod discover;
mod doctor;
mod dump;
mod engine_args;
mod examples;
mod explain;
mod failure;
mod hash_args;
mod man;
mod output;
mod paint;
mod printable;
mod prompt;
mod replay;
mod serve;
mod tables;
mod token;
mod top;
mod watch;
mod workers;

use clap::FromArgMatches;
use std::process::ExitCode;

use args::{Cli, Command};

/// A node runs for months and its allocations are of all sizes and from all threads: the system's allocator keeps what
/// they leave between them. See docs/decisions/0020-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Not `Cli::parse`, whose help has no examples.
    let cli = Cli::from_arg_matches(&examples::command().get_matches()).unwrap_or_else(|error| error.exit());
    run(cli).unwrap_or_else(|error| failure::report(&error))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let output = cli.output;
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(args, output),
        Command::Match(args) => ask::run(*args, output),
        Command::Explain(args) => explain::run(*args, output),
        Command::Top(args) => top::run(&args, output),
        Command::Workers(args) => workers::list(args, output),
        Command::Register(args) => workers::register(*args, output),
        Command::Unregister(args) => workers::unregister(&args, output),
        Command::Config(args) => config::run(&args, output),
        Command::Cluster(args) => cluster::run(args, output),
        Command::Doctor(args) => doctor::run(&args, output),
        Command::Discover(args) => discover::run(&args, output),
        Command::Watch(args) => watch::run(args, output),
        Command::Replay(args) => replay::run(args, output),
        Command::Dump(args) => dump::run(args, output),
        Command::Token(args) => token::run(args, output),
        Command::Completions(args) => args::completions(&args),
        Command::Man(args) => man::run(&args),
    }
}
