//! What the demo prints: a few words at the start; at the end a table of answers and the verdict, or JSON.

use comfy_table::{CellAlignment, Table, presets};
use kvindex_client::v1;
use serde_json::{Value, json};

use super::play::{Checked, Sample};
use super::source::Case;
use super::stage::{ClusterVerdict, Stage};
use super::stay::Invitation;
use super::tally::{Compared, Count, Doubted};
use super::verdict::Verdict;
use super::{ask::Way, doubts};
use crate::demo::Output;
use crate::output;

/// What is about to happen.
pub(super) fn opening(format: Output, case: &Case, stage: &Stage) -> anyhow::Result<()> {
    if format == Output::Json {
        return Ok(());
    }
    let header = case.header();
    output::line(&format!(
        "Playing {}: {} event batches of {} {} {} engines, over ZeroMQ to {} on {}.",
        header.case,
        case.recording.records.len(),
        header.engines.len(),
        header.engine,
        header.version,
        stage.who(),
        stage.address()
    ))
}

/// What came out. The verdict is the last line.
pub(super) fn closing(
    format: Output,
    case: &Case,
    checked: &Checked,
    verdict: &Verdict,
    stay: Option<&Invitation>,
    cluster: Option<&ClusterVerdict>,
) -> anyhow::Result<()> {
    match format {
        Output::Json => {
            let mut value = as_json(case, checked, verdict, stay);
            if let Some(cluster) = cluster {
                value["cluster"] = cluster.json();
            }
            output::json_line(&value)
        }
        Output::Table => {
            if let Some(cluster) = cluster {
                output::line(&format!("\n{}", cluster.text()))?;
            }
            output::line(&as_text(case, checked, verdict, stay))
        }
    }
}

fn as_text(case: &Case, checked: &Checked, verdict: &Verdict, stay: Option<&Invitation>) -> String {
    let mut lines = Vec::new();
    if !checked.samples.is_empty() {
        lines.push("\nSome prompts of the last checkpoint, and who holds how much of them:\n".to_owned());
        lines.push(table(case, &checked.samples).to_string());
    }
    lines.extend(checked.tally.wrong.iter().map(sentence));
    lines.extend(stay.map(|stay| format!("\n{}", stay.text())));
    lines.push(format!("\n{} checkpoints passed, every query asked of every engine.", checked.checkpoints));
    lines.extend(verdict.lines.iter().cloned());
    if !checked.tally.doubted.is_empty() {
        lines.push("What the wire cannot decide, by the doubt that marks the answer:".to_owned());
        lines.extend(checked.tally.doubted.iter().map(|(name, doubted)| doubted_text(name, doubted)));
    }
    lines.push(verdict.summary());
    lines.join("\n")
}

fn doubted_text(name: &str, doubted: &Doubted) -> String {
    let Doubted { answers, first } = doubted;
    let mut text = format!("  {name}, {answers} answers: {}", doubts::sentence(name));
    for compared in first {
        text.push_str(&format!("\n    {}", sentence(compared)));
    }
    let more = answers - first.len() as u64;
    if more > 0 {
        text.push_str(&format!("\n    and {more} more"));
    }
    text
}

fn sentence(compared: &Compared) -> String {
    let Compared { way, checkpoint, query, worker, engine, node } = compared;
    format!(
        "checkpoint {checkpoint}, query {query}, {worker}: the engine holds {engine} tokens, the node says {} \
         ({})",
        node.tokens,
        way.name()
    )
}

fn table(case: &Case, samples: &[Sample]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "prompt tokens",
        "worker",
        "matched blocks",
        "matched tokens",
        "engine's own answer",
        "trust",
        "doubts",
    ]);
    for sample in samples {
        for worker in &sample.answer.workers {
            table.add_row([
                sample.answer.prompt_tokens.to_string(),
                worker.worker_id.clone(),
                worker.matched_blocks.to_string(),
                worker.matched_tokens.to_string(),
                own_answer(case, sample, worker).map_or_else(|| "-".into(), |tokens| tokens.to_string()),
                worker.trust.as_ref().map_or("-", state).to_owned(),
                if worker.doubts.is_empty() { "-".into() } else { worker.doubts.join(", ") },
            ]);
        }
    }
    for number in [0, 2, 3, 4] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn own_answer(case: &Case, sample: &Sample, worker: &v1::WorkerMatch) -> Option<u64> {
    let place = case.header().engines.iter().position(|engine| engine.name == worker.worker_id)?;
    Some(sample.query.engines.get(place)?.expected_tokens())
}

/// A trust state's word.
pub(super) fn state(trust: &v1::Trust) -> &'static str {
    trust.state().word()
}

fn count(count: &Count) -> Value {
    let Count { answers, too_high, too_low, marked, wrong } = count;
    json!({"answers": answers, "too_high": too_high, "too_low": too_low, "marked": marked, "wrong": wrong})
}

fn as_json(case: &Case, checked: &Checked, verdict: &Verdict, stay: Option<&Invitation>) -> Value {
    let header = case.header();
    let compared = |c: &Compared| {
        json!({"asked_by": c.way.key(), "checkpoint": c.checkpoint, "query": c.query, "worker": c.worker,
               "engine_tokens": c.engine, "node_tokens": c.node.tokens, "doubts": c.node.doubts})
    };
    let doubted = |(name, doubted): (&String, &Doubted)| {
        json!({"doubt": name, "meaning": doubts::sentence(name), "answers": doubted.answers,
               "first": doubted.first.iter().map(compared).collect::<Vec<_>>()})
    };
    let sample = |sample: &Sample| {
        let worker = |w: &v1::WorkerMatch| {
            json!({"worker_id": w.worker_id, "matched_blocks": w.matched_blocks, "matched_tokens": w.matched_tokens,
                   "engine_tokens": own_answer(case, sample, w), "trust": w.trust.as_ref().map(state),
                   "doubts": w.doubts})
        };
        json!({"prompt_tokens": sample.answer.prompt_tokens,
               "workers": sample.answer.workers.iter().map(worker).collect::<Vec<_>>()})
    };
    json!({
        "recording": header.case,
        "engine": header.engine.to_string(),
        "version": header.version.to_string(),
        "engines": header.engines.len(),
        "checkpoints": checked.checkpoints,
        Way::Tokens.key(): count(&checked.tally.of(Way::Tokens)),
        Way::Hashes.key(): count(&checked.tally.of(Way::Hashes)),
        Way::Host.key(): count(&checked.tally.of(Way::Host)),
        "answers": verdict.answers,
        "equal": verdict.equal(),
        "undecidable": verdict.undecidable,
        "wrong": verdict.wrong,
        "beyond_reference": verdict.beyond,
        "doubted": checked.tally.doubted.iter().map(doubted).collect::<Vec<_>>(),
        "differences": checked.tally.wrong.iter().map(compared).collect::<Vec<_>>(),
        "samples": checked.samples.iter().map(sample).collect::<Vec<_>>(),
        "stay": stay.map(Invitation::json),
        "summary": verdict.summary(),
    })
}
