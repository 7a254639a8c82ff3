//! `kvindex-sim`: runs seeds, prints what struck and what was broken, and replays a seed with its trace.

use clap::Parser;
use kvindex_sim::faults::Kind;
use kvindex_sim::{Mutation, Report, Run};
use std::collections::BTreeMap;
use std::process::ExitCode;
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

/// Runs every seed and counts.
fn all(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let mut table: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    let (mut broken, mut runs, mut entries, mut virtual_ms) = (0, 0, 0, 0);
    for seed in arguments.from..arguments.from + arguments.seeds {
        let report = run_of(arguments, seed, false).go();
        runs += 1;
        entries += report.committed.iter().sum::<usize>();
        virtual_ms += report.took_ms;
        let mut kinds: Vec<Kind> = report.faults.clone();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let row = table.entry(kind).or_default();
            row.0 += 1;
            row.1 += u64::from(report.violation.is_some());
        }
        if report.violation.is_some() {
            broken += 1;
            verdict(arguments, &report);
            if !arguments.keep_going {
                break;
            }
        }
    }
    println!("{:<16}{:>8}{:>12}", "fault", "seeds", "violations");
    for (kind, (seeds, violations)) in table {
        println!("{:<16}{seeds:>8}{violations:>12}", kind.name());
    }
    let took = start.elapsed().as_secs_f64();
    println!(
        "{runs} seeds, {broken} with violations; {entries} entries, {:.0} virtual minutes; {took:.1} s, {:.1} seeds/s",
        virtual_ms as f64 / 60_000.0,
        f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / took
    );
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
