//! Measures one node's own figures: how fast recorded events become index entries, what an entry costs in memory,
//! and where the time of a long prompt's question goes; what replication costs beside that; and what routing by it
//! gains on a published trace. What the index costs beside its peers is measured in `peers/`, a package of its own.
//! `--smoke` runs everything once, briefly.
//!
//! Times of one machine mean little; what is printed is for comparing commits in one run on one machine.

mod consensus_bytes;
mod dialects;
mod ingest;
mod memory;
mod mirrors;
mod overload;
mod prompt;
mod replication;
mod routing;
mod stopwatch;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kvindex_recording::Recording;

use replication::Scale;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

#[derive(Parser)]
#[command(
    about = "One node's own figures; all of them without a subcommand",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    /// One round of everything, to see that it runs.
    #[arg(long)]
    smoke: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Bytes of the replicated log for each stored block.
    ConsensusBytes(ConsensusArgs),
    /// Other indexers' forms of a question beside the native one, over HTTP.
    Dialects {
        /// Tokens of the prompt.
        #[arg(long, default_value_t = TOKENS)]
        tokens: usize,
        /// Rounds of 50 calls of each form.
        #[arg(long, default_value_t = ROUNDS)]
        rounds: usize,
    },
    /// Decode, hash and apply a recording's events.
    Ingest(IngestArgs),
    /// Bytes that a recording's blocks cost.
    Memory(RecordingArgs),
    /// Engines' own block hashes from tokens, beside ours.
    Mirrors {
        /// Rounds whose median is printed.
        #[arg(long, default_value_t = ROUNDS)]
        rounds: usize,
    },
    /// A long prompt's question over gRPC, and its parts.
    Prompt {
        /// Tokens of the prompt.
        #[arg(long, default_value_t = TOKENS)]
        tokens: usize,
        /// Rounds of 50 calls.
        #[arg(long, default_value_t = ROUNDS)]
        rounds: usize,
    },
    /// More questions than a node can answer: which wait, and which are refused.
    Overload {
        /// Seconds of each part.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Rounds.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Answers a second to take a tenth and twice of, instead of the node's best in each round.
        #[arg(long)]
        load: Option<f64>,
        /// The program to measure [default: kvindex beside this one]
        #[arg(long)]
        program: Option<PathBuf>,
        /// File to write the page to as well.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// A published trace over simulated engines: what routing by kvindex gains over other ways.
    Routing(routing::RoutingArgs),
    /// Three nodes beside one: ingest, answers of a follower, restart, catching up.
    Replication(ReplicationArgs),
}

#[derive(Args)]
struct ReplicationArgs {
    /// One small round, to see that it runs.
    #[arg(long)]
    smoke: bool,
    /// The program to measure [default: kvindex beside this one]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<replication::Part>,
    /// (Block, holder) entries of nodes that come back [default: 10 million]
    #[arg(long)]
    entries: Option<usize>,
    /// File to write the page to as well.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct RecordingArgs {
    /// Recording of engines, as its path without suffix.
    #[arg(long, default_value = RECORDING)]
    recording: PathBuf,
}

#[derive(Args)]
struct ConsensusArgs {
    /// Folder of recordings.
    #[arg(long, default_value = RECORDINGS)]
    recordings: PathBuf,
    /// Rounds whose median is printed.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// File to write the page to as well.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct IngestArgs {
    #[command(flatten)]
    recording: RecordingArgs,
    /// Rounds whose median is printed.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// File to write the page to as well.
    #[arg(long)]
    out: Option<PathBuf>,
}

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../recording/cases");
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../recording/cases/conv-a");
const TOKENS: usize = 100_000;
const ROUNDS: usize = 7;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => everything(cli.smoke),
        Some(Task::ConsensusBytes(args)) => {
            publish(&consensus_bytes::run(&args.recordings, args.rounds)?, args.out.as_deref())
        }
        Some(Task::Dialects { tokens, rounds }) => {
            tokio::runtime::Runtime::new()?.block_on(dialects::run(tokens, rounds))
        }
        Some(Task::Ingest(args)) => {
            let recording = Recording::open(&args.recording.recording)?;
            publish(&ingest::run(&recording, args.rounds)?, args.out.as_deref())
        }
        Some(Task::Memory(args)) => memory::run(&Recording::open(&args.recording)?),
        Some(Task::Mirrors { rounds }) => mirrors::run(rounds),
        Some(Task::Prompt { tokens, rounds }) => prompt::run(tokens, rounds),
        Some(Task::Overload { seconds, rounds, load, program, out }) => {
            let program = program.map_or_else(replication::program, Ok)?;
            let plan = overload::Plan { time: std::time::Duration::from_secs(seconds), rounds, load };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            publish(&runtime.block_on(overload::run(program, plan))?, out.as_deref())
        }
        Some(Task::Routing(args)) => publish(&routing::run(&args)?, args.out.as_deref()),
        Some(Task::Replication(args)) => replicate(args),
    }
}

/// Prints a page, and writes it where that is wanted.
fn publish(page: &str, out: Option<&Path>) -> anyhow::Result<()> {
    println!("{page}");
    let Some(file) = out else { return Ok(()) };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    }
    std::fs::write(file, page).with_context(|| format!("file {}", file.display()))
}

fn replicate(args: ReplicationArgs) -> anyhow::Result<()> {
    let program = args.program.map_or_else(replication::program, Ok)?;
    let scale = if args.smoke { Scale::smoke() } else { Scale::full() };
    let run = replication::run(program, Path::new(RECORDING), scale.with_entries(args.entries), &args.only);
    publish(&tokio::runtime::Runtime::new()?.block_on(run)?, args.out.as_deref())
}

fn everything(smoke: bool) -> anyhow::Result<()> {
    let rounds = if smoke { 1 } else { ROUNDS };
    let recording = Recording::open(&PathBuf::from(RECORDING))?;
    println!("{}", ingest::run(&recording, rounds)?);
    println!("{}", consensus_bytes::run(Path::new(RECORDINGS), rounds)?);
    memory::run(&recording)?;
    mirrors::run(rounds)?;
    prompt::run(TOKENS, rounds)?;
    let program = replication::program()?;
    if !program.exists() {
        println!(
            "replication: skipped, {} is not there: cargo build --release --bin kvindex",
            program.display()
        );
        return Ok(());
    }
    let (program, only, out) = (Some(program), Vec::new(), None);
    replicate(ReplicationArgs { smoke, program, only, entries: None, out })
}
