#![allow(clippy::unwrap_used)]

use super::super::view::Column;
use super::*;

fn board(workers: usize) -> Board {
    let row = |n: usize| WorkerRow {
        worker_id: format!("worker-{n}"),
        dp_rank: Some(0),
        model: "llama".into(),
        tenant: "default".into(),
        engine: "vllm".into(),
        events_from: "tcp://10.0.0.1:5557".into(),
        trust: if n == 1 { "suspect" } else { "live" },
        reason: if n == 1 { "the engine is disconnected".into() } else { String::new() },
        lag_ms: 0,
        generation: 1,
        applied_seq: Some(41),
        blocks: 1000 + n as u64,
        batches_per_s: Some(2.5),
    };
    let shard = ShardRow { role: "leader".into(), leader: 1, voters: 3, members: 4, ..ShardRow::default() };
    let node = NodeLine {
        server: "http://127.0.0.1:9590".into(),
        version: Some("0.1.0".into()),
        cluster_id: Some("c1".into()),
        node_id: Some(1),
        nodes: 3,
        leads: 1,
        workers,
        streams: workers,
        live: workers,
        blocks: 2001,
        bytes: Some(1 << 20),
        ..NodeLine::default()
    };
    Board {
        node,
        workers: (0..workers).map(row).collect(),
        shards: vec![shard],
        hot: Vec::new(),
        notes: Vec::new(),
    }
}

/// What stands on a terminal of this size.
fn shown(board: &Board, view: &mut View, gone: Option<&str>, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen(frame, board, view, gone)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(|row| line(row).trim_end().to_owned()).collect()
}

#[test]
fn one_screen_as_text_holds_everything() {
    let text = as_text(&board(2), &View::new(Column::Worker, String::new()), 80).unwrap();
    let expected = "\
kvindex 0.1.0  http://127.0.0.1:9590  node 1 of cluster c1, 3 nodes, leads 1 sha
2 workers, 2 streams, 2 live   2001 blocks   index 1.0 MiB   cpu -
batches -/s   questions -/s   p50 -   p99 -
 workers: 2 of 2 streams, by worker ────────────────────────────────────────────
worker              rank model      trust        lag ms   gen    blocks batches/s
worker-0               0 llama      live              0     1      1000       2.5
worker-1               0 llama      suspect           0     1      1001       2.5

 shards: 1, 1 with a leader ────────────────────────────────────────────────────
shard role here              leader   term   applied   behind   age ms voters entries/s
    0 leader                      1      0         -        0        - 3+1            -";
    // Widths of the columns are the library's business.
    let squeezed = |text: &str| {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(squeezed(&text), squeezed(expected), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn hot_prefixes_have_a_section_of_their_own() {
    let mut board = board(1);
    let hot = HotRow {
        model: "llama".into(),
        tenant: "acme".into(),
        lora_name: Some("sql".into()),
        sequence_hash: "00000000000000ab".into(),
        blocks: 3,
        tokens: 48,
        questions_per_s: 7.5,
        share: 0.25,
        held_by: 2,
    };
    board.hot = vec![hot];
    let mut view = View::new(Column::Worker, String::new());
    let text = as_text(&board, &view, 80).unwrap();
    let row = text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(row, "7.5 25 % 48 3 2 llama + sql acme 00000000000000ab", "{text}");
    view.shows_hot = false;
    assert!(!as_text(&board, &view, 80).unwrap().contains("hot prefixes"));
}

#[test]
fn text_shows_every_worker_and_a_screen_those_that_fit() {
    let (board, mut view) = (board(200), View::new(Column::Worker, String::new()));
    let text = as_text(&board, &view, 80).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("worker-")).count(), 200);
    let lines = shown(&board, &mut view, None, 80, 24);
    assert!(lines.iter().filter(|line| line.starts_with("worker-")).count() < 20);
    view.cursor.select_last();
    let lines = shown(&board, &mut view, None, 80, 24);
    assert!(lines.iter().any(|line| line.starts_with("worker-99 ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("worker-99: vllm, tenant default, events from tcp")));
}

#[test]
fn sections_filter_pause_and_help_show() {
    let (board, mut view) = (board(3), View::new(Column::Trust, "susp".into()));
    let lines = shown(&board, &mut view, Some("the node does not answer, 3 s: refused"), 120, 24).join("\n");
    assert!(lines.contains("1 of 3 streams, by trust") && lines.contains("/susp"), "{lines}");
    assert!(lines.contains("does not answer, 3 s") && lines.contains("shards: 1"), "{lines}");
    assert!(lines.contains("the engine is disconnected"), "the reason has room at 120 columns: {lines}");
    (view.paused, view.shows_shards, view.shows_workers) = (true, false, false);
    let lines = shown(&board, &mut view, None, 80, 24).join("\n");
    assert!(
        lines.contains("PAUSED") && !lines.contains("shards: 1") && !lines.contains("worker-1"),
        "{lines}"
    );
    view.help = true;
    let lines = shown(&board, &mut view, None, 80, 24).join("\n");
    assert!(keys::HELP.iter().all(|(key, _)| lines.contains(key)), "{lines}");
}

#[test]
fn nothing_of_others_is_obeyed_and_no_size_is_too_small() {
    let mut board = board(2);
    board.workers[0].worker_id = "a\u{1b}[2J\nb".into();
    board.workers[0].reason = "x\u{9b}y".into();
    board.notes = vec!["note\u{7}".into(); 9];
    let mut view = View::new(Column::Worker, String::new());
    for (width, height) in [(1, 1), (3, 2), (10, 5), (40, 12), (300, 100)] {
        view.help = !view.help;
        let lines = shown(&board, &mut view, Some("gone\u{1b}"), width, height);
        assert!(!lines.join("").contains(|c: char| c.is_control()), "{lines:?}");
    }
    let text = as_text(&board, &view, 80).unwrap();
    assert!(text.contains("a\\u{1b}[2J") && !text.contains('\u{7}'), "{text}");
}
