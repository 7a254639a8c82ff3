//! The state of a path, from how calls end: a table of histories, and many threads that move it at once.
#![allow(clippy::unwrap_used)]

use super::PathState::{Blocked, Limited, Normal};
use super::Signal::{Refused, Silent};
use super::*;

const GOOD: Signal = Signal::Answered(Duration::from_millis(3));
const LATE: Signal = Signal::Answered(Duration::from_millis(900));

/// Notes each signal at its time; answers the moves.
fn moves(path: &Path, history: &[(u64, Signal)]) -> Vec<(u64, PathState)> {
    let moved = |(at, signal): &(u64, Signal)| path.note(*signal, *at).map(|(_, to)| (*at, to));
    history.iter().filter_map(moved).collect()
}

/// A path that was blocked at 2,000 ms.
fn blocked() -> Path {
    let path = Path::default();
    let history: Vec<_> = (0..=4).map(|n| (n * 500, Silent)).collect();
    assert_eq!(moves(&path, &history), [(1000, Limited), (2000, Blocked)]);
    path
}

#[test]
fn accidents_leave_a_path_normal() {
    let path = Path::default();
    let history = [(0, Silent), (1, Silent), (2, GOOD), (3, Refused), (4, LATE), (5, GOOD), (6, LATE)];
    assert_eq!(moves(&path, &history), []);
    assert_eq!(path.state(), Normal);
}

#[test]
fn three_bad_calls_limit_and_three_good_ones_restore() {
    for bad in [Silent, Refused, LATE] {
        let path = Path::default();
        let history =
            [(0, bad), (1, bad), (2, bad), (3, GOOD), (4, GOOD), (5, bad), (6, GOOD), (7, GOOD), (8, GOOD)];
        assert_eq!(moves(&path, &history), [(2, Limited), (8, Normal)], "{bad:?}");
    }
}

#[test]
fn refusals_and_slowness_never_block() {
    let path = Path::default();
    let history: Vec<_> = (0..200).map(|n| (n * 100, if n % 2 == 0 { Refused } else { LATE })).collect();
    assert_eq!(moves(&path, &history), [(200, Limited)]);
}

#[test]
fn many_calls_that_end_in_one_moment_are_one_event() {
    let path = Path::default();
    let history: Vec<_> = (0..300).map(|n| (1000 + n, Silent)).collect();
    assert_eq!(moves(&path, &history), [(1002, Limited)]);
    assert_eq!(moves(&path, &[(3100, Silent)]), [(3100, Blocked)]);
}

#[test]
fn a_blocked_path_is_held_though_calls_get_through_and_used_once_three_have() {
    let path = blocked();
    assert_eq!(moves(&path, &[(3000, GOOD), (3100, GOOD)]), []);
    assert!(!path.admits(3101));
    assert_eq!(moves(&path, &[(3200, GOOD)]), []);
    // A node that was away and is back takes changes at once, though its path still counts as blocked.
    assert!(path.admits(3201) && path.state() == Blocked);
    assert_eq!(moves(&path, &[(3300, Silent)]), []);
    assert!(!path.admits(3301));
    let history: Vec<_> = (4..17).map(|s| (s * 1000 - 1, GOOD)).collect();
    assert_eq!(moves(&path, &history), []);
    assert_eq!(path.state(), Blocked);
    assert_eq!(moves(&path, &[(17_000, GOOD)]), [(17_000, Limited)]);
    assert!(path.admits(17_001));
    assert_eq!(moves(&path, &[(17_002, GOOD), (17_003, GOOD)]), [(17_003, Normal)]);
}

#[test]
fn after_the_hold_one_call_probes() {
    let path = blocked();
    assert!(path.admits(17_000));
    assert!(!path.admits(17_001), "one probe at a time");
    // It succeeds.
    assert_eq!(moves(&path, &[(17_005, GOOD)]), [(17_005, Limited)]);
    // It fails: another 15 s.
    let path = blocked();
    assert!(path.admits(20_000));
    assert_eq!(moves(&path, &[(21_000, Silent)]), []);
    assert!(!path.admits(35_999) && path.admits(36_000));
    // It never ends: another takes its place.
    assert!(!path.admits(37_999) && path.admits(38_000));
    assert_eq!(path.state(), Blocked);
}

#[test]
fn a_host_that_refuses_is_no_blocked_path() {
    let path = blocked();
    assert!(path.admits(17_000));
    assert_eq!(moves(&path, &[(17_001, Refused)]), [(17_001, Limited)]);
}

#[test]
fn of_many_callers_one_makes_each_move_and_one_probes() {
    use std::sync::atomic::AtomicUsize;
    let path = Path::default();
    let signals = [GOOD, Silent, Silent, Silent, Refused, GOOD, GOOD];
    let counts: [[AtomicUsize; 3]; 3] = Default::default();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (path, counts) = (&path, &counts);
            scope.spawn(move || {
                for n in 0..20_000_u64 {
                    // Time runs alike in all threads; long rows of one kind alternate.
                    let signal = signals[usize::try_from((n / 40 + thread / 2) % 7).unwrap()];
                    if let Some((from, to)) = path.note(signal, n * 50) {
                        counts[from as usize][to as usize].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let count = |from: PathState, to: PathState| counts[from as usize][to as usize].load(Ordering::Relaxed);
    let (into, out) = (
        |to| count(Normal, to) + count(Limited, to) + count(Blocked, to),
        |from| count(from, Normal) + count(from, Limited) + count(from, Blocked),
    );
    assert!(count(Normal, Limited) > 1 && count(Limited, Blocked) > 1, "{counts:?}");
    assert_eq!(count(Normal, Blocked) + count(Blocked, Normal), 0, "no state is jumped over: {counts:?}");
    // Moves chain up: each state is left as often as it was entered, but for where the path is now.
    for state in [Normal, Limited, Blocked] {
        let here = usize::from(path.state() == state);
        let began = usize::from(state == Normal);
        assert_eq!(into(state) + began, out(state) + here, "{state:?}: {counts:?}");
    }
    let path = blocked();
    let probes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| path.admits(20_000).then(|| probes.fetch_add(1, Ordering::Relaxed)));
        }
    });
    assert_eq!(probes.load(Ordering::Relaxed), 1);
}
