//! `kvindex-sim`: runs seeds, prints what struck and what was broken, and replays a seed with its trace.

use clap::Parser;
use kvindex_sim::faults::Kind;
use kvindex_sim::{Mutation, Report, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Live through simulated clusters: one seed is one run.
#[derive(Debug, Parser)]
#[command(name = "kvindex-sim")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replay this one alone, and print its trace.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: no trace.
    #[arg(long)]
    quiet: bool,
    /// Only faults of this kind; may be given several times.
    #[arg(long = "fault")]
    faults: Vec<Kind>,
    /// Put this bug in, and stop at the first seed that finds it.
    #[arg(long, default_value = "none")]
    mutation: Mutation,
    /// What the parts themselves log, as `openraft=debug`, among the trace.
    #[arg(long)]
    log: Option<String>,
    /// Seeds that run at once; as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    if let Some(seed) = arguments.seed {
        let run = run_of(&arguments, seed, !arguments.quiet);
        let report = run.go();
        println!("{}", summary(&report));
        return verdict(&arguments, &report);
    }
    all(&arguments)
}

fn run_of(arguments: &Arguments, seed: u64, loud: bool) -> Run {
    Run { seed, only: arguments.faults.clone(), mutation: arguments.mutation, loud }
}

/// What was counted over all seeds.
#[derive(Debug, Default)]
struct Tally {
    kinds: BTreeMap<Kind, (u64, u64)>,
    runs: u32,
    broken: u32,
    entries: usize,
    virtual_ms: u64,
}

impl Tally {
    fn count(&mut self, report: &Report) {
        self.runs += 1;
        self.broken += u32::from(report.violation.is_some());
        self.entries += report.committed.iter().sum::<usize>();
        self.virtual_ms += report.took_ms;
        let kinds: BTreeSet<Kind> = report.faults.iter().copied().collect();
        for kind in kinds {
            let (seeds, violations) = self.kinds.entry(kind).or_default();
            *seeds += 1;
            *violations += u64::from(report.violation.is_some());
        }
    }

    fn print(&self, took: f64) {
        println!("{:<16}{:>8}{:>12}", "fault", "seeds", "violations");
        for (kind, (seeds, violations)) in &self.kinds {
            println!("{:<16}{seeds:>8}{violations:>12}", kind.name());
        }
        let Self { runs, broken, entries, virtual_ms, .. } = self;
        println!(
            "{runs} seeds, {broken} with violations; {entries} entries, {} virtual minutes; {took:.1} s, {:.1} seeds/s",
            virtual_ms / 60_000,
            f64::from(*runs) / took
        );
    }
}

/// Runs every seed, each in one thread, as many at once as there are processors.
fn all(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let threads = arguments.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    let (sender, reports) = std::sync::mpsc::sync_channel::<Report>(16);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody waits for reports any more once one was enough.
                    if seed >= end || sender.send(run_of(arguments, seed, false).go()).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            tally.count(&report);
            verdict(arguments, &report);
            if report.violation.is_some() && !arguments.keep_going {
                break;
            }
        }
    });
    tally.print(start.elapsed().as_secs_f64());
    if tally.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(report: &Report) -> String {
    let (count, digest) = (report.trace.1, report.trace.0);
    format!(
        "seed {}: {}; {:?} entries in {} ms, {count} events, digest {digest:016x}",
        report.seed, report.plan, report.committed, report.took_ms,
    )
}

/// Says what was broken and how to see it again.
fn verdict(arguments: &Arguments, report: &Report) -> ExitCode {
    let Some(violation) = &report.violation else { return ExitCode::SUCCESS };
    if arguments.seed.is_none() || arguments.quiet {
        report.recent.iter().for_each(|line| println!("{line}"));
    }
    println!("{}", summary(report));
    println!("VIOLATION of \"{}\" at {} ms: {}", violation.invariant, violation.at_ms, violation.detail);
    let mut again = format!("cargo sim --seed {}", report.seed);
    for kind in &arguments.faults {
        again += &format!(" --fault {}", kind.name());
    }
    if arguments.mutation != Mutation::None {
        again += &format!(" --mutation {}", arguments.mutation.name());
    }
    println!("again: {again}");
    ExitCode::FAILURE
}
