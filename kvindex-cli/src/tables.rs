//! Answers as tables for people.

use comfy_table::{Cell, CellAlignment, Table, presets};
use kvindex_client::v1::{self, TrustState};
use std::fmt::Display;

use crate::printable;

/// The answer when nobody can be meant.
pub(crate) const NO_WORKER: &str =
    "no worker of this model, tenant and filter is known; `kvindex workers` lists all";

/// Columns whose cells are numbers stand right.
const RIGHT: char = '>';

/// A table with these headings; a heading that begins with [`RIGHT`] has numbers under it.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches(RIGHT)));
    for (index, heading) in headings.iter().enumerate() {
        if let (true, Some(column)) = (heading.starts_with(RIGHT), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What stands in a cell: on one line, whatever it was that others chose.
pub(crate) fn cell(content: impl Display) -> Cell {
    Cell::new(printable::name(&content.to_string()))
}

/// The table without the blanks that fill up its last column.
pub(crate) fn lines(table: &Table) -> String {
    table.trim_fmt()
}

/// The answer to `match`.
pub(crate) fn matches(response: &v1::MatchResponse) -> String {
    let summary = format!("prompt of {} tokens{}", response.prompt_tokens, timing(response.timing.as_ref()));
    if response.workers.is_empty() {
        return format!("{NO_WORKER}\n{summary}");
    }
    let mut rows = table(&[
        "worker",
        ">rank",
        "address",
        ">blocks",
        ">tokens",
        ">share",
        ">to compute",
        "tiers",
        "trust",
    ]);
    for worker in &response.workers {
        rows.add_row(vec![
            cell(&worker.worker_id),
            cell(worker.dp_rank),
            cell(worker.address.as_deref().unwrap_or("-")),
            cell(worker.matched_blocks),
            cell(worker.matched_tokens),
            cell(share(worker.matched_tokens, response.prompt_tokens)),
            cell(worker.uncached_tokens),
            cell(tiers(worker)),
            cell(trust(worker.trust.as_ref(), &worker.doubts)),
        ]);
    }
    let mut text = format!("{}\n{summary}", lines(&rows));
    for group in &response.groups {
        text += &format!(
            "\ngroup {}: prefill on {}, decode on {}",
            group.pd_group,
            best(group.prefill.as_ref()),
            best(group.decode.as_ref())
        );
    }
    text
}

/// The answer to `explain`.
pub(crate) fn explanations(response: &v1::ExplainResponse) -> String {
    let summary = format!("prompt of {} tokens{}", response.prompt_tokens, timing(response.timing.as_ref()));
    if response.workers.is_empty() {
        return format!("{NO_WORKER}\n{summary}");
    }
    let mut rows =
        table(&["worker", ">rank", ">matched", ">of blocks", ">breaks at", ">held beyond", "why", "trust"]);
    for worker in &response.workers {
        let held = worker.matched.clone().unwrap_or_default();
        rows.add_row(vec![
            cell(&held.worker_id),
            cell(held.dp_rank),
            cell(held.matched_blocks),
            cell(worker.prompt_blocks),
            cell(worker.broke_at.map_or_else(|| "-".into(), |block| block.to_string())),
            cell(worker.held_beyond),
            cell(&worker.detail),
            cell(trust(held.trust.as_ref(), &held.doubts)),
        ]);
    }
    format!("{}\n{summary}", lines(&rows))
}

/// The answer to `workers`: a row for each stream.
pub(crate) fn workers(response: &v1::ListWorkersResponse) -> String {
    if response.workers.is_empty() {
        return "no workers; `kvindex register` makes one known".into();
    }
    let mut rows = table(&[
        "worker",
        "model",
        "tenant",
        "engine",
        ">rank",
        "events from",
        "trust",
        ">lag ms",
        ">generation",
        ">batch",
        ">blocks",
        "hash check",
    ]);
    for worker in &response.workers {
        let known = |stream: Option<&v1::WorkerStream>| {
            let stamp = stream.and_then(|stream| stream.trust.clone());
            vec![
                cell(&worker.worker_id),
                cell(&worker.model),
                cell(&worker.tenant),
                cell(&worker.engine),
                cell(stream.map_or_else(|| "-".into(), |stream| stream.dp_rank.to_string())),
                cell(stream.and_then(|s| s.endpoint.as_deref()).unwrap_or("pushed")),
                cell(trust(stamp.as_ref(), &[])),
                cell(stamp.as_ref().map_or(0, |stamp| stamp.lag_ms)),
                cell(stamp.as_ref().map_or(0, |stamp| stamp.generation)),
                cell(stamp.and_then(|stamp| stamp.applied_seq).map_or_else(|| "-".into(), |s| s.to_string())),
                cell(stream.map_or(0, |stream| stream.blocks)),
                cell(stream.map_or("-", |stream| stream.hash_check.as_str())),
            ]
        };
        if worker.streams.is_empty() {
            rows.add_row(known(None));
        }
        rows.add_rows(worker.streams.iter().map(|stream| known(Some(stream))));
    }
    lines(&rows)
}

/// Where the time went.
pub(crate) fn timing(timing: Option<&v1::Timing>) -> String {
    timing.map_or_else(String::new, |t| {
        format!("; {} µs decoding, {} µs hashing, {} µs walking", t.decode_us, t.hash_us, t.walk_us)
    })
}

/// A share in hundredths.
pub(crate) fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{percent} %"),
        None => "-".into(),
    }
}

/// Blocks by tier; in brackets the prefix that this tier and all faster ones give, where it is another number.
pub(crate) fn tiers(worker: &v1::WorkerMatch) -> String {
    let tier = |tier: &v1::TierMatch| {
        if tier.blocks == tier.prefix_blocks {
            format!("{} {}", tier.tier, tier.blocks)
        } else {
            format!("{} {} (prefix {})", tier.tier, tier.blocks, tier.prefix_blocks)
        }
    };
    let tiers: Vec<String> = worker.tiers.iter().map(tier).collect();
    if tiers.is_empty() { "-".into() } else { tiers.join(", ") }
}

/// A verdict as people read it.
pub(crate) fn trust_word(trust: Option<&v1::Trust>) -> &'static str {
    match trust.map_or(TrustState::Unspecified, v1::Trust::state) {
        TrustState::Unspecified => "-",
        state => state.word(),
    }
}

fn trust(trust: Option<&v1::Trust>, doubts: &[String]) -> String {
    let mut text = trust_word(trust).to_owned();
    if let Some(reason) = trust.map(|trust| trust.reason.as_str()).filter(|reason| !reason.is_empty()) {
        text += &format!(": {reason}");
    }
    if !doubts.is_empty() {
        text += &format!(" (in doubt: {})", doubts.join(", "));
    }
    text
}

fn best(worker: Option<&v1::WorkerMatch>) -> String {
    worker.map_or_else(|| "-".into(), |w| format!("{} ({} tokens)", w.worker_id, w.matched_tokens))
}
