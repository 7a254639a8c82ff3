//! What a case must reach: nothing wrong, nothing worse than the reference model, nothing but what is pinned.

use kvindex_core::{ClearPolicy, Doubt};
use kvindex_recording::{Bar, Line};

use super::ask::View;
use super::page::{self, Row};
use super::replay::Setting;
use super::run::replay;
use super::score::Score;

/// Holds a case to the bar, to its pinned differences (too high, too low) on the device by tokens and by hashes,
/// and to the page. Nothing may differ without a mark.
pub(super) fn check(case: &str, tokens: (usize, usize), hashes: (usize, usize)) {
    let bar = Bar::of(case).unwrap();
    for cleared in [ClearPolicy::Device, ClearPolicy::AllTiers] {
        // Of engines with one tier both policies say the same.
        let line = match cleared {
            ClearPolicy::Device => bar.by_hash,
            ClearPolicy::AllTiers if bar.clearing_all.is_some() => bar.clearing_all,
            ClearPolicy::AllTiers => continue,
        };
        for (view, row) in replay(case, Setting { cleared, ..Setting::default() }) {
            let name = name_of(case, view, cleared);
            println!("{name} by tokens: {}", row.tokens.text());
            println!("{name} by hashes: {}", row.hashes.as_ref().map_or("-".into(), Score::text));
            assert_eq!(row.wrong(), 0, "{name}: answers differ without a mark");
            match view {
                View::Device => check_device(&name, &row, (tokens, hashes), line, bar.by_tokens),
                View::Host => check_host(&name, &row, line),
                View::Both => {}
            }
            // Clearing the tiers behind the device changes nothing on it.
            if (view, cleared) != (View::Device, ClearPolicy::AllTiers) {
                page::check_row(&name, &row);
            }
        }
    }
}

fn name_of(case: &str, view: View, cleared: ClearPolicy) -> String {
    let view = match view {
        View::Device => "",
        View::Host => ", host",
        View::Both => ", device and host",
    };
    let cleared = match cleared {
        ClearPolicy::AllTiers => ", `cleared = \"all_tiers\"`",
        ClearPolicy::Device => "",
    };
    format!("{case}{view}{cleared}")
}

fn check_device(
    name: &str,
    row: &Row,
    (tokens, hashes): ((usize, usize), (usize, usize)),
    by_hash: Option<Line>,
    by_tokens: Option<Line>,
) {
    for (way, score, pinned, line) in
        [("tokens", Some(&row.tokens), tokens, by_tokens), ("hashes", row.hashes.as_ref(), hashes, by_hash)]
    {
        if let (Some(score), Some(line)) = (score, line) {
            assert_eq!(score.answers as u64, line.answers, "{name} by {way}");
            assert!(score.differing() as u64 <= line.mismatches, "{name} by {way}: worse than {line:?}");
        }
        // What the wire cannot decide is pinned, so that slack under the bar hides nothing.
        let found = score.map_or((0, 0), |score| (score.high, score.low));
        assert_eq!(found, pinned, "{name} by {way}");
    }
}

/// On the host tier only a clear that named no tier may have left a difference.
fn check_host(name: &str, row: &Row, by_hash: Option<Line>) {
    let (score, line) = (row.hashes.as_ref().unwrap(), by_hash.unwrap());
    assert_eq!(score.answers as u64, line.answers, "{name}");
    assert!(score.differing() as u64 <= line.host_mismatches, "{name}: worse than {line:?}");
    let silent = score.doubts.get(Doubt::SilentClear.name()).copied().unwrap_or(0);
    assert_eq!(silent, score.differing(), "{name}: {}", score.text());
}
