//! The engine's queue, worked out by hand.

#![allow(clippy::unwrap_used)]

use super::*;

fn request(number: usize, tokens: u64, output: u64, first: u64) -> Request {
    let blocks = (0..tokens / 512).map(|at| first + at).collect();
    Request { number, at_s: 0.0, tokens, output, blocks }
}

/// Runs an engine until nothing happens any more: every happening with its time in milliseconds.
fn run(engine: &mut Engine<'_>) -> Vec<(u64, Happening)> {
    let mut seen = Vec::new();
    while let Some(time) = engine.next() {
        let mut out = Vec::new();
        engine.run_to(time, &mut out);
        seen.extend(out.into_iter().map(|happening| ((time * 1e3).round() as u64, happening)));
    }
    seen
}

fn first_tokens(seen: &[(u64, Happening)]) -> Vec<(u64, usize, u64)> {
    let first = |(at, happening): &(u64, Happening)| match happening {
        Happening::FirstToken { request, saved } => Some((*at, *request, *saved)),
        _ => None,
    };
    seen.iter().filter_map(first).collect()
}

#[test]
fn prefills_wait_for_each_other_and_skip_what_is_cached() {
    // 1000 tokens a second. The first prompt takes 2.048 s. The second came meanwhile, begins the same and shares
    // three blocks of 512 tokens; the third shares nothing and comes at 3 s, when 1.096 s of the second are left...
    let (a, mut b, c) = (request(0, 2048, 9, 10), request(1, 3100, 9, 10), request(2, 500, 9, 90));
    b.blocks = vec![10, 11, 12, 70, 71, 72];
    let mut engine = Engine::new(Pace { prefill: 1000.0, decode: None }, 100);
    let mut out = Vec::new();
    engine.submit(0.0, &a, &mut out);
    engine.submit(1.0, &b, &mut out);
    assert_eq!(out, []);
    let time = engine.next().unwrap();
    engine.run_to(time, &mut out);
    assert_eq!((time * 1e3).round(), 2048.0);
    assert_eq!(
        out,
        [
            Happening::FirstToken { request: 0, saved: 0 },
            Happening::Stored { blocks: vec![10, 11, 12, 13], parent: None },
            Happening::Finished { request: 0 },
        ]
    );
    engine.submit(3.0, &c, &mut out);
    // ... so the second ends at 2.048 s + (3100 - 1536) ms, and the third 500 ms later.
    let seen = run(&mut engine);
    assert_eq!(first_tokens(&seen), [(3612, 1, 1536), (4112, 2, 0)]);
    assert!(seen.contains(&(3612, Happening::Stored { blocks: vec![70, 71, 72], parent: Some(12) })));
}

#[test]
fn evictions_are_announced_when_room_is_made() {
    let (a, b) = (request(0, 2048, 1, 10), request(1, 1536, 1, 50));
    let mut engine = Engine::new(Pace { prefill: 1000.0, decode: None }, 5);
    let mut out = Vec::new();
    engine.submit(0.0, &a, &mut out);
    run(&mut engine);
    engine.submit(10.0, &b, &mut out);
    assert_eq!(out, [Happening::Removed { blocks: vec![13, 12] }]);
    assert_eq!(engine.prefix(&a.blocks), 2);
}

#[test]
fn answers_and_prefills_slow_each_other_down() {
    // Steps: 20 ms without a prefill, 100 tokens of a prefill in 100 ms, and 10 ms more for each answer.
    let decode = Decode { step_s: 0.02, each_s: 0.01, chunk: 100.0 };
    let (a, b) = (request(0, 1000, 41, 10), request(1, 500, 1, 50));
    let mut engine = Engine::new(Pace { prefill: 1000.0, decode: Some(decode) }, 100);
    let mut out = Vec::new();
    engine.submit(0.0, &a, &mut out);
    let time = engine.next().unwrap();
    engine.run_to(time, &mut out);
    assert_eq!((time * 1e3).round(), 1000.0);
    // Ten of the 40 tokens that are to come take 300 ms. Then the second prompt comes: 5 steps of 110 ms.
    engine.submit(1.3, &b, &mut out);
    // The other 25 tokens take 30 ms each again.
    let seen = run(&mut engine);
    assert_eq!(first_tokens(&seen), [(1850, 1, 0)]);
    assert!(seen.contains(&(1850 + 750, Happening::Finished { request: 0 })), "{seen:?}");
}

#[test]
fn a_prefill_waits_until_running_answers_leave_room() {
    let decode = Decode { step_s: 0.02, each_s: 0.0, chunk: 100.0 };
    let (a, b) = (request(0, 1024, 11, 10), request(1, 1024, 1, 50));
    // Three blocks for the first request with its answer, three for the second: one too many.
    let mut engine = Engine::new(Pace { prefill: 1000.0, decode: Some(decode) }, 5);
    let mut out = Vec::new();
    engine.submit(0.0, &a, &mut out);
    engine.submit(0.0, &b, &mut out);
    // The first answer ends at 1024 ms + 10 steps of 20 ms; only then does the second prefill begin.
    assert_eq!(first_tokens(&run(&mut engine)), [(1024, 0, 0), (1224 + 1024, 1, 0)]);
}
