//! `kvindex top` as text and as JSON, against real nodes.

use crate::node::{Folder, Node, nowhere, run};
use crate::round_trip::filled;
use kvindex_client::v1;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

#[test]
fn one_screen_shows_the_workers_and_their_numbers() {
    let node = filled(&[]);
    let out = node.ok(&["top", "--once", "--interval", "0.2"]);
    let first = out.lines().next().unwrap();
    assert!(first.contains(concat!("kvindex ", env!("CARGO_PKG_VERSION"))), "{out}");
    assert!(first.contains(&node.server), "{out}");
    assert!(out.contains("2 workers, 2 streams, 2 live") && out.contains("4 blocks"), "{out}");
    let row = |id: &str| {
        let row = out.lines().find(|line| line.starts_with(&format!("{id} "))).unwrap();
        row.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // Rank, model, trust, lag, generation, blocks, batches a second.
    assert_eq!(row("a"), "a 0 llama live 0 1 3 0.0");
    assert_eq!(row("b"), "b 0 llama live 0 1 1 0.0");
}

#[test]
fn rates_come_from_what_happens_between_two_looks() {
    let node = filled(&[]);
    let asking = std::thread::scope(|scope| {
        let top = scope.spawn(|| node.json(&["top", "--once", "--interval", "3"]));
        // Between the first look and the second, whenever they are.
        for _ in 0..40 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            if !top.is_finished() {
                node.ok(&["match", "--model", "llama", "--tokens", "1,2,3"]);
            }
        }
        top.join().unwrap()
    });
    let line = &asking["node"];
    assert!(line["questions_per_s"].as_f64().unwrap() > 0.0, "{asking}");
    assert!(line["p50_ms"].as_f64().unwrap() > 0.0, "{asking}");
    assert!(line["p99_ms"].as_f64().unwrap() >= line["p50_ms"].as_f64().unwrap(), "{asking}");
    assert!(line["bytes"].as_u64().unwrap() > 0 && line["cpu_percent"].as_f64().is_some(), "{asking}");
}

#[test]
fn batches_a_second_are_counted_by_worker() {
    let node = filled(&[]);
    let board = std::thread::scope(|scope| {
        let top = scope.spawn(|| node.json(&["top", "--once", "--interval", "3"]));
        for seq in 1.. {
            if top.is_finished() {
                break;
            }
            let event = v1::PublishEvent { r#type: "cleared".into(), ..v1::PublishEvent::default() };
            crate::round_trip::push(&node, "a", seq, event);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        top.join().unwrap()
    });
    let rate = |at: usize| board["workers"][at]["batches_per_s"].as_f64().unwrap();
    assert!(rate(0) > 0.5, "{board}");
    assert_eq!(rate(1), 0.0, "{board}");
    assert_eq!(board["node"]["batches_per_s"].as_f64().unwrap(), rate(0));
}

#[test]
fn a_filter_and_an_order_are_taken() {
    let node = filled(&[]);
    let out = node.ok(&["top", "--once", "--interval", "0.2", "--sort", "blocks", "--filter", "live"]);
    let at = |id: &str| out.lines().position(|line| line.starts_with(&format!("{id} "))).unwrap();
    assert!(at("a") < at("b") && out.contains("by blocks") && out.contains("/live"), "{out}");
    let out = node.ok(&["top", "--once", "--interval", "0.2", "--filter", "nobody"]);
    assert!(out.contains("0 of 2 streams"), "{out}");
}

#[test]
fn what_cannot_be_shown_is_said_with_the_next_step() {
    let (code, out, err) = run(&["top", "--server", &nowhere(), "--once"]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("is `kvindex serve` running"), "{err}");
    let node = Node::start(&[]);
    let (code, _, err) = node.run(&["top"]);
    assert!(code == 2 && err.contains("--once"), "{err}");
    let (code, _, err) = node.run(&["top", "--once", "--interval", "0.01"]);
    assert!(code == 2 && err.contains("0.2 to 3600"), "{err}");
    let (code, _, err) = node.run(&["top", "--once", "--metrics", "https://127.0.0.1:1/metrics"]);
    assert!(code == 2 && err.contains("--metrics"), "{err}");
    let elsewhere = format!("{}/metrics", nowhere());
    let out = node.ok(&["top", "--once", "--interval", "0.2", "--metrics", &elsewhere]);
    assert!(out.contains("no metrics: ") && out.contains("p50 -") && out.contains("batches 0.0/s"), "{out}");
}

/// Refuses a page to two looks, and tells what the second one asked with.
fn refusing(listener: TcpListener) -> std::thread::JoinHandle<String> {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let accepted = move || loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(error) => assert!(Instant::now() < until, "the page was not asked for: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    std::thread::spawn(move || {
        let mut asked = String::new();
        for _ in 0..2 {
            let mut connection = accepted();
            connection.set_nonblocking(false).unwrap();
            let lines = BufReader::new(connection.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            asked = head.join("\n");
            let refused = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            connection.write_all(refused.as_bytes()).unwrap();
        }
        asked
    })
}

/// Found by a review: the token went to whatever host `--metrics` named.
#[test]
fn the_token_goes_to_the_nodes_own_host_only() {
    let node = filled(&[]);
    let folder = Folder::new("top-token");
    let token = folder.file("token");
    std::fs::write(&token, "kvi_secret\n").unwrap();
    for (host, is_told) in [("127.0.0.1", true), ("127.0.0.2", false)] {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let page = format!("http://{}/metrics", listener.local_addr().unwrap());
        let asked = refusing(listener);
        let out =
            node.ok(&["top", "--once", "--interval", "0.2", "--token-file", &token, "--metrics", &page]);
        assert_eq!(asked.join().unwrap().contains("kvi_secret"), is_told, "{host}");
        assert_eq!(out.contains("goes to the host of --server"), !is_told, "{out}");
    }
}
