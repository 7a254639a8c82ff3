//! A worker's match as a bar across the prompt: a letter and a colour for each tier.

use kvindex_client::v1;

use crate::paint::{Colour, Paint};

/// What stands where nothing is held.
const NOTHING: char = '.';

/// How a tier is drawn.
pub(super) fn letter(tier: &str) -> (char, Colour) {
    match tier {
        "device" => ('D', Colour::Green),
        "host" => ('H', Colour::Yellow),
        // D is taken.
        "disk" => ('K', Colour::Blue),
        "external" => ('E', Colour::Magenta),
        _ => ('+', Colour::Bold),
    }
}

/// The match on a bar of `cells` characters, which stands for the whole prompt. Each part of it is drawn as the
/// slowest tier that is needed to come so far.
pub(super) fn bar(matched: &v1::WorkerMatch, prompt_tokens: u64, cells: usize, paint: &Paint) -> String {
    let until = |tokens: u64| cells_until(tokens, prompt_tokens, cells);
    let end = until(matched.matched_tokens);
    let mut drawn = 0;
    let mut bar = String::new();
    for tier in &matched.tiers {
        let here = until(tier.prefix_tokens.min(matched.matched_tokens)).clamp(drawn, end);
        let (letter, colour) = letter(&tier.tier);
        bar += &paint.coloured(colour, &letter.to_string().repeat(here - drawn));
        drawn = here;
    }
    // What no tier alone accounts for.
    bar += &paint.coloured(Colour::Bold, &"+".repeat(end - drawn));
    bar += &paint.coloured(Colour::Dim, &NOTHING.to_string().repeat(cells - end));
    bar
}

/// How many cells so many tokens fill: never none for some, never all for less than all.
fn cells_until(tokens: u64, whole: u64, cells: usize) -> usize {
    if tokens == 0 || whole == 0 || cells == 0 {
        return 0;
    }
    if tokens >= whole {
        return cells;
    }
    let exact = u128::from(tokens) * cells as u128 / u128::from(whole);
    usize::try_from(exact).unwrap_or(cells).clamp(1, (cells - 1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Paint = Paint { width: 80, colours: false };

    fn held(matched_tokens: u64, tiers: &[(&str, u64)]) -> v1::WorkerMatch {
        let tier = |(tier, prefix_tokens): &(&str, u64)| v1::TierMatch {
            tier: (*tier).into(),
            prefix_tokens: *prefix_tokens,
            ..v1::TierMatch::default()
        };
        v1::WorkerMatch {
            matched_tokens,
            tiers: tiers.iter().map(tier).collect(),
            ..v1::WorkerMatch::default()
        }
    }

    #[test]
    fn tiers_follow_each_other_and_the_rest_is_empty() {
        assert_eq!(bar(&held(60, &[("device", 20), ("host", 60)]), 100, 10, &PLAIN), "DDHHHH....");
        // A tier that brings the prefix no further has no part of the bar.
        assert_eq!(bar(&held(60, &[("device", 60), ("disk", 60)]), 100, 10, &PLAIN), "DDDDDD....");
        assert_eq!(bar(&held(60, &[]), 100, 10, &PLAIN), "++++++....");
    }

    #[test]
    fn little_is_not_nothing_and_nearly_all_is_not_all() {
        assert_eq!(bar(&held(1, &[("device", 1)]), 1_000_000, 4, &PLAIN), "D...");
        assert_eq!(bar(&held(999_999, &[("device", 999_999)]), 1_000_000, 4, &PLAIN), "DDD.");
        assert_eq!(bar(&held(0, &[]), 0, 4, &PLAIN), "....");
        assert_eq!(bar(&held(u64::MAX, &[("x", u64::MAX)]), u64::MAX, 4, &PLAIN), "++++");
    }
}
