//! The bar: how many answers per case the reference model gets wrong, because the wire cannot decide them.
//!
//! An index must do no worse. The numbers are those of `verification.txt`, embedded in the crate.

const VERIFICATION: &str = include_str!("../verification.txt");

/// What the reference model reached on a case when it counts copies, by each way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Asked by engine block hashes; `None` where the truth has none (SGLang).
    pub by_hash: Option<Line>,
    /// Asked by tokens alone.
    pub by_tokens: Option<Line>,
}

/// One line of the verification: answers compared, and those that differ from the engine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Answers compared.
    pub answers: u64,
    /// Answers that differ.
    pub mismatches: u64,
    /// Those that promise more than the engine holds.
    pub too_high: u64,
    /// Those that promise less.
    pub too_low: u64,
}

impl Bar {
    /// The bar of a case; `None` for a case that the verification does not know.
    pub fn of(case: &str) -> Option<Self> {
        let lines = || VERIFICATION.lines().filter_map(parse);
        let find = |by: &str| {
            lines().find(|(name, line_by, _)| *name == case && *line_by == by).map(|(_, _, line)| line)
        };
        let bar = Self { by_hash: find("hash"), by_tokens: find("tokens") };
        (bar.by_hash.is_some() || bar.by_tokens.is_some()).then_some(bar)
    }
}

/// (case, by, numbers) of a `mode=count` line; `None` for any other line.
fn parse(line: &str) -> Option<(&str, &str, Line)> {
    let mut words = line.split_whitespace();
    let case = words.next()?;
    let value =
        |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    // clear=all is an experiment with another reading of AllBlocksCleared, not the bar.
    if case.starts_with('#') || value("mode") != Some("count") || value("clear").is_some() {
        return None;
    }
    let mismatches = value("hit_mismatch")?.parse().ok()?;
    // "(too high 2, too low 0)" is left out when nothing differs.
    let (too_high, too_low) = match line.split_once("(too high ") {
        None => (0, 0),
        Some((_, rest)) => {
            let (high, rest) = rest.split_once(", too low ")?;
            let (low, _) = rest.split_once(')')?;
            (high.parse().ok()?, low.parse().ok()?)
        }
    };
    let numbers = Line { answers: value("answers")?.parse().ok()?, mismatches, too_high, too_low };
    Some((case, value("by")?, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(answers: u64, too_high: u64, too_low: u64) -> Option<Line> {
        Some(Line { answers, mismatches: too_high + too_low, too_high, too_low })
    }

    #[test]
    fn known_cases_have_their_numbers() {
        let bar = |case| Bar::of(case).map(|b| (b.by_hash, b.by_tokens));
        assert_eq!(bar("basic"), Some((line(1940, 0, 0), line(1940, 2, 0))));
        assert_eq!(bar("basic-v0.11.0"), Some((line(1740, 0, 0), line(1740, 57, 37))));
        assert_eq!(bar("conv-a"), Some((line(15688, 0, 0), line(15688, 0, 0))));
        assert_eq!(bar("sglang-v0.5.4"), Some((None, line(2052, 65, 621))));
        assert_eq!(bar("conv"), None);
    }

    #[test]
    fn every_counting_line_of_the_file_is_understood() {
        let unread: Vec<&str> = VERIFICATION
            .lines()
            .filter(|l| l.contains("mode=count") && !l.contains("clear=all"))
            .filter(|l| parse(l).is_none())
            .collect();
        assert_eq!(unread, Vec::<&str>::new());
    }
}
