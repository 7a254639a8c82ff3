//! The table.

use std::time::Duration;

use comfy_table::{Table, presets};

use crate::stage::Outcome;

const HEAD: [&str; 9] = [
    "fault",
    "queries",
    "failed",
    "longest silence, any node, ms",
    "longest silence of a living node, ms",
    "write gap, ms",
    "lost batches",
    "equal digests",
    "equal to truth",
];

/// Rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    bad: bool,
}

fn ms(time: Duration) -> String {
    time.as_millis().to_string()
}

fn yes(flag: bool) -> String {
    if flag { "yes".into() } else { "NO".into() }
}

impl Report {
    /// Adds a row; one that could not be played to its end is bad.
    pub(crate) fn add(&mut self, name: &str, outcome: &anyhow::Result<Outcome>) {
        let row = match outcome {
            Ok(outcome) => {
                self.bad |= !outcome.is_good();
                self.notes.extend(outcome.notes.iter().map(|note| format!("{name}: {note}")));
                let gaps: Vec<String> = outcome.write_gaps.iter().copied().map(ms).collect();
                vec![
                    name.to_owned(),
                    outcome.seen.answered.to_string(),
                    outcome.seen.failed.to_string(),
                    ms(outcome.seen.any),
                    ms(outcome.seen.worst),
                    gaps.join(", "),
                    outcome.lost.to_string(),
                    yes(outcome.equal),
                    yes(outcome.truth),
                ]
            }
            Err(error) => {
                self.bad = true;
                self.notes.push(format!("{name}: {error:#}"));
                let mut row = vec![name.to_owned(), "FAILED".to_owned()];
                row.resize(HEAD.len(), "-".into());
                row
            }
        };
        self.rows.push(row);
    }

    /// Adds a row that could not be played here.
    pub(crate) fn skip(&mut self, name: &str) {
        self.notes.push(format!("{name}: skipped, it needs root and network namespaces (`ip netns`)"));
        let mut row = vec![name.to_owned(), "skipped".to_owned()];
        row.resize(HEAD.len(), "-".into());
        self.rows.push(row);
    }

    /// The last row, for whoever watches.
    pub(crate) fn last(&self) -> String {
        let row = self.rows.last().map(|row| row.join(" | ")).unwrap_or_default();
        let notes = self.notes.last().map(|note| format!("\n  {note}")).unwrap_or_default();
        row + &notes
    }

    /// All of it, as Markdown.
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN).set_header(HEAD);
        table.add_rows(self.rows.clone());
        let notes: String = self.notes.iter().map(|note| format!("\n- {note}")).collect();
        format!("{table}\n{notes}")
    }

    /// Whether every row was good.
    pub(crate) fn is_good(&self) -> bool {
        !self.bad && !self.rows.is_empty()
    }
}
