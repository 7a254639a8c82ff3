//! What the doctor found: one line for each check, and how the whole reads.

use serde::Serialize;

use crate::tables;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// A node would not run, or not run right.
    Wrong,
    /// It may be meant so, or cost something later.
    Doubtful,
    /// Not looked at.
    Skipped,
    /// As it should be.
    Well,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Wrong => "WRONG",
            Self::Doubtful => "doubtful",
            Self::Skipped => "skipped",
            Self::Well => "well",
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    verdict: Verdict,
    /// Which check.
    check: &'static str,
    /// What was found.
    what: String,
    /// What to do about it; empty where there is nothing.
    next: String,
}

impl Finding {
    pub(crate) fn wrong(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, check, what: what.into(), next: next.into() }
    }

    pub(crate) fn doubtful(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Doubtful, check, what: what.into(), next: next.into() }
    }

    pub(crate) fn skipped(check: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, check, what: what.into(), next: String::new() }
    }

    pub(crate) fn well(check: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Well, check, what: what.into(), next: String::new() }
    }
}

/// Everything found, in the order of the checks.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn note(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(crate) fn all(&self) -> &[Finding] {
        &self.0
    }

    /// Whether anything is wrong.
    pub(crate) fn failed(&self) -> bool {
        self.0.iter().any(|finding| finding.verdict == Verdict::Wrong)
    }

    /// The worst first; what is well only when asked for.
    pub(crate) fn table(&self, all: bool) -> String {
        let mut shown: Vec<&Finding> =
            self.0.iter().filter(|finding| all || finding.verdict != Verdict::Well).collect();
        shown.sort_by_key(|finding| finding.verdict);
        let mut rows = tables::table(&["", "check", "found", "next step"]);
        for finding in &shown {
            rows.add_row(
                [finding.verdict.word(), finding.check, &finding.what, &finding.next].map(tables::cell),
            );
        }
        let count = |verdict| self.0.iter().filter(|finding| finding.verdict == verdict).count();
        let (wrong, doubtful) = (count(Verdict::Wrong), count(Verdict::Doubtful));
        let (skipped, well) = (count(Verdict::Skipped), count(Verdict::Well));
        let summary = format!("{wrong} wrong, {doubtful} doubtful, {skipped} skipped, {well} well");
        if shown.is_empty() { summary } else { format!("{}\n{summary}", tables::lines(&rows)) }
    }
}
