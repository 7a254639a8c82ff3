//! What the demo prints: a few words at the start; at the end a table of answers and the verdict, or JSON.

use comfy_table::{CellAlignment, Table, presets};
use kvindex_client::v1;
use serde_json::{Value, json};

use super::play::{Checked, Sample};
use super::source::Case;
use super::stage::Stage;
use super::stay::Invitation;
use super::verdict::{Count, Difference, Verdict};
use crate::demo::Output;
use crate::output;

/// What is about to happen.
pub(super) fn opening(format: Output, case: &Case, stage: &Stage) -> anyhow::Result<()> {
    if format == Output::Json {
        return Ok(());
    }
    let header = case.header();
    output::line(&format!(
        "Playing {}: {} event batches of {} {} {} engines, over ZeroMQ to a node on {}.",
        header.case,
        case.recording.records.len(),
        header.engines.len(),
        header.engine,
        header.version,
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
) -> anyhow::Result<()> {
    match format {
        Output::Json => output::json_line(&as_json(case, checked, verdict, stay)),
        Output::Table => output::line(&as_text(case, checked, verdict, stay)),
    }
}

fn as_text(case: &Case, checked: &Checked, verdict: &Verdict, stay: Option<&Invitation>) -> String {
    let mut lines = Vec::new();
    if !checked.samples.is_empty() {
        lines.push("\nSome prompts of the last checkpoint, and who holds how much of them:\n".to_owned());
        lines.push(table(case, &checked.samples).to_string());
    }
    let wrong = checked.tally.differences.iter().filter(|d| verdict.wrong_ways.contains(&d.way));
    lines.extend(wrong.map(sentence));
    lines.extend(stay.map(|stay| format!("\n{}", stay.text())));
    lines.push(format!("\n{} checkpoints passed, every query asked of every engine.", checked.checkpoints));
    lines.extend(verdict.lines.iter().cloned());
    lines.push(verdict.summary());
    lines.join("\n")
}

fn sentence(difference: &Difference) -> String {
    let Difference { way, checkpoint, query, worker, engine, node } = difference;
    format!(
        "checkpoint {checkpoint}, query {query}, {worker}: the engine holds {engine} tokens, the node says {node} \
         (asked by {way:?})"
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
    match trust.state() {
        v1::TrustState::Live => "live",
        v1::TrustState::Suspect => "suspect",
        v1::TrustState::Rebuilding => "rebuilding",
        v1::TrustState::Pending => "pending",
        v1::TrustState::Unspecified => "unspecified",
    }
}

fn as_json(case: &Case, checked: &Checked, verdict: &Verdict, stay: Option<&Invitation>) -> Value {
    let header = case.header();
    let count = |count: &Count| json!({"answers": count.answers, "too_high": count.too_high, "too_low": count.too_low});
    let difference = |d: &Difference| {
        json!({"asked_by": format!("{:?}", d.way).to_lowercase(), "checkpoint": d.checkpoint, "query": d.query,
               "worker": d.worker, "engine_tokens": d.engine, "node_tokens": d.node})
    };
    let sample = |sample: &Sample| {
        let worker = |w: &v1::WorkerMatch| {
            json!({"worker_id": w.worker_id, "matched_blocks": w.matched_blocks, "matched_tokens": w.matched_tokens,
                   "engine_tokens": own_answer(case, sample, w), "trust": w.trust.as_ref().map(state)})
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
        "by_tokens": count(&checked.tally.tokens),
        "by_hashes": count(&checked.tally.hashes),
        "answers": verdict.answers,
        "equal": verdict.equal(),
        "undecidable": verdict.undecidable,
        "wrong": verdict.wrong,
        "differences": checked.tally.differences.iter().map(difference).collect::<Vec<_>>(),
        "samples": checked.samples.iter().map(sample).collect::<Vec<_>>(),
        "stay": stay.map(Invitation::json),
        "summary": verdict.summary(),
    })
}
