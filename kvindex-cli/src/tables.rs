//! Answers as tables for people.

use comfy_table::{Cell, CellAlignment, Table, presets};
use kvindex_client::v1::{self, TrustState};

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

/// The table without the blanks that fill up its last column.
pub(crate) fn lines(table: &Table) -> String {
    table.trim_fmt()
}

/// The answer to `match`.
pub(crate) fn matches(response: &v1::MatchResponse) -> String {
    let summary = format!("prompt of {} tokens{}", response.prompt_tokens, timing(response.timing.as_ref()));
    if response.workers.is_empty() {
        return format!("no worker of this model, tenant and filter is known\n{summary}");
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
            Cell::new(&worker.worker_id),
            Cell::new(worker.dp_rank),
            Cell::new(worker.address.as_deref().unwrap_or("-")),
            Cell::new(worker.matched_blocks),
            Cell::new(worker.matched_tokens),
            Cell::new(share(worker.matched_tokens, response.prompt_tokens)),
            Cell::new(worker.uncached_tokens),
            Cell::new(tiers(worker)),
            Cell::new(trust(worker.trust.as_ref(), &worker.doubts)),
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
        return format!("no worker of this model, tenant and filter is known\n{summary}");
    }
    let mut rows =
        table(&["worker", ">rank", ">matched", ">of blocks", ">breaks at", ">held beyond", "why", "trust"]);
    for worker in &response.workers {
        let held = worker.matched.clone().unwrap_or_default();
        rows.add_row(vec![
            Cell::new(&held.worker_id),
            Cell::new(held.dp_rank),
            Cell::new(held.matched_blocks),
            Cell::new(worker.prompt_blocks),
            Cell::new(worker.broke_at.map_or_else(|| "-".into(), |block| block.to_string())),
            Cell::new(worker.held_beyond),
            Cell::new(&worker.detail),
            Cell::new(trust(held.trust.as_ref(), &held.doubts)),
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
                Cell::new(&worker.worker_id),
                Cell::new(&worker.model),
                Cell::new(&worker.tenant),
                Cell::new(&worker.engine),
                Cell::new(stream.map_or_else(|| "-".into(), |stream| stream.dp_rank.to_string())),
                Cell::new(stream.and_then(|s| s.endpoint.as_deref()).unwrap_or("pushed")),
                Cell::new(trust(stamp.as_ref(), &[])),
                Cell::new(stamp.as_ref().map_or(0, |stamp| stamp.lag_ms)),
                Cell::new(stamp.as_ref().map_or(0, |stamp| stamp.generation)),
                Cell::new(
                    stamp.and_then(|stamp| stamp.applied_seq).map_or_else(|| "-".into(), |s| s.to_string()),
                ),
                Cell::new(stream.map_or(0, |stream| stream.blocks)),
                Cell::new(stream.map_or("-", |stream| stream.hash_check.as_str())),
            ]
        };
        if worker.streams.is_empty() {
            rows.add_row(known(None));
        }
        rows.add_rows(worker.streams.iter().map(|stream| known(Some(stream))));
    }
    lines(&rows)
}

fn timing(timing: Option<&v1::Timing>) -> String {
    timing.map_or_else(String::new, |t| {
        format!("; {} µs decoding, {} µs hashing, {} µs walking", t.decode_us, t.hash_us, t.walk_us)
    })
}

fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{percent} %"),
        None => "-".into(),
    }
}

/// Blocks by tier; in brackets the prefix that this tier and all faster ones give, where it is another number.
fn tiers(worker: &v1::WorkerMatch) -> String {
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

fn trust(trust: Option<&v1::Trust>, doubts: &[String]) -> String {
    let state = trust.map_or(TrustState::Unspecified, v1::Trust::state);
    let word = match state {
        TrustState::Live => "live",
        TrustState::Suspect => "suspect",
        TrustState::Rebuilding => "rebuilding",
        TrustState::Pending => "pending",
        TrustState::Unspecified => "-",
    };
    let mut text = word.to_owned();
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
