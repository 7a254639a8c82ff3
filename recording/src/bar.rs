//! The bar: how many answers per case the reference model gets wrong, because the wire cannot decide them.
//!
//! An index must do no worse. The numbers are those of `verification.txt`, embedded in the crate.

const VERIFICATION: &str = include_str!("../verification.txt");

/// What the reference model reached on a case when it counts copies, by each way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Asked by engine block hashes; `None` where the truth has none (SGLang).
    pub by_hash: Option<Line>,
    /// Asked by tokens alone; `None` for hybrid models, which the reference model does not walk by tokens.
    pub by_tokens: Option<Line>,
    /// By engine block hashes, with `AllBlocksCleared` read as "all tiers" instead of "the device"; only cases
    /// with a CPU tier have it.
    pub clearing_all: Option<Line>,
}

/// One line of the verification: answers compared, and those that differ from the engine's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line {
    /// Answers compared.
    pub answers: u64,
    /// Answers that differ.
    pub mismatches: u64,
    /// Those that promise more than the engine holds.
    pub too_high: u64,
    /// Those that promise less.
    pub too_low: u64,
    /// Answers whose blocks on the CPU tier differ, by [`Answer::present_cpu`](crate::Answer::present_cpu).
    pub host_mismatches: u64,
}

impl Bar {
    /// The bar of a case; `None` for a case that the verification does not know.
    pub fn of(case: &str) -> Option<Self> {
        let find = |by: &str, clear: Option<&str>| {
            let mut entries = VERIFICATION.lines().filter_map(parse);
            entries.find(|e| e.case == case && e.by == by && e.clear == clear).map(|e| e.line)
        };
        let bar = Self {
            by_hash: find("hash", None),
            by_tokens: find("tokens", None),
            clearing_all: find("hash", Some("all")),
        };
        (bar.by_hash.is_some() || bar.by_tokens.is_some()).then_some(bar)
    }
}

/// A `mode=count` line.
struct Entry<'a> {
    case: &'a str,
    by: &'a str,
    clear: Option<&'a str>,
    line: Line,
}

/// Reads a `mode=count` line; `None` for any other line.
fn parse(line: &str) -> Option<Entry<'_>> {
    let case = line.split_whitespace().next()?;
    let value =
        |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    if case.starts_with('#') || value("mode") != Some("count") {
        return None;
    }
    // "(too high 2, too low 0)" is left out when nothing differs.
    let (too_high, too_low) = match line.split_once("(too high ") {
        None => (0, 0),
        Some((_, rest)) => {
            let (high, rest) = rest.split_once(", too low ")?;
            let (low, _) = rest.split_once(')')?;
            (high.parse().ok()?, low.parse().ok()?)
        }
    };
    // "presence_mismatch={'CPU': 14}", beside groups by number, which need no bar of their own.
    let host = match line.split_once("'CPU': ") {
        None => 0,
        Some((_, rest)) => rest.split(['}', ',']).next()?.parse().ok()?,
    };
    let numbers = Line {
        answers: value("answers")?.parse().ok()?,
        mismatches: value("hit_mismatch")?.parse().ok()?,
        too_high,
        too_low,
        host_mismatches: host,
    };
    Some(Entry { case, by: value("by")?, clear: value("clear"), line: numbers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(answers: u64, too_high: u64, too_low: u64) -> Option<Line> {
        Some(Line { answers, mismatches: too_high + too_low, too_high, too_low, host_mismatches: 0 })
    }

    #[test]
    fn known_cases_have_their_numbers() {
        let bar = |case| Bar::of(case).map(|b| (b.by_hash, b.by_tokens));
        assert_eq!(bar("basic"), Some((line(1940, 0, 0), line(1940, 2, 0))));
        assert_eq!(bar("basic-v0.11.0"), Some((line(1740, 0, 0), line(1740, 57, 37))));
        assert_eq!(bar("conv-a"), Some((line(15688, 0, 0), line(15688, 0, 0))));
        assert_eq!(bar("sglang-v0.5.4"), Some((None, line(2052, 65, 621))));
        assert_eq!(bar("hybrid-report"), Some((line(344, 96, 0), None)));
        assert_eq!(bar("full-report"), Some((line(290, 49, 0), line(290, 49, 0))));
        assert_eq!(bar("conv"), None);
    }

    #[test]
    fn cases_with_a_cpu_tier_have_its_numbers_for_both_readings_of_a_clear() {
        for (case, device, all) in
            [("offload-cpu", 14, 18), ("offload-cpu-chunk4", 24, 28), ("offload-cpu-legacy", 14, 18)]
        {
            let bar = Bar::of(case);
            let host = |line: Option<Line>| line.map(|line| (line.answers, line.host_mismatches));
            assert_eq!(bar.and_then(|b| host(b.by_hash)), Some((156, device)), "{case}");
            assert_eq!(bar.and_then(|b| host(b.clearing_all)), Some((156, all)), "{case}");
        }
        assert_eq!(Bar::of("basic").and_then(|b| b.clearing_all), None);
    }

    #[test]
    fn every_counting_line_of_the_file_is_understood() {
        let counting = VERIFICATION.lines().filter(|l| l.contains("mode=count"));
        let unread: Vec<&str> = counting.filter(|l| parse(l).is_none()).collect();
        assert_eq!(unread, Vec::<&str>::new());
    }
}
