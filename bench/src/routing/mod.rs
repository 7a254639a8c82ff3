//! What routing by kvindex gains: a published trace replayed over simulated engines, once for each policy. The
//! engines are a model, whose assumptions are printed with every result; the index is the real one.

mod cache;
mod engine;
mod figures;
mod guess;
mod index_feed;
mod page;
mod plot;
mod replay;
mod router;
mod scenario;
mod trace;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use router::Policy;
use scenario::{Measured, Scenarios};

/// The model's settings. Their defaults are those of the published page.
#[derive(Args, Debug, Clone)]
pub(crate) struct RoutingArgs {
    /// A trace of kvcache-ai/Mooncake, FAST25-release/traces, plain or .gz; may be given several times.
    #[arg(long, required = true)]
    trace: Vec<PathBuf>,
    /// Only so many requests of each trace.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    requests: usize,
    /// Sizes of the fleet; the middle one gets the whole range of loads.
    #[arg(long, value_delimiter = ',', default_value = "4,8,16", value_parser = positive)]
    engines: Vec<usize>,
    /// Blocks of 512 tokens in one engine's cache: tight, ample.
    #[arg(long, value_delimiter = ',', default_value = "1000,8000", value_parser = positive)]
    cache_blocks: Vec<usize>,
    /// Prompt tokens offered to prefill capacity if nothing were cached; sets the trace's speed. The first is the
    /// one that fleets of all sizes get.
    #[arg(long, value_delimiter = ',', default_value = "0.8,0.4,0.6,1.0,1.2", value_parser = above_zero)]
    load: Vec<f64>,
    /// Requests at once for each engine where the trace's times are left aside.
    #[arg(long, default_value = "4", value_parser = positive)]
    concurrency: usize,
    /// Routers side by side, in the part about several of them; each sees its share of the requests.
    #[arg(long, default_value = "4", value_parser = positive)]
    routers: usize,
    /// What a cached token of the prompt counts, beside one that waits to be computed.
    #[arg(long, default_value = "2", value_parser = not_negative)]
    overlap_weight: f64,
    /// Policies to compare [default: all].
    #[arg(long, value_delimiter = ',')]
    policies: Vec<Policy>,
    /// Tokens that an engine prefills in a second.
    #[arg(long, default_value = "10000", value_parser = above_zero)]
    prefill_rate: f64,
    /// Milliseconds from an engine's announcement to its place in the index.
    #[arg(long, default_value = "20", value_parser = not_negative)]
    delay_ms: f64,
    /// Blocks of 512 tokens that the approximate router remembers for each engine if it is not told the cache's size.
    #[arg(long, default_value = "3906", value_parser = positive)]
    guess_blocks: usize,
    /// Seconds after which the approximate router forgets a block that was not sent again [default: never].
    #[arg(long, value_parser = above_zero)]
    guess_ttl_s: Option<f64>,
    /// Milliseconds of a step without a prefill, where engines write answers too.
    #[arg(long, default_value = "25", value_parser = above_zero)]
    step_ms: f64,
    /// Milliseconds more of a step for each answer in it.
    #[arg(long, default_value = "0.25", value_parser = not_negative)]
    each_ms: f64,
    /// Prompt tokens in a step with a prefill in it.
    #[arg(long, default_value = "2048", value_parser = above_zero)]
    chunk: f64,
    /// For ties, and for nothing else.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// File to write the page to as well.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// File to write the plot to, beside the page.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// Runs everything; the page as Markdown.
pub(crate) fn run(args: &RoutingArgs) -> anyhow::Result<String> {
    let scenarios = Scenarios::new(args)?;
    let mut measured = Vec::new();
    for path in &args.trace {
        let requests = trace::read(path, args.requests)?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = name.trim_end_matches(".gz").trim_end_matches(".jsonl").to_owned();
        measured.push(Measured { runs: scenarios.run(&name, &requests)?, name, requests });
    }
    if let Some(file) = &args.plot {
        let svg = plot::svg(&scenarios, &measured);
        std::fs::write(file, svg).with_context(|| format!("--plot {}", file.display()))?;
    }
    let plot = args.plot.as_ref().and_then(|file| file.file_name()).map(|name| name.to_string_lossy());
    Ok(page::page(args, &scenarios, &measured, plot.as_deref()))
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("0 is too few: give 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |number| number > 0.0, "greater than 0")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |number| number >= 0.0, "0 or greater")
}

fn number(text: &str, good: impl Fn(f64) -> bool, must: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number.is_finite() && good(number) { Ok(number) } else { Err(format!("{number} must be {must}")) }
}
