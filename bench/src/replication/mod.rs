//! What replication costs beside a node alone: ingest, answers of a follower, coming back, catching up. Real
//! `kvindex serve` processes on loopback, engines over real ZeroMQ, all on one machine.

mod answers;
mod engines;
mod intake;
mod load;
mod machine;
mod page;
mod returning;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use kvindex_faults::cluster::Options;
use kvindex_faults::network::Network;

use intake::{Taken, Takers};
use load::Case;

/// Nodes of every cluster.
const NODES: usize = 3;
/// How long a node may take to start, or to get everything.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    rounds: usize,
    /// Fleets that play the recording at full speed, and in the run that tells leader from follower.
    fleets: usize,
    /// Fleets that are asked about, batches a second that all of them say meanwhile, questions to each node in a
    /// round, and the time between two.
    asked_fleets: usize,
    asked_batches: f64,
    asks: usize,
    ask_every: Duration,
    /// Entries of the nodes that come back, and batches a second until they are there: so slowly that a shard's log has
    /// more entries than are kept behind a snapshot, and who joins cannot do without one.
    entries: usize,
    fill_batches: f64,
    /// MiB of a shard's log after which its snapshot is due, and how many shards, for those.
    snapshot_log_mib: u64,
    shards: u16,
    /// Whether leaders are spread before anything is measured.
    balanced: bool,
    /// How long whoever leads has to notice.
    settle: Duration,
    /// Whether every setting is measured, or one of each.
    whole: bool,
}

impl Scale {
    /// What the page is made with.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 3,
            fleets: 24,
            asked_fleets: 8,
            asked_batches: 2000.0,
            asks: 2000,
            ask_every: Duration::from_micros(1500),
            entries: 10_000_000,
            fill_batches: 4000.0,
            snapshot_log_mib: 2,
            shards: 8,
            balanced: true,
            settle: Duration::from_secs(2),
            whole: true,
        }
    }

    /// One small round, to see that it runs.
    pub(crate) fn smoke() -> Self {
        Self {
            rounds: 1,
            fleets: 1,
            asked_fleets: 1,
            asks: 200,
            entries: 200_000,
            fill_batches: 20_000.0,
            snapshot_log_mib: 1,
            // Few, so that so few entries fill a log.
            shards: 2,
            balanced: false,
            settle: Duration::from_millis(500),
            whole: false,
            ..Self::full()
        }
    }

    /// Another number of entries.
    pub(crate) fn with_entries(self, entries: Option<usize>) -> Self {
        Self { entries: entries.unwrap_or(self.entries), ..self }
    }
}

/// The parts of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Ingest at full speed.
    Ingest,
    /// Match latency.
    Match,
    /// Restart and catching up.
    Return,
}

/// What all parts need.
struct Bench {
    program: PathBuf,
    case: Case,
    scale: Scale,
}

impl Bench {
    fn options(&self, flags: &[&str]) -> Options {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Options { program: self.program.clone(), network: Network::Loopback, flags }
    }
}

/// What all rounds came to.
#[derive(Default)]
struct Measured {
    /// Each round in the order of [`settings`].
    ingest: Vec<Vec<Taken>>,
    asked: Vec<answers::Asked>,
    returned: Vec<returning::Returned>,
}

/// A node alone first: the others are compared with it.
fn settings(scale: &Scale) -> Vec<Takers> {
    let all =
        [Takers::Alone, Takers::Three("async"), Takers::Three("fsync"), Takers::NoStandby, Takers::OneShard];
    all.into_iter().take(if scale.whole { all.len() } else { 2 }).collect()
}

/// The program to measure: beside this one.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("kvindex"))
}

/// All rounds of these parts, as a Markdown page.
pub(crate) async fn run(
    program: PathBuf,
    recording: &Path,
    scale: Scale,
    parts: &[Part],
) -> anyhow::Result<String> {
    ensure!(program.exists(), "{} is not there: cargo build --release --bin kvindex", program.display());
    let bench = Bench { program, case: Case::open(recording)?, scale };
    let mut measured = Measured::default();
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    for round in (0..bench.scale.rounds).filter(|_| wanted(Part::Ingest)) {
        let mut row = Vec::new();
        for takers in settings(&bench.scale) {
            let taken = intake::round(&bench, takers, bench.scale.fleets).await?;
            eprintln!("round {}, {takers:?}: {:.2} M blocks/s", round + 1, taken.rate() / 1e6);
            row.push(taken);
        }
        intake::agree(&row.iter().collect::<Vec<_>>())?;
        measured.ingest.push(row);
    }
    if wanted(Part::Match) {
        measured.asked = answers::rounds(&bench).await?;
        eprintln!("match: {:?}", measured.asked);
    }
    let names = if bench.scale.whole { &[true, false][..] } else { &[true] };
    for alike in names.iter().filter(|_| wanted(Part::Return)) {
        let returned = returning::rounds(&bench, *alike).await?;
        eprintln!("return: {returned:?}");
        measured.returned.push(returned);
    }
    Ok(page::of(&bench, &measured))
}
