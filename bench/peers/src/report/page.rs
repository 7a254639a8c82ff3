//! The page: how the figures were made, the tables, what is wrong with whose answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::figures::{Figure, Outcome};
use super::table::{measured, medians, number, spreads};
use crate::indexes::Implementation;
use crate::runs::Run;
use crate::runs::probes::Probe;
use crate::samples::Samples;

/// What is said of each column.
const COLUMNS: &str = "\
- **kvindex**: `kvindex-core` of this tree, behind a read-write lock as a node has it, every event a command of its own.
- **crtc**, **radix**, **pos**: Dynamo's concurrent compressed radix tree (one writer thread behind a queue, its \
production shape), single-threaded radix tree (called directly; in production it stands behind a channel, which \
costs more) and positional indexer (one writer thread), crate `dynamo-kv-router` 1.6.1.
- **smg**: Shepherd Model Gateway's index, crate `smg-radix-tree` 0.1.0, single-threaded.
- **trie**, **dashmap**: baselines with an entry a block, from its chained hash to its holders, in `radix_trie` 0.3 \
and `dashmap` 6. They trust every engine's hashes to be one chain. They are not among the peers that ratios are to.
";

/// The whole page.
pub(crate) fn page(run: &Run, figures: &[Figure], probes: &[Probe]) -> String {
    let samples = &run.samples;
    let mut page = String::from("# The index beside its peers\n\n");
    page.push_str("Written by `just bench`. Read the ratios: the times are of one machine on one day, the ratios are of one run in which every implementation did the same work, each in its turn. Beside this page: [instruction counts](instructions.md), [ingest of recorded engines](ingest.md), [what replication costs](replication.md), [bytes of its log](consensus-bytes.md), [the service beside Dynamo's](service.md).\n\n");
    page.push_str(&conditions(run));
    let _ = write!(page, "\n{COLUMNS}\n{}\n", summary(figures, samples));
    page.push_str("![kvindex to the best peer](ratios.svg)\n\n## Figures\n\nMedians. CPU times are of all threads of the process. *Disturbed*: other processes used more than a quarter of the machine during a sample of ours or of the best peer; measure again before believing it.\n\n");
    page.push_str(&medians(figures, samples));
    page.push_str(
        "\n## Answers\n\nChecked in the run that timed them, against the generator's own books.\n\n",
    );
    page.push_str(&answers(run));
    page.push_str("\n## Semantics probes\n\nA cell is the answer where it is wrong, as worker:blocks.\n\n");
    page.push_str(&probe_table(probes));
    page.push_str("\n## Spread\n\nLeast and greatest of the samples kept, and the largest share of the machine that other processes used during one of them.\n\n");
    page.push_str(&spreads(figures, samples));
    page
}

/// The page of instruction counts.
pub(crate) fn instructions(figures: &[Figure], samples: &Samples) -> String {
    let scale = crate::work::Scale::counted(0);
    let mut page = String::from("# Instructions beside the peers\n\n");
    let _ = write!(
        page,
        "Written by `just bench-instructions`: instructions of the whole process as callgrind counts them, the \
         same in every run but for what threads wait. The loads are those of [the figures](README.md), smaller: \
         zipf with {} entries, long chains of at most {} workers and {} chains, questions after a warm-up.\n\n{}\n",
        scale.entries,
        scale.most_workers,
        scale.most_chains,
        summary(figures, samples)
    );
    page.push_str(&medians(figures, samples));
    page
}

