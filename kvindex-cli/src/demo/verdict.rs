//! Judging the differences: the wire leaves some answers open. Each of these must be marked, and there may be no
//! more of them than the reference model of the recordings has.

use kvindex_recording::{Bar, Line};

use super::ask::Way;
use super::tally::{Count, Tally};

/// The tally against the bar.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// One line for each way of asking.
    pub(super) lines: Vec<String>,
    /// Answers compared.
    pub(super) answers: u64,
    /// Answers that differ and are marked.
    pub(super) undecidable: u64,
    /// Answers that differ without a mark that allows for it.
    pub(super) wrong: u64,
    /// Answers that differ beyond what the reference model has, marked or not.
    pub(super) beyond: u64,
}

/// Differences that the reference model has, by one way of asking.
fn allowed(way: Way, bar: Option<Bar>) -> Option<u64> {
    let line = |line: Option<Line>| line.map(|line| line.mismatches);
    match way {
        Way::Tokens => line(bar?.by_tokens),
        Way::Hashes => line(bar?.by_hash),
        Way::Host => bar?.by_hash.map(|line| line.host_mismatches),
    }
}

impl Verdict {
    /// Judges. Without a bar only a difference without a mark is bad.
    pub(super) fn of(tally: &Tally, bar: Option<Bar>) -> Self {
        let mut verdict = Self::default();
        for way in Way::ALL {
            verdict.judge(way, &tally.of(way), allowed(way, bar));
        }
        verdict
    }

    fn judge(&mut self, way: Way, count: &Count, allowed: Option<u64>) {
        let (name, answers, differ) = (way.name(), count.answers, count.mismatches());
        match (way, answers) {
            (Way::Host, 0) => return,
            (_, 0) => return self.lines.push(format!("{name}: not asked, the recording has none")),
            _ => {}
        }
        self.answers += answers;
        self.wrong += count.wrong;
        self.undecidable += differ - count.wrong;
        self.beyond += allowed.map_or(0, |allowed| differ.saturating_sub(allowed));
        let Count { too_high, too_low, wrong, marked, .. } = count;
        let marked = match marked {
            0 => String::new(),
            marked => format!("; {marked} in all carry a mark"),
        };
        if differ == 0 {
            return self.lines.push(format!("{name}: all {answers} answers equal the engines' own{marked}"));
        }
        let reference = match allowed {
            Some(allowed) => format!("the reference model has {allowed}"),
            None => "the reference model was not asked so".into(),
        };
        let marks = match (*wrong, differ - wrong) {
            (0, _) => "each with a mark".to_owned(),
            (_, 0) => "none with a mark".to_owned(),
            (wrong, _) => format!("{wrong} of them without a mark"),
        };
        self.lines.push(format!(
            "{name}: {differ} of {answers} answers differ, {marks}: {too_high} too high, {too_low} too low; \
             {reference}{marked}"
        ));
    }

    /// Whether every answer is as good as the wire allows, or says that it may not be.
    pub(super) fn is_good(&self) -> bool {
        self.wrong == 0 && self.beyond == 0
    }

    /// Answers that equal the engine's own.
    pub(super) fn equal(&self) -> u64 {
        self.answers - self.undecidable - self.wrong
    }

    /// The last line.
    pub(super) fn summary(&self) -> String {
        let mut text = format!("{} of {} equal", self.equal(), self.answers);
        for (count, what) in [
            (self.wrong, "wrong"),
            (self.undecidable, "undecidable on the wire"),
            (self.beyond, "more than the reference model's"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::Said;
    use super::super::tally::Compared;
    use super::*;

    fn tally(way: Way, answers: &[(u64, u64, bool)]) -> Tally {
        let mut tally = Tally::default();
        for &(engine, tokens, marked) in answers {
            let node = Said { tokens, doubts: if marked { vec!["a".into()] } else { Vec::new() } };
            let (checkpoint, worker) = ("0".into(), "w".into());
            tally.count(Compared { way, checkpoint, query: 0, worker, engine, node });
        }
        tally
    }

    fn bar(mismatches: u64, host_mismatches: u64) -> Option<Bar> {
        let line = Some(Line { answers: 3, mismatches, host_mismatches, ..Line::default() });
        Some(Bar { by_hash: line, by_tokens: line, clearing_all: None })
    }

    #[test]
    fn equal_answers_are_good_with_or_without_a_bar() {
        let tally = tally(Way::Tokens, &[(16, 16, false), (0, 0, true)]);
        for bar in [None, bar(0, 0), bar(2, 0)] {
            let verdict = Verdict::of(&tally, bar);
            assert!(verdict.is_good());
            assert_eq!(verdict.summary(), "2 of 2 equal");
            assert!(verdict.lines[0].ends_with("engines' own; 1 in all carry a mark"), "{verdict:?}");
        }
    }

    #[test]
    fn marked_differences_are_allowed_up_to_the_bar() {
        let tally = tally(Way::Tokens, &[(16, 32, true), (32, 16, true), (0, 0, false)]);
        for bar in [None, bar(2, 0)] {
            let within = Verdict::of(&tally, bar);
            assert!(within.is_good());
            assert_eq!(within.summary(), "1 of 3 equal, 2 undecidable on the wire");
            assert!(within.lines[0].contains("each with a mark: 1 too high, 1 too low"), "{within:?}");
        }
        let beyond = Verdict::of(&tally, bar(1, 9));
        assert!(!beyond.is_good());
        let summary = "1 of 3 equal, 2 undecidable on the wire, 1 more than the reference model's";
        assert_eq!(beyond.summary(), summary);
    }

    #[test]
    fn a_difference_without_a_mark_is_wrong_whatever_the_bar() {
        let tally = tally(Way::Hashes, &[(16, 32, true), (32, 16, false)]);
        let verdict = Verdict::of(&tally, bar(2, 0));
        assert!(!verdict.is_good());
        assert_eq!(verdict.summary(), "0 of 2 equal, 1 wrong, 1 undecidable on the wire");
        assert!(verdict.lines[1].contains("1 of them without a mark"), "{verdict:?}");
    }

    #[test]
    fn the_host_tier_has_a_bar_of_its_own() {
        let tally = tally(Way::Host, &[(16, 32, true)]);
        assert!(Verdict::of(&tally, bar(0, 1)).is_good());
        assert!(!Verdict::of(&tally, bar(1, 0)).is_good());
    }
}
