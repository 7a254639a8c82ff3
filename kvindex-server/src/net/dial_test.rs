//! The race between addresses under a clock that the tests move: who is tried when, and who wins.
#![allow(clippy::unwrap_used)]

use super::*;
use parking_lot::Mutex;

fn of(text: &str) -> Vec<SocketAddr> {
    text.split_whitespace().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn families_take_turns() {
    let table = [
        ("[fd00::1]:1 [fd00::2]:1 10.0.0.1:1 10.0.0.2:1", "[fd00::1]:1 10.0.0.1:1 [fd00::2]:1 10.0.0.2:1"),
        ("10.0.0.1:1 10.0.0.2:1 [fd00::1]:1", "10.0.0.1:1 [fd00::1]:1 10.0.0.2:1"),
        ("10.0.0.1:1 10.0.0.1:1 [::ffff:10.0.0.1]:1", "10.0.0.1:1"),
        ("[fd00::1]:1", "[fd00::1]:1"),
        ("", ""),
    ];
    for (found, tried) in table {
        assert_eq!(interleaved(of(found)), of(tried), "{found}");
    }
    let many: Vec<String> = (0..20).map(|n| format!("10.0.0.{n}:1")).collect();
    assert_eq!(interleaved(of(&many.join(" "))).len(), MAX_TARGETS);
}

/// What becomes of each address: after so many milliseconds connected, refused, or never a word.
#[derive(Clone, Copy)]
enum Fate {
    Up(u64),
    Refused(u64),
    Swallowed,
}

/// Runs a race; answers who won, when each attempt began and when it was over, in milliseconds.
async fn run(fates: &[Fate]) -> (Result<usize, DialError>, Vec<(usize, u128)>, u128) {
    let began = Instant::now();
    let log = Mutex::new(Vec::new());
    let targets = (0..fates.len()).map(|n| SocketAddr::from(([10, 0, 0, n as u8], 1))).collect();
    let ended = race(targets, began + Duration::from_secs(2), |target| {
        let SocketAddr::V4(v4) = target else { unreachable!() };
        let number = usize::from(v4.ip().octets()[3]);
        log.lock().push((number, began.elapsed().as_millis()));
        let fate = fates[number];
        async move {
            match fate {
                Fate::Up(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Ok(number)
                }
                Fate::Refused(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Err(io::Error::from(io::ErrorKind::ConnectionRefused))
                }
                Fate::Swallowed => std::future::pending().await,
            }
        }
    });
    let ended = ended.await;
    (ended, log.into_inner(), began.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn a_fast_address_leaves_the_others_untried() {
    let (won, tried, _) = run(&[Fate::Up(20), Fate::Up(1)]).await;
    assert_eq!((won, tried), (Ok(0), vec![(0, 0)]));
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_a_quarter_of_a_second() {
    let (won, tried, took) = run(&[Fate::Swallowed, Fate::Up(5)]).await;
    assert_eq!((won, tried), (Ok(1), vec![(0, 0), (1, 250)]));
    assert!((255..300).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_costs_nothing_and_a_late_first_can_still_win() {
    let (won, tried, _) = run(&[Fate::Refused(1), Fate::Up(5)]).await;
    assert_eq!(won, Ok(1));
    assert!(tried[1].1 < 10, "{tried:?}");
    let (won, tried, _) = run(&[Fate::Up(300), Fate::Swallowed, Fate::Up(5)]).await;
    assert_eq!((won, tried.len()), (Ok(0), 2));
}

#[tokio::test(start_paused = true)]
async fn eight_black_holes_end_in_time_with_all_of_them_named() {
    let (ended, tried, took) = run(&[Fate::Swallowed; 8]).await;
    let error = ended.unwrap_err();
    assert!(error.silent && error.reason.matches("no connection").count() == 8, "{error}");
    assert_eq!(tried.len(), 8);
    assert!((2000..2050).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_apart_from_silence() {
    let (ended, _, took) = run(&[Fate::Refused(1), Fate::Refused(1)]).await;
    let error = ended.unwrap_err();
    assert!(!error.silent && error.reason.matches("refused").count() == 2, "{error}");
    assert!(took < 50, "{took} ms");
    let (ended, _, _) = run(&[Fate::Refused(1), Fate::Swallowed]).await;
    assert!(ended.unwrap_err().silent);
    assert_eq!(run(&[]).await.0.unwrap_err().reason, "");
}

#[tokio::test]
async fn what_is_no_address_is_said_with_the_reason() {
    for (text, said) in [("nowhere", "names no port"), ("fd00::7", "brackets"), ("", "is empty")] {
        let error = dial(text, Duration::from_secs(1)).await.unwrap_err();
        assert!(error.reason.contains(said) && !error.silent, "{text}: {error}");
    }
}