fn conditions(run: &Run) -> String {
    let scale = &run.scale;
    let file = run.trace.as_ref().and_then(|path| path.file_name());
    let trace = file.map(|name| format!(" --trace {}", name.to_string_lossy())).unwrap_or_default();
    format!(
        "- Command: `just bench --rounds {}{trace}`.\n\
         - Machine: {}. Built with the release profile (thin LTO).\n\
         - {} rounds; of each figure's samples the 5 least disturbed by other processes count. Memory is counted once, in a process of its own for each index.\n\
         - Work: seed {}; zipf with {} (block, worker) entries of {} workers and {} system prompts; long chains of {} blocks.\n\
         - A question reaches the peers as local block hashes, and kvindex and the baselines as chained hashes: chaining is not timed, and costs {} ns a block here (pos does it within the time shown, crtc, radix and smg do without).\n",
        run.rounds,
        crate::machine::describe(),
        run.rounds,
        scale.seed,
        scale.entries,
        scale.workers,
        scale.prompts,
        scale.depth,
        number(crate::indexes::kvindex::chaining_ns()),
    )
}

/// How many targets are reached, and which are not.
pub(crate) fn summary(figures: &[Figure], samples: &Samples) -> String {
    let bars: Vec<(&Figure, Outcome)> =
        measured(figures, samples).filter(|(_, outcome)| outcome.reached.is_some()).collect();
    let missed: Vec<&str> = bars
        .iter()
        .filter(|(_, outcome)| outcome.reached == Some(false))
        .map(|(figure, _)| figure.title.as_str())
        .collect();
    let mut text = format!("**{} of {} targets reached.**", bars.len() - missed.len(), bars.len());
    if !missed.is_empty() {
        let _ = write!(text, " Not reached: {}.", missed.join("; "));
    }
    text.push('\n');
    text
}

fn answers(run: &Run) -> String {
    let mut by_load: BTreeMap<&str, BTreeMap<Implementation, String>> = BTreeMap::new();
    for (load, which, wrong) in run.answers.iter() {
        let cell = if wrong.wrong == 0 {
            format!("0 of {}", wrong.asked)
        } else {
            format!(
                "**{} of {}** ({} workers too high, {} too low)",
                wrong.wrong, wrong.asked, wrong.over, wrong.under
            )
        };
        by_load.entry(load).or_default().insert(which, cell);
    }
    grid("wrong answers on", &run.timed(), by_load)
}

fn probe_table(probes: &[Probe]) -> String {
    let credits = |credits: &[(u32, u32)]| {
        let words: Vec<String> = credits.iter().map(|(worker, depth)| format!("{worker}:{depth}")).collect();
        if words.is_empty() { "nobody".into() } else { words.join(" ") }
    };
    let mut order: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<&str, BTreeMap<Implementation, String>> = BTreeMap::new();
    for probe in probes {
        if !order.contains(&probe.story) {
            order.push(probe.story);
        }
        let cell = if probe.is_right() { "ok".into() } else { credits(&probe.got) };
        rows.entry(probe.story).or_default().insert(probe.which, cell);
    }
    let mut table = String::from("| probe | right |");
    let columns: Vec<Implementation> = Implementation::ALL
        .into_iter()
        .filter(|which| probes.iter().any(|probe| probe.which == *which))
        .collect();
    columns.iter().for_each(|which| table.push_str(&format!(" {} |", which.name())));
    let _ = writeln!(table, "\n|{}", "---|".repeat(columns.len() + 2));
    for story in order {
        let right = probes.iter().find(|probe| probe.story == story).map(|probe| credits(&probe.right));
        let _ = write!(table, "| {story} | {} |", right.unwrap_or_default());
        let row = rows.remove(story).unwrap_or_default();
        columns.iter().for_each(|which| {
            table.push_str(&format!(" {} |", row.get(which).map_or("–", String::as_str)));
        });
        table.push('\n');
    }
    table
}

fn grid(
    first: &str,
    columns: &[Implementation],
    rows: BTreeMap<&str, BTreeMap<Implementation, String>>,
) -> String {
    let names: Vec<&str> = columns.iter().map(|which| which.name()).collect();
    let mut table = format!("| {first} | {} |\n|{}\n", names.join(" | "), "---|".repeat(names.len() + 1));
    for (name, row) in rows {
        let cells: Vec<&str> =
            columns.iter().map(|which| row.get(which).map_or("–", String::as_str)).collect();
        let _ = writeln!(table, "| {name} | {} |", cells.join(" | "));
    }
    table
}
