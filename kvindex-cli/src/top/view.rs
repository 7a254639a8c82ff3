//! What a person chose to see: order, filter, sections, pause; and which row they look at.

use clap::ValueEnum;
use ratatui::widgets::TableState;
use std::cmp::Ordering;

use super::board::{Board, WorkerRow};

/// A column that the workers may be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Column {
    /// By name
    Worker,
    /// By model, then name
    Model,
    /// Those that are not live first
    Trust,
    /// Those that lag most first
    Lag,
    /// Those that hold most first
    Blocks,
    /// Those with most event batches a second first
    Batches,
}

impl Column {
    /// The column after this one.
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|column| *column == self).unwrap_or(0);
        all.get(at + 1).or(all.first()).copied().unwrap_or(self)
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Model => "model",
            Self::Trust => "trust",
            Self::Lag => "lag",
            Self::Blocks => "blocks",
            Self::Batches => "batches",
        }
    }

    fn order(self, one: &WorkerRow, other: &WorkerRow) -> Ordering {
        let rate = |row: &WorkerRow| row.batches_per_s.unwrap_or(-1.0);
        match self {
            Self::Worker => Ordering::Equal,
            Self::Model => one.model.cmp(&other.model),
            Self::Trust => doubt(other).cmp(&doubt(one)),
            Self::Lag => other.lag_ms.cmp(&one.lag_ms),
            Self::Blocks => other.blocks.cmp(&one.blocks),
            Self::Batches => rate(other).total_cmp(&rate(one)),
        }
        .then_with(|| (&one.worker_id, one.dp_rank).cmp(&(&other.worker_id, other.dp_rank)))
    }
}

/// How little an answer about a stream is worth.
fn doubt(row: &WorkerRow) -> u8 {
    match row.trust {
        "live" if row.reason.is_empty() => 0,
        "live" => 1,
        "pending" => 2,
        "rebuilding" => 3,
        _ => 4,
    }
}

/// What is shown of a board.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) sort: Column,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) shows_workers: bool,
    pub(super) shows_shards: bool,
    pub(super) shows_hot: bool,
    /// The row looked at, and how far the table is scrolled.
    pub(super) cursor: TableState,
}

impl View {
    pub(super) fn new(sort: Column, filter: String) -> Self {
        Self {
            sort,
            reversed: false,
            filter,
            typing: false,
            paused: false,
            help: false,
            shows_workers: true,
            shows_shards: true,
            shows_hot: true,
            cursor: TableState::new().with_selected(0),
        }
    }

    /// The rows to show, in order.
    pub(super) fn rows<'a>(&self, board: &'a Board) -> Vec<&'a WorkerRow> {
        let filter = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&filter);
        let wanted =
            |row: &&WorkerRow| has(&row.worker_id) || has(&row.model) || has(&row.tenant) || has(row.trust);
        let mut rows: Vec<&WorkerRow> = board.workers.iter().filter(wanted).collect();
        rows.sort_by(|one, other| self.sort.order(one, other));
        if self.reversed {
            rows.reverse();
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, trust: &'static str, lag_ms: u64, blocks: u64) -> WorkerRow {
        WorkerRow {
            worker_id: id.into(),
            model: "Llama".into(),
            trust,
            lag_ms,
            blocks,
            ..WorkerRow::default()
        }
    }

    #[test]
    fn rows_come_in_the_order_of_a_column_and_by_name_where_that_is_equal() {
        let workers = vec![row("c", "live", 5, 9), row("a", "live", 0, 7), row("b", "suspect", 0, 9)];
        let board = Board { workers, ..Board::default() };
        let mut view = View::new(Column::Worker, String::new());
        let mut names = |sort, reversed, filter: &str| {
            (view.sort, view.reversed, view.filter) = (sort, reversed, filter.into());
            view.rows(&board).iter().map(|row| row.worker_id.as_str()).collect::<String>()
        };
        assert_eq!(names(Column::Worker, false, ""), "abc");
        assert_eq!(names(Column::Worker, true, ""), "cba");
        assert_eq!(names(Column::Lag, false, ""), "cab");
        assert_eq!(names(Column::Blocks, false, ""), "bca");
        assert_eq!(names(Column::Trust, false, ""), "bac");
        assert_eq!(names(Column::Worker, false, "SUSP"), "b");
        assert_eq!(names(Column::Worker, false, "llama"), "abc");
        assert_eq!(names(Column::Worker, false, "none"), "");
    }

    #[test]
    fn every_column_comes_round() {
        let mut seen = vec![Column::Worker];
        while seen.last().map(|last| last.next()) != Some(Column::Worker) {
            seen.extend(seen.last().map(|last| last.next()));
            assert!(seen.len() <= Column::value_variants().len());
        }
        assert_eq!(seen, Column::value_variants());
    }
}
