//! Measures one node's three figures: how fast recorded events become index entries, what an entry costs in
//! memory, and where the time of a long prompt's question goes. `--smoke` runs everything once, briefly.
//!
//! Times of one machine mean little; what is printed is for comparing commits in one run on one machine.

mod ingest;
mod memory;
mod prompt;
mod stopwatch;

use std::path::PathBuf;

use clap::Parser;
use kvindex_recording::Recording;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

#[derive(Parser)]
struct Args {
    /// Recording to ingest, as its path without suffix.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../recording/cases/conv-a"))]
    recording: PathBuf,
    /// Rounds whose median is printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Tokens of the long prompt.
    #[arg(long, default_value_t = 100_000)]
    tokens: usize,
    /// One round of everything, to see that it runs.
    #[arg(long)]
    smoke: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let rounds = if args.smoke { 1 } else { args.rounds };
    let recording = Recording::open(&args.recording)?;
    ingest::run(&recording, rounds)?;
    memory::run(&recording)?;
    tokio::runtime::Runtime::new()?.block_on(prompt::run(args.tokens, rounds))
}
