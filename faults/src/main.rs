//! Faults on real processes: three `kvindex serve`, recorded engines on real ZeroMQ, clients that ask all the time;
//! then something breaks. Prints for each fault what clients and engines noticed of it.
//!
//! Fails when a batch is lost, a living node does not answer, nodes differ, or an answer is not the engine's own.

mod clients;
mod damage;
mod engines;
mod kills;
mod partition;
mod report;
mod rows;
mod soak;
mod stage;
mod truth;

// The demo's own way to ask and to judge, so that both mean the same by "equal to the engines' truth".
#[allow(dead_code, reason = "the demo shows more of what it finds")]
#[path = "../../kvindex-cli/src/demo/ask.rs"]
mod ask;
#[allow(dead_code, reason = "the demo shows more of what it finds")]
#[path = "../../kvindex-cli/src/demo/doubts.rs"]
mod doubts;
#[allow(dead_code, reason = "the demo shows more of what it finds")]
#[path = "../../kvindex-cli/src/demo/tally.rs"]
mod tally;
#[allow(dead_code, reason = "the demo shows more of what it finds")]
#[path = "../../kvindex-cli/src/demo/verdict.rs"]
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use kvindex_faults::cluster::Options;
use kvindex_faults::network::Network;

use engines::Case;
use rows::Row;
use stage::{NODES, Play};

/// The model name that workers are registered under.
const MODEL: &str = "faults-model";

/// Break things under a cluster of three real processes, and print what clients noticed
#[derive(Debug, Parser)]
struct Args {
    /// Only these faults
    #[arg(long, value_delimiter = ',')]
    only: Vec<Row>,
    /// Instead of the table, kill the leader so many times in a row
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "50")]
    kills: Option<usize>,
    /// Instead of the table, fleets at full speed that come and go, under a cap on memory that must hold
    #[arg(long, conflicts_with_all = ["only", "kills"])]
    soak: bool,
    /// How long the soak takes
    #[arg(long, value_name = "N", default_value_t = 30.0, requires = "soak")]
    minutes: f64,
    /// The soak without TLS and tokens, to see what they cost
    #[arg(long, requires = "soak")]
    plain: bool,
    /// The program to start [default: kvindex beside this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Recording to play: the path of a case without suffix
    #[arg(long, value_name = "CASE")]
    recording: Option<PathBuf>,
    /// Event batches a second
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// Between two queries to a node
    #[arg(long, value_name = "MS", default_value_t = 5)]
    every_ms: u64,
    /// Do without network namespaces, and so without partitions
    #[arg(long)]
    loopback: bool,
    /// Leave the nodes' folders where they are
    #[arg(long)]
    keep: bool,
    /// Write the table to this file as well
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Set by this program when it runs inside its namespaces
    #[arg(long, hide = true)]
    namespaces: Option<String>,
    /// Further flags of every node, behind `--`: for other settings than the usual ones
    #[arg(last = true)]
    flags: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.namespaces.is_none() && !args.loopback {
        match Network::run_inside(NODES) {
            Ok(status) => return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            Err(why) => eprintln!("on loopback, without partitions: {why:#}"),
        }
    }
    let good = tokio::runtime::Runtime::new().context("the async runtime")?.block_on(run(args))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(args: &Args) -> anyhow::Result<Play> {
    let beside = std::env::current_exe()?.with_file_name("kvindex");
    let program = args.program.clone().unwrap_or(beside);
    ensure!(program.exists(), "{} is not there: cargo build --bin kvindex", program.display());
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases").join("conv-a");
    let case = Case::open(args.recording.as_deref().unwrap_or(&bundled))?;
    let network = args.namespaces.clone().map_or(Network::Loopback, Network::Namespaces);
    Ok(Play {
        options: Options { program, network, flags: args.flags.clone() },
        case: Arc::new(case),
        rate: args.rate,
        every: Duration::from_millis(args.every_ms),
        keep: args.keep,
    })
}

async fn run(args: Args) -> anyhow::Result<bool> {
    let play = play(&args)?;
    let records = play.case.checkpoints.last().map_or(0, |checkpoint| checkpoint.pos);
    eprintln!("{records} event batches in the recording, {} a second", play.rate);
    let (text, good) = match args.kills {
        _ if args.soak => soak::run(&play, args.minutes, !args.plain).await?,
        Some(count) => kills::run(&play, count).await?,
        None => {
            let rows = if args.only.is_empty() { Row::ALL.to_vec() } else { args.only.clone() };
            table(&play, &rows).await
        }
    };
    println!("{text}");
    if let Some(path) = &args.out {
        std::fs::write(path, format!("{text}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(good)
}

async fn table(play: &Play, rows: &[Row]) -> (String, bool) {
    let mut report = report::Report::default();
    for row in rows {
        eprintln!("{} ...", row.name());
        match row.play(play).await {
            Some(outcome) => report.add(row.name(), &outcome),
            None => report.skip(row.name()),
        }
        eprintln!("{}", report.last());
    }
    (report.text(), report.is_good())
}
