//! `kvindex replay` into `kvindex serve`, with losses and a restart on the way, and `kvindex dump` of the result.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kvindex_recording::{Checkpoint, Recording, Truth};
use serde_json::Value;

use crate::demo_cases::case;
use crate::node::{Folder, Node, kvindex, run, run_with_input};

/// Killed when dropped: its engines go on answering replay requests.
struct Replay(Child);

impl Drop for Replay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plays `name` into `node`; returns when the last batch is published, with the line about it.
fn replay(node: &Node, name: &str, flags: &[&str]) -> (Replay, Value) {
    let path = case(name);
    let basic = ["replay", path.to_str().unwrap(), "--output", "json", "--linger", "600"];
    let mut command = kvindex(&basic);
    command.args(["--register", &node.server, "--model", "llama"]).args(flags);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let child = Replay(child);
    let events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let played = events.into_iter().find(|event| event["event"] == "played").unwrap();
    (child, played)
}

/// The checkpoint behind the last batch.
fn last_checkpoint(name: &str) -> Checkpoint {
    let last = Truth::open(&case(name)).unwrap().last().unwrap().unwrap();
    assert_eq!(last.pos, Recording::open(&case(name)).unwrap().records.len());
    last
}

fn wait_until_settled(node: &Node, checkpoint: &Checkpoint) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let workers = node.json(&["workers"]);
        let applied: Vec<Option<u64>> = workers["workers"].as_array().unwrap().iter().map(applied).collect();
        let wanted: Vec<Option<u64>> = checkpoint.next_seq.iter().map(|next| next.checked_sub(1)).collect();
        if applied == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{applied:?} instead of {wanted:?}: {workers:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// In the JSON form of messages, numbers of 64 bits may be written as text.
fn applied(worker: &Value) -> Option<u64> {
    number(&worker["streams"][0]["trust"]["applied_seq"])
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[test]
fn after_losses_and_a_restart_every_match_equals_the_engines_own() {
    let node = Node::start(&[]);
    let flags = ["--drop-fraction", "0.05", "--seed", "7", "--dup", "1:5-20", "--restart", "2:30"];
    let (_engines, played) = replay(&node, "hot-a", &flags);
    assert!(played["dropped"].as_u64() > Some(10) && played["restarts"] == 1, "{played}");
    let checkpoint = last_checkpoint("hot-a");
    wait_until_settled(&node, &checkpoint);
    let header = Recording::open_header(&case("hot-a")).unwrap();
    let mut held = 0;
    for query in &checkpoint.queries {
        let tokens = serde_json::to_string(&query.tokens).unwrap();
        let mut arguments = vec!["match", "--server", &node.server, "--output", "json", "--model", "llama"];
        arguments.extend(["--tokens-file", "-"]);
        let (lora, salt) = (query.lora.as_ref().map(|lora| &lora.name), query.salt.as_ref());
        arguments.extend(lora.iter().flat_map(|lora| ["--lora", lora]));
        arguments.extend(salt.iter().flat_map(|salt| ["--salt", salt]));
        let (code, out, err) = run_with_input(&arguments, &tokens);
        assert_eq!(code, 0, "{err}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        for (engine, own) in header.engines.iter().zip(&query.engines) {
            let workers = answer["workers"].as_array().unwrap();
            let worker = workers.iter().find(|worker| worker["worker_id"] == engine.name.as_str());
            let matched = worker.and_then(|worker| number(&worker["matched_tokens"])).unwrap_or(0);
            assert_eq!(matched, own.expected_tokens(), "{}: {answer:#}", engine.name);
            held += matched;
        }
    }
    assert!(held > 0, "nobody holds anything");
}

#[test]
fn a_dump_shows_what_a_snapshot_holds() {
    let folder = Folder::new("dump");
    let file = folder.file("index.snapshot");
    let node = Node::start(&["--snapshot-path", &file]);
    let (engines, _) = replay(&node, "dp", &[]);
    wait_until_settled(&node, &last_checkpoint("dp"));
    let workers = node.json(&["workers"]);
    let held = |worker: &Value| number(&worker["streams"][0]["blocks"]).unwrap();
    let blocks: u64 = workers["workers"].as_array().unwrap().iter().map(held).sum();
    drop(engines);
    assert!(node.end("-TERM").success());
    let (code, out, err) = run(&["dump", "--snapshot", &file, "--output", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (totals, entries) = lines.split_last().unwrap();
    assert_eq!(entries.len() as u64, blocks);
    assert_eq!(totals["totals"]["entries"], blocks);
    assert_eq!(totals["totals"]["workers"], 3);
    assert_eq!(entries[0]["worker_id"], "dp0");
    assert_eq!((&entries[0]["tier"], &entries[0]["copies"]), (&"device".into(), &1.into()));
    assert_eq!(entries[0]["namespace"]["model"], "llama");
    let (code, out, _) = run(&["dump", "--snapshot", &file]);
    let digest = totals["totals"]["digest"].as_str().unwrap();
    assert!(code == 0 && out.lines().count() as u64 == blocks + 2, "{out}");
    assert!(out.lines().last().unwrap().ends_with(&format!("digest {digest}")), "{out}");
}

#[test]
fn a_dump_of_something_else_is_refused() {
    let folder = Folder::new("no-dump");
    let file = folder.file("index.snapshot");
    let (code, _, err) = run(&["dump", "--snapshot", &file]);
    assert!(code == 1 && err.contains(&file), "{err}");
    std::fs::write(&file, b"something else entirely, and long enough").unwrap();
    let (code, out, err) = run(&["dump", "--snapshot", &file]);
    assert!(code == 1 && out.is_empty() && err.contains("is no kvindex snapshot"), "{err}");
}

#[test]
fn a_replay_that_cannot_be_is_refused() {
    let path = case("dp");
    let path = path.to_str().unwrap();
    for (flags, code, says) in [
        (&["--drop", "2"][..], 2, "engine:first-last"),
        (&["--drop", "7:0-1"], 1, "the recording has 3"),
        (&["--drop-fraction", "1.5"], 1, "not within 0 to 1"),
        (&["--replay-frames", "4"], 2, "2..=3"),
        (&["--register", "http://127.0.0.1:1"], 3, "cannot reach"),
        (&["--wait", "1"], 1, "not every engine got a subscriber"),
    ] {
        let (found, _, err) = run(&[&["replay", path], flags].concat());
        assert_eq!(found, code, "{flags:?}: {err}");
        assert!(err.contains(says), "{flags:?}: {err}");
    }
}
