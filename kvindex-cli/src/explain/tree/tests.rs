#![allow(clippy::unwrap_used)]

use super::*;

const PLAIN: Paint = Paint { width: 80, colours: false };

fn tier(tier: &str, blocks: u64, prefix_blocks: u64) -> v1::TierMatch {
    v1::TierMatch { tier: tier.into(), blocks, prefix_blocks, prefix_tokens: prefix_blocks * 16 }
}

/// A worker of a prompt of 100 tokens, 6 whole blocks of 16.
fn worker(id: &str, blocks: u64, tiers: Vec<v1::TierMatch>, detail: &str) -> v1::WorkerExplanation {
    let live = v1::Trust { state: TrustState::Live.into(), ..v1::Trust::default() };
    v1::WorkerExplanation {
        matched: Some(v1::WorkerMatch {
            worker_id: id.into(),
            block_size: 16,
            matched_blocks: blocks,
            matched_tokens: blocks * 16,
            tiers,
            trust: Some(live),
            ..v1::WorkerMatch::default()
        }),
        prompt_blocks: 6,
        broke_at: (blocks < 6).then_some(blocks),
        detail: detail.into(),
        ..v1::WorkerExplanation::default()
    }
}

fn answer(workers: Vec<v1::WorkerExplanation>) -> v1::ExplainResponse {
    v1::ExplainResponse { workers, prompt_tokens: 100, timing: None }
}

#[test]
fn workers_leave_the_trunk_where_their_match_ends() {
    let mut deep = worker("a", 4, vec![tier("device", 2, 2), tier("host", 4, 4)], "");
    deep.detail = "removed from host by batch 9 at 1000000 ms".into();
    (deep.at_ms, deep.held_beyond) = (Some(1_000_000), 1);
    let of_deep = deep.matched.as_mut().unwrap();
    of_deep.address = Some("10.0.0.1:8000".into());
    of_deep.doubts = vec!["hidden_identity".into()];
    let mut behind = worker("b", 1, vec![tier("device", 1, 1)], "never stored");
    behind.matched.as_mut().unwrap().trust = Some(v1::Trust {
        state: TrustState::Rebuilding.into(),
        reason: "batches 3 to 9 are asked for again".into(),
        ..v1::Trust::default()
    });
    let none = |id| worker(id, 0, Vec::new(), "never stored");
    // As a node would not send them: the picture does not rest on the order.
    let picture = draw(&answer(vec![none("d"), behind, deep, none("c")]), &PLAIN, 1_090_000);
    let expected = "\
prompt of 100 tokens
tokens on the left, D device, H host, . not held

 100 ┬ the prompt's end
     │
  64 ├─ a rank 0, 10.0.0.1:8000, live
     │  [DDDDDDDDDDDDDDDDDDDDHHHHHHHHHHHHHHHHHHHH........................]  64 %
     │  4 of 6 blocks of 16 tokens, 64 tokens; device 2, host 4; 1 more beyond
     │  block 4, of no use without it
     │  why: removed from host by batch 9, 90 s ago
     │  in doubt: hidden_identity
     │
  16 ├─ b rank 0, rebuilding
     │  [DDDDDDDDDD......................................................]  16 %
     │  1 of 6 blocks of 16 tokens, 16 tokens; device 1
     │  why: never stored
     │  trust: batches 3 to 9 are asked for again
     │
   0 ├─ d rank 0; c rank 0, live
     │  [................................................................]   0 %
     │  0 of 6 blocks of 16 tokens, 0 tokens; -
     │  why: never stored
     │
   0 ┴ the prompt's beginning";
    assert_eq!(picture, expected);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let long = "w".repeat(300);
    let many = (0..200).map(|n| worker(&format!("worker-{n}"), 0, Vec::new(), "never stored"));
    let workers =
        many.chain([worker(&long, 3, vec![tier("device", 3, 3)], &"word ".repeat(100))]).collect::<Vec<_>>();
    for width in [40, 80, 160] {
        let picture = draw(&answer(workers.clone()), &Paint { width, ..PLAIN }, 0);
        let widest = picture.lines().map(UnicodeWidthStr::width).max().unwrap();
        assert!(widest <= width, "{width}: {widest}\n{picture}");
        assert!(picture.contains("200 workers and ranks in all"), "{picture}");
    }
}

#[test]
fn nothing_of_others_is_obeyed_and_colours_are_ours_alone() {
    let mut evil = worker("a\u{1b}[2Jb\nc", 1, vec![tier("dev\u{7}ice", 1, 1)], "detail\u{1b}]0;title\u{7}");
    evil.matched.as_mut().unwrap().address = Some("\u{9b}2J".into());
    let plain = draw(&answer(vec![evil.clone()]), &PLAIN, 0);
    assert!(!plain.contains(|c: char| c.is_control() && c != '\n'), "{plain:?}");
    assert!(plain.contains("a\\u{1b}[2Jb\\u{a}c rank 0"), "{plain}");
    let coloured = draw(&answer(vec![evil]), &Paint { colours: true, ..PLAIN }, 0);
    let mut stripped = coloured.clone();
    for code in ["0", "1", "2", "31", "32", "33"] {
        stripped = stripped.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_ne!(stripped, coloured);
    assert_eq!(stripped.trim_end(), plain);
}

#[test]
fn an_answer_without_workers_says_what_to_look_at() {
    let picture = draw(&answer(Vec::new()), &PLAIN, 0);
    assert!(picture.contains("kvindex workers") && picture.contains("100 tokens"), "{picture}");
}
