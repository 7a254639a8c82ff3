//! What was found, as text with times for who watches and as a page of ratios.

use std::fmt::Write;

use super::ServiceArgs;
use super::recorded::{Compared, KNOWN, Score};
use super::timed::{Kind, Timed};
use crate::report::table::number;

const MIB: f64 = (1 << 20) as f64;

/// Where the answers differ, whole cases show why.
const DIFFERENCES: &str = "
Where Dynamo's answer is not the engine's, whole cases show why: of two copies of a block one is removed, and the \
block is gone (`dup*`); an engine restarts, and what it held before stays (`restart*`); hashes that are byte strings \
are not read (`bytes-cbor`); a prompt with a salt finds nothing, because a salt in vLLM's events is taken only where \
Dynamo's own worker has marked it; hybrid models and engines that look ahead are answered too high or too low \
(`hybrid-*`, `lookahead*`). With many engines its answers differ from run to run: in seven runs of `conv-a`, on a quiet \
machine and on a busy one, 22,486 of them were right, or 25,330, and 25,356 with one indexer thread; why was not looked \
into. kvindex's were the same in all.

Where it alone is right:

";

/// Middle, least and greatest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    [at(values.len() / 2), at(0), at(values.len().saturating_sub(1))]
}

fn ratio(values: Vec<f64>) -> String {
    let [median, least, greatest] = spread(values);
    format!("{}× ({} – {})", number(median), number(least), number(greatest))
}

impl Kind {
    fn name(&self) -> String {
        format!("`{}`, {} blocks", self.path, self.blocks)
    }

    fn ratios(&self) -> [String; 2] {
        let p50 = self.rounds.iter().map(|[ours, theirs]| ours.p50 / theirs.p50);
        let p99 = self.rounds.iter().map(|[ours, theirs]| ours.p99 / theirs.p99);
        [ratio(p50.collect()), ratio(p99.collect())]
    }

    /// Medians over the rounds, in microseconds: p50 and p99 of one server.
    fn micros(&self, server: usize) -> [String; 2] {
        let p50 = self.rounds.iter().map(|both| both[server].p50 / 1e3);
        let p99 = self.rounds.iter().map(|both| both[server].p99 / 1e3);
        [spread(p50.collect()), spread(p99.collect())].map(|[median, ..]| number(median))
    }
}

/// The times behind the page, which are of one machine on one day.
pub(super) fn times(timed: &Timed) -> String {
    let mut text = String::new();
    for kind in &timed.kinds {
        let [[our50, our99], [their50, their99]] = [kind.micros(0), kind.micros(1)];
        let name = kind.name();
        let _ = writeln!(text, "{name}: kvindex p50 {our50} µs, p99 {our99}; Dynamo {their50}, {their99}");
    }
    for (name, server) in [("kvindex", 0), ("Dynamo", 1)] {
        let (empty, full) = (timed.empty[server] as f64, timed.full[server] as f64);
        let an_entry = number((full - empty) / timed.entries as f64);
        let [empty, full] = [empty, full].map(|bytes| number(bytes / MIB));
        let _ = writeln!(text, "{name}: {empty} MiB empty, {full} MiB full, {an_entry} bytes an entry");
    }
    text
}

/// The page.
pub(super) fn page(args: &ServiceArgs, compared: &[Compared], timed: &Timed) -> String {
    let mut page = String::from("# The service beside Dynamo's\n\n");
    let _ = write!(
        page,
        "Written by `just bench-service`. Two real servers on loopback: `kvindex serve --dialect-dynamo true`, and the \
         standalone indexer of the crate `dynamo-kv-router` 1.6.1 (its own routes and state, {} indexer threads). Both \
         subscribe to the same engines over ZeroMQ, are registered by the same requests and asked the same questions. \
         Answers are read in one shape: a field too many or too few fails the run.\n\n\
         - Machine: {}; its load average at the end {}. Where that is above the cores, p99 tells of waiting for \
         one. Both built with the release profile (thin LTO); kvindex with the allocator it is shipped with, Dynamo's \
         with the system's.\n\n{}\n{}",
        args.threads,
        crate::machine::describe(),
        crate::machine::load(),
        answers(compared),
        ratios(args, timed)
    );
    page
}

/// Whose answers on the recordings were what.
pub(super) fn answers(compared: &[Compared]) -> String {
    let mut text = String::from(
        "## Answers\n\nRecorded engines play to both. *Same*: both gave the same answer, field by field, to `/query` \
         or `/query_by_hash`. *Right*: what the engine itself said of its device memory at that moment, for the prompts \
         that this dialect can ask about (no images, no extra keys). *Dynamo alone*: it was right and kvindex was not.\n\n\
         | case | questions | same | engines' answers | kvindex right | too high | too low | Dynamo right | too high | \
         too low | Dynamo alone |\n|",
    );
    text.push_str(" --- |");
    text.push_str(&" ---: |".repeat(10));
    text.push('\n');
    for c in compared {
        let (ours, theirs) = (cells(&c.ours), cells(&c.theirs));
        let (case, alone) = (&c.case, c.only_theirs);
        let _ = writeln!(
            text,
            "| {case} | {} | {} | {} | {ours} | {theirs} | {alone} |",
            c.questions, c.same, c.truths
        );
    }
    text.push_str(DIFFERENCES);
    for (case, most, why) in KNOWN.iter().filter(|known| compared.iter().any(|c| c.case == known.0)) {
        let _ = writeln!(text, "- `{case}`, {most}: {why}.");
    }
    text
}

fn cells(score: &Score) -> String {
    format!("{} | {} | {}", score.right, score.too_high, score.too_low)
}

fn ratios(args: &ServiceArgs, timed: &Timed) -> String {
    let (fleet, effort) = (args.fleet(), args.effort());
    let mut text = format!(
        "## Times and memory\n\nA generated fleet: {} engines, {} conversations of {} blocks below {} system prompts, each \
         held by two engines: {} (block, engine) entries. Both gave the same right answer to every question before the \
         first was timed. One client, a connection to each that stays open, the same question to one and the other in \
         turn; {} questions of a kind in each of {} rounds. Ratios are kvindex ÷ Dynamo in one round: the median, with \
         the least and the greatest.\n\n\
         | question | instances in an answer | p50 | p99 |\n| --- | ---: | ---: | ---: |\n",
        fleet.engines,
        fleet.conversations,
        fleet.depth,
        fleet.systems,
        timed.entries,
        effort.asked,
        effort.rounds
    );
    for kind in &timed.kinds {
        let [p50, p99] = kind.ratios();
        let _ = writeln!(text, "| {} | {} | {p50} | {p99} |", kind.name(), number(kind.holders));
    }
    let [ours, theirs] = [0, 1].map(|server| (timed.full[server] - timed.empty[server]) as f64);
    let whole = timed.full[0] as f64 / timed.full[1] as f64;
    let _ = write!(
        text,
        "\nResident memory with all of it loaded: {}× Dynamo's; what the blocks added: {}×.\n",
        number(whole),
        number(ours / theirs)
    );
    text
}
