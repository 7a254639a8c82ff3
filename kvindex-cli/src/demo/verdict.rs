//! Counting answers that differ from the engines' own, and judging them: the wire leaves some open, and the
//! reference model of the recordings says how many.

use kvindex_recording::Bar;

use super::ask::Way;

/// How many differences are kept to be shown.
const SHOWN: usize = 10;

/// Answers of one way of asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Answers compared.
    pub(super) answers: u64,
    /// Those that promise more than the engine holds.
    pub(super) too_high: u64,
    /// Those that promise less.
    pub(super) too_low: u64,
}

impl Count {
    /// Answers that differ.
    pub(super) fn mismatches(self) -> u64 {
        self.too_high + self.too_low
    }
}

/// One answer that differs.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// How it was asked.
    pub(super) way: Way,
    /// The checkpoint's number and label.
    pub(super) checkpoint: String,
    /// Place of the query in the checkpoint.
    pub(super) query: usize,
    /// The worker.
    pub(super) worker: String,
    /// Tokens by the engine's own answer.
    pub(super) engine: u64,
    /// Tokens by the node's.
    pub(super) node: u64,
}

/// All answers so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By tokens.
    pub(super) tokens: Count,
    /// By engine block hashes.
    pub(super) hashes: Count,
    /// The first differences of each way.
    pub(super) differences: Vec<Difference>,
}

impl Tally {
    /// Counts one answer; `difference` describes it.
    pub(super) fn count(&mut self, difference: Difference) {
        let count = match difference.way {
            Way::Tokens => &mut self.tokens,
            Way::Hashes => &mut self.hashes,
        };
        count.answers += 1;
        if difference.node == difference.engine {
            return;
        }
        if difference.node > difference.engine {
            count.too_high += 1;
        } else {
            count.too_low += 1;
        }
        if count.mismatches() <= SHOWN as u64 {
            self.differences.push(difference);
        }
    }
}

/// The tally against the bar.
#[derive(Debug)]
pub(super) struct Verdict {
    /// One line for each way of asking.
    pub(super) lines: Vec<String>,
    /// Answers compared.
    pub(super) answers: u64,
    /// Answers that differ as many as the wire leaves open.
    pub(super) undecidable: u64,
    /// Answers that differ beyond that.
    pub(super) wrong: u64,
    /// Ways of asking whose differences are wrong.
    pub(super) wrong_ways: Vec<Way>,
}

impl Verdict {
    /// Judges: without a bar no difference is allowed.
    pub(super) fn of(tally: &Tally, bar: Option<Bar>) -> Self {
        let mut verdict =
            Self { lines: Vec::new(), answers: 0, undecidable: 0, wrong: 0, wrong_ways: Vec::new() };
        let ways = [
            (Way::Tokens, "by tokens", tally.tokens, bar.and_then(|b| b.by_tokens)),
            (Way::Hashes, "by engine block hashes", tally.hashes, bar.and_then(|b| b.by_hash)),
        ];
        for (way, name, count, line) in ways {
            let (answers, differ) = (count.answers, count.mismatches());
            verdict.answers += answers;
            if answers == 0 {
                verdict.lines.push(format!("{name}: not asked, the recording has none"));
                continue;
            }
            let kinds = format!("too high {}, too low {}", count.too_high, count.too_low);
            let reference = match line {
                Some(line) => format!("the reference model: {}", line.mismatches),
                None => "no reference for this recording".into(),
            };
            let text = if differ == 0 {
                format!("all {answers} answers equal the engines' own")
            } else if differ <= line.map_or(0, |line| line.mismatches) {
                verdict.undecidable += differ;
                format!("{differ} answers differ where the wire cannot decide: {kinds}; {reference}")
            } else {
                verdict.wrong += differ;
                verdict.wrong_ways.push(way);
                format!("{differ} of {answers} answers are wrong: {kinds}; {reference}")
            };
            verdict.lines.push(format!("{name}: {text}"));
        }
        verdict
    }

    /// Whether every answer is as good as the wire allows.
    pub(super) fn is_good(&self) -> bool {
        self.wrong == 0
    }

    /// Answers that equal the engine's own.
    pub(super) fn equal(&self) -> u64 {
        self.answers - self.undecidable - self.wrong
    }

    /// The last line.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{} of {} equal", self.equal(), self.answers);
        if self.wrong > 0 {
            text.push_str(&format!(", {} wrong", self.wrong));
        }
        if self.undecidable > 0 {
            text.push_str(&format!(", {} undecidable on the wire", self.undecidable));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvindex_recording::Line;

    fn tally(way: Way, answers: &[(u64, u64)]) -> Tally {
        let mut tally = Tally::default();
        for &(engine, node) in answers {
            let (checkpoint, worker) = ("0".into(), "a".into());
            tally.count(Difference { way, checkpoint, query: 0, worker, engine, node });
        }
        tally
    }

    fn bar(mismatches: u64) -> Option<Bar> {
        let line = Some(Line { answers: 3, mismatches, too_high: mismatches, too_low: 0 });
        Some(Bar { by_hash: line, by_tokens: line })
    }

    #[test]
    fn equal_answers_are_good_with_or_without_a_bar() {
        let tally = tally(Way::Tokens, &[(16, 16), (0, 0)]);
        for bar in [None, bar(0), bar(2)] {
            let verdict = Verdict::of(&tally, bar);
            assert!(verdict.is_good());
            assert_eq!(verdict.summary(), "2 of 2 equal");
        }
    }

    #[test]
    fn differences_are_allowed_up_to_the_bar() {
        let tally = tally(Way::Tokens, &[(16, 32), (32, 16), (0, 0)]);
        let within = Verdict::of(&tally, bar(2));
        assert!(within.is_good());
        assert_eq!(within.summary(), "1 of 3 equal, 2 undecidable on the wire");
        assert!(within.lines[0].ends_with("too high 1, too low 1; the reference model: 2"), "{within:?}");
        for bar in [None, bar(1)] {
            let beyond = Verdict::of(&tally, bar);
            assert!(!beyond.is_good());
            assert_eq!(beyond.summary(), "1 of 3 equal, 2 wrong");
        }
    }
}
