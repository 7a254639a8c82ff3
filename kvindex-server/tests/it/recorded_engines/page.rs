//! The page `docs/recorded-engines.md`: its table has a row for each case and view. The rows are written when
//! `KVINDEX_WRITE_RECORDED=1` is set, and otherwise compared with what was measured, so that they cannot go stale.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::score::Score;

/// Cases run in threads of one process and share the page.
static PAGE: Mutex<()> = Mutex::new(());
/// Cells of a row that hold numbers, after its name: answers, exact and marked by each way, wrong.
const NUMBERS: usize = 6;
const TOTAL: &str = "**all**";

/// What was measured in one case and one view, by each way of asking.
pub(super) struct Row {
    pub(super) tokens: Score,
    /// `None` where the recording has no hashes to ask by.
    pub(super) hashes: Option<Score>,
}

impl Row {
    pub(super) fn wrong(&self) -> usize {
        self.tokens.wrong + self.hashes.as_ref().map_or(0, |hashes| hashes.wrong)
    }

    fn line(&self, name: &str) -> String {
        let by_hash =
            |number: fn(&Score) -> usize| self.hashes.as_ref().map_or("-".into(), |s| number(s).to_string());
        let mut differences = Vec::new();
        let ways = [("by tokens", Some(&self.tokens)), ("by engine hash", self.hashes.as_ref())];
        for (way, score) in ways {
            let text = score.map(Score::differences).unwrap_or_default();
            differences.extend((!text.is_empty()).then(|| format!("{way}: {text}")));
        }
        let scores = std::iter::once(&self.tokens).chain(&self.hashes);
        let marks: BTreeSet<&str> = scores.flat_map(|score| score.marks.iter().copied()).collect();
        let marks: Vec<String> = marks.iter().map(|name| format!("`{name}`")).collect();
        let cells = [
            name.to_owned(),
            self.tokens.answers.to_string(),
            self.tokens.exact().to_string(),
            by_hash(Score::exact),
            self.tokens.marked.to_string(),
            by_hash(|score| score.marked),
            self.wrong().to_string(),
            marks.join(", "),
            differences.join("; "),
        ];
        format!("| {} |", cells.join(" | "))
    }
}

/// The page, cut at its table.
struct Page {
    head: String,
    rows: BTreeMap<String, String>,
    total: String,
    tail: String,
}

impl Page {
    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/recorded-engines.md")
    }

    fn read() -> Self {
        let text = std::fs::read_to_string(Self::path()).unwrap();
        let rule = text.find("\n| ---").expect("the page has a table") + 1;
        let start = rule + text[rule..].find('\n').unwrap() + 1;
        let end = text[start..].lines().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1);
        let end = start + end.sum::<usize>();
        let lines = text[start..end].lines();
        let mut rows: BTreeMap<String, String> =
            lines.map(|line| (cells(line)[0].clone(), line.to_owned())).collect();
        let total = rows.remove(TOTAL).unwrap_or_default();
        Self { head: text[..start].to_owned(), rows, total, tail: text[end..].to_owned() }
    }

    fn write(mut self) {
        self.total = self.added_up();
        let Self { head, rows, total, tail } = &self;
        let rows: String = rows.values().map(|row| format!("{row}\n")).collect();
        std::fs::write(Self::path(), format!("{head}{rows}{total}\n{tail}")).unwrap();
    }

    /// The last row. By engine hash not every answer could be asked, so there it says of how many.
    fn added_up(&self) -> String {
        let (mut sums, mut with_hashes) = ([0; NUMBERS], 0);
        for row in self.rows.values() {
            let cells = cells(row);
            for (sum, cell) in sums.iter_mut().zip(&cells[1..]) {
                *sum += cell.parse::<usize>().unwrap_or(0);
            }
            with_hashes += if cells[3] == "-" { 0 } else { cells[1].parse().unwrap_or(0) };
        }
        let [answers, tokens, hashes, marked_tokens, marked_hashes, wrong] = sums;
        format!(
            "| {TOTAL} | {answers} | {tokens} | {hashes} of {with_hashes} | {marked_tokens} | {marked_hashes} | {wrong} |  |  |"
        )
    }
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
}

fn writing() -> bool {
    std::env::var_os("KVINDEX_WRITE_RECORDED").is_some()
}

/// Writes the row, or holds the page to it.
pub(super) fn check_row(name: &str, row: &Row) {
    let line = row.line(name);
    let _alone = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut page = Page::read();
    if writing() {
        page.rows.insert(name.to_owned(), line);
        page.write();
        return;
    }
    let kept = page.rows.get(name).map(String::as_str);
    assert_eq!(
        kept,
        Some(line.as_str()),
        "docs/recorded-engines.md is stale; its head says how it is written"
    );
}

/// The page has rows of these cases alone, and its last row is their sum.
pub(super) fn check_rows_are_of(cases: &[&str]) {
    let _alone = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut page = Page::read();
    let case_of = |name: &str| name.split(',').next().unwrap_or_default().to_owned();
    if writing() {
        page.rows.retain(|name, _| cases.contains(&case_of(name).as_str()));
        page.write();
        return;
    }
    let mut found: Vec<String> = page.rows.keys().map(|name| case_of(name)).collect();
    found.dedup();
    assert_eq!(found, cases);
    assert_eq!(page.total, page.added_up());
}
