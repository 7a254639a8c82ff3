//! Runs the same generated work through kvindex and the published indexes that do its job, side by side in one
//! run, and writes what came of it to `docs/benchmarks/`.
//!
//! `report` takes half an hour on a quiet machine; `--smoke` takes seconds, and fails when an answer of
//! kvindex is wrong. Times of one machine mean little: read the ratios.

mod allocator;
mod answers;
mod cli;
mod indexes;
mod instructions;
mod machine;
mod report;
mod runs;
mod samples;
mod service;
mod threads;
mod timing;
mod work;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use answers::Answers;
use cli::{Cli, InstructionArgs, Part, ReportArgs, Task};
use indexes::Implementation;
use report::{figures, page, plot};
use runs::Run;
use samples::Samples;
use work::Scale;
use work::long::LONG_SHAPES;
use work::zipf::ZipfLoad;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None if cli.smoke => smoke(),
        None => {
            anyhow::bail!("say what to do: report, instructions, probes, service, or --smoke; see --help")
        }
        Some(Task::Report(args)) => full_report(&args),
        Some(Task::Instructions(args)) => count_instructions(&args),
        Some(Task::Probes) => probes_only(),
        Some(Task::Service(args)) => service::run(&args),
        Some(Task::DynamoServer { threads }) => service::dynamo(threads),
        Some(Task::MemoryOf(args)) => runs::memory::child(args.which, &args.load, &args.scale(Scale::full)),
        Some(Task::PhasesOf(args)) => {
            instructions::child(args.which, &args.load, &args.scale(Scale::counted))
        }
    }
}

fn new_run(scale: Scale, rounds: usize, patience: Duration, only: &[Implementation]) -> Run {
    Run {
        scale,
        rounds,
        patience,
        implementations: only.to_vec(),
        trace: None,
        samples: Samples::default(),
        answers: Answers::default(),
    }
}

/// The page, the plot, and every wrong answer of kvindex.
struct Written {
    page: String,
    plot: String,
    bad: Vec<String>,
}

/// Measures everything, in order.
fn measure(run: &mut Run, parts: &[Part], smoke: bool) -> anyhow::Result<Written> {
    let probes = runs::probes::run(run)?;
    let load = ZipfLoad::new(&run.scale);
    if parts.contains(&Part::Zipf) {
        runs::zipf::run(run, &load)?;
    }
    if parts.contains(&Part::Mixed) {
        runs::mixed::run(run, &load)?;
    }
    drop(load);
    for shape in LONG_SHAPES.into_iter().filter(|_| parts.contains(&Part::Long)) {
        runs::long::run(run, shape)?;
    }
    if let Some(file) = run.trace.clone() {
        runs::trace::run(run, &file)?;
    }
    if parts.contains(&Part::Memory) {
        runs::memory::run(run, smoke)?;
    }
    for which in run.implementations.clone() {
        let wrong = probes.iter().filter(|probe| probe.which == which && !probe.is_right()).count();
        run.samples.add(figures::PROBES, which, wrong as f64, 0.0);
        run.samples.add(figures::WRONG, which, run.answers.wrong(which) as f64, 0.0);
    }
    let figures = figures::all();
    let mut bad = run.answers.ours();
    bad.extend(probes.iter().filter(|p| p.which.is_ours() && !p.is_right()).map(|p| format!("{p:?}")));
    let page = page::page(run, &figures, &probes);
    Ok(Written { page, plot: plot::draw(&figures, &run.samples), bad })
}

fn full_report(args: &ReportArgs) -> anyhow::Result<()> {
    let patience = Duration::from_millis(args.wait_ms);
    let mut run = new_run(Scale::full(args.seed), args.rounds, patience, &args.only);
    run.trace.clone_from(&args.trace);
    let written = measure(&mut run, &args.parts, false)?;
    println!("{}", written.page);
    if Part::ALL.iter().all(|part| args.parts.contains(part)) {
        write(&args.out, "README.md", &written.page)?;
        write(&args.out, "ratios.svg", &written.plot)?;
    }
    refuse(&written.bad)
}

fn smoke() -> anyhow::Result<()> {
    let mut run = new_run(Scale::smoke(42), 1, Duration::ZERO, &Implementation::ALL);
    let written = measure(&mut run, &Part::ALL, true)?;
    refuse(&written.bad)?;
    let complete = [&written.page, &written.plot].iter().all(|text| text.contains("zipf store"));
    anyhow::ensure!(complete, "the report lacks figures");
    println!("every implementation ran; all answers of kvindex were right");
    Ok(())
}

fn refuse(bad: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(bad.is_empty(), "wrong answers of kvindex:\n{}", bad.join("\n"));
    Ok(())
}

fn probes_only() -> anyhow::Result<()> {
    let run = new_run(Scale::smoke(42), 1, Duration::ZERO, &Implementation::ALL);
    for probe in runs::probes::run(&run)? {
        let verdict = if probe.is_right() { "right" } else { "WRONG" };
        println!("{verdict} {:<16} {}: {:?}", probe.which.name(), probe.story, probe.got);
    }
    Ok(())
}

fn count_instructions(args: &InstructionArgs) -> anyhow::Result<()> {
    let samples = instructions::run(&args.only, &args.loads, args.seed, args.smoke)?;
    let figures = figures::instructions(&samples);
    let page = page::instructions(&figures, &samples);
    println!("{page}");
    if args.smoke { Ok(()) } else { write(&args.out, "instructions.md", &page) }
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("file {}", file.display()))?;
    eprintln!("wrote {}", file.display());
    Ok(())
}
