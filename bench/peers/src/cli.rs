//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::indexes::Implementation;
use crate::runs;
use crate::service::ServiceArgs;
use crate::work::Scale;

#[derive(Parser)]
#[command(about = "kvindex beside its peers on the same work", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Task>,
    /// Everything once, tiny, with answers checked; writes nothing.
    #[arg(long)]
    pub(crate) smoke: bool,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Measure everything; print and write the page and the plot.
    Report(ReportArgs),
    /// Count instructions under valgrind; print and write the page.
    Instructions(InstructionArgs),
    /// Ask the semantics probes only.
    Probes,
    /// Compare the service with Dynamo's: answers, times, memory of two real servers; print and write the page.
    Service(ServiceArgs),
    /// Dynamo's server, for `service`.
    #[command(hide = true)]
    DynamoServer {
        #[arg(long)]
        threads: usize,
    },
    /// One index's memory on one load, for `report`.
    #[command(hide = true)]
    MemoryOf(ChildArgs),
    /// One index's phases on one load, for `instructions`.
    #[command(hide = true)]
    PhasesOf(ChildArgs),
}

/// A part of the report, each with a load of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Zipf,
    Mixed,
    Long,
    Memory,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Zipf, Self::Mixed, Self::Long, Self::Memory];
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Rounds over all implementations.
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Milliseconds that a sample waits for a quiet machine.
    #[arg(long, default_value_t = 3000)]
    pub(crate) wait_ms: u64,
    /// Implementations to measure.
    #[arg(long, value_delimiter = ',', default_values_t = Implementation::ALL)]
    pub(crate) only: Vec<Implementation>,
    /// Parts to measure; the page is written only when they are all.
    #[arg(long, value_delimiter = ',', default_values_t = Part::ALL)]
    pub(crate) parts: Vec<Part>,
    /// A Mooncake trace (JSON lines, gzipped or not) to replay as well.
    #[arg(long)]
    pub(crate) trace: Option<PathBuf>,
    /// Folder for README.md and ratios.svg.
    #[arg(long, default_value = DOCS)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct InstructionArgs {
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Implementations to count.
    #[arg(long, value_delimiter = ',', default_values_t = COUNTED)]
    pub(crate) only: Vec<Implementation>,
    /// Loads to count on: zipf, full64, full1000, stagger64, stagger1000.
    #[arg(long, value_delimiter = ',', default_values_t = runs::memory::LOADS.map(str::to_owned))]
    pub(crate) loads: Vec<String>,
    /// A tiny load, to see that it works.
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Folder for instructions.md.
    #[arg(long, default_value = DOCS)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct ChildArgs {
    pub(crate) which: Implementation,
    #[arg(long)]
    pub(crate) load: String,
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) smoke: bool,
}

/// Where the pages go.
pub(crate) const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks");
/// Whose instructions are counted: the peers', and ours.
const COUNTED: [Implementation; 5] = [
    Implementation::Kvindex,
    Implementation::Crtc,
    Implementation::Radix,
    Implementation::Pos,
    Implementation::Smg,
];

impl ChildArgs {
    /// The scale that the parent measures at.
    pub(crate) fn scale(&self, normal: fn(u64) -> Scale) -> Scale {
        if self.smoke { Scale::smoke(self.seed) } else { normal(self.seed) }
    }
}
