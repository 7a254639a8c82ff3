//! Answers counted: those that equal the engine's own, those that do not, and which of them say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kvindex_core::Doubt;

use super::ask::Said;

/// Unmarked differences that are kept to be shown.
const SHOWN: usize = 5;

/// Answers of one case, one way of asking, one view.
#[derive(Debug, Clone, Default)]
pub(super) struct Score {
    pub(super) answers: usize,
    /// Those that promise more than the engine holds.
    pub(super) high: usize,
    /// Those that promise less.
    pub(super) low: usize,
    /// Those that carry a doubt, whether they differ or not.
    pub(super) marked: usize,
    /// Those that differ and carry no doubt that allows for it.
    pub(super) wrong: usize,
    /// Names of all doubts that answers carry.
    pub(super) marks: BTreeSet<&'static str>,
    /// Answers that differ, by the doubts that allow for it.
    pub(super) doubts: BTreeMap<&'static str, usize>,
    first_wrong: Vec<String>,
}

impl Score {
    /// Counts one answer; `place` says where it stands, for people.
    pub(super) fn add(&mut self, said: Said, theirs: usize, place: impl Fn() -> String) {
        self.answers += 1;
        self.marked += usize::from(!said.doubts.is_empty());
        self.marks.extend(said.doubts.iter().map(Doubt::name));
        if said.tokens == theirs {
            return;
        }
        self.high += usize::from(said.tokens > theirs);
        self.low += usize::from(said.tokens < theirs);
        let high = said.tokens > theirs;
        let allows = |doubt: &Doubt| if high { doubt.may_be_too_long() } else { doubt.may_be_too_short() };
        let mut allowed = false;
        for doubt in said.doubts.iter().filter(allows) {
            allowed = true;
            *self.doubts.entry(doubt.name()).or_default() += 1;
        }
        if !allowed {
            self.wrong += 1;
            if self.first_wrong.len() < SHOWN {
                self.first_wrong.push(format!("{}: {} tokens, the engine {theirs}", place(), said.tokens));
            }
        }
    }

    pub(super) fn differing(&self) -> usize {
        self.high + self.low
    }

    pub(super) fn exact(&self) -> usize {
        self.answers - self.differing()
    }

    /// One line about the numbers, and the first answers that differ without a mark.
    pub(super) fn text(&self) -> String {
        let Self { answers, high, low, marked, wrong, marks, doubts, first_wrong } = self;
        let mut text = format!("{answers} answers, {high} high, {low} low, {marked} marked, {wrong} wrong");
        let _ = write!(text, ", marks {marks:?}, differing {doubts:?}");
        for line in first_wrong {
            let _ = write!(text, "\n    {line}");
        }
        text
    }

    /// What differs, in the words of the page; empty when nothing does.
    pub(super) fn differences(&self) -> String {
        let counts = [(self.high, "too high"), (self.low, "too low")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let doubts: Vec<String> = self.doubts.keys().map(|name| format!("`{name}`")).collect();
        if counts.is_empty() {
            String::new()
        } else {
            format!("{} ({})", counts.join(", "), doubts.join(", "))
        }
    }
}
