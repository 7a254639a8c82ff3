//! A node, a worker whose events are pushed, and every command that asks about it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use kvindex_client::{Client, ClientConfig, v1};

use crate::node::{Folder, Node, kvindex, run, run_with_input};

/// Sixteen tokens a block: ids 0, 1, 2 and so on.
fn tokens(blocks: u32) -> String {
    (0..blocks * 16).map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}

fn stored(blocks: u32) -> v1::PublishEvent {
    v1::PublishEvent {
        r#type: "stored".into(),
        block_hashes: (0..u64::from(blocks)).map(|i| 100 + i).collect(),
        token_ids: (0..blocks * 16).collect(),
        block_size: 16,
        ..v1::PublishEvent::default()
    }
}

fn removed(hash: u64) -> v1::PublishEvent {
    v1::PublishEvent { r#type: "removed".into(), block_hashes: vec![hash], ..v1::PublishEvent::default() }
}

/// Pushes batch `seq` of `worker_id`.
pub(crate) fn push(node: &Node, worker_id: &str, seq: u64, event: v1::PublishEvent) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let published = runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(node.server.as_str())).unwrap();
        let request = v1::PublishRequest {
            worker_id: worker_id.into(),
            generation: 1,
            seq,
            events: vec![event],
            ..v1::PublishRequest::default()
        };
        client.publish(request).await
    });
    assert_eq!(published.unwrap().applied_seq, seq);
}

/// A node with worker `a` (3 blocks) and worker `b` (1 block).
pub(crate) fn filled(flags: &[&str]) -> Node {
    let node = Node::start(flags);
    let out =
        node.ok(&["register", "a", "--model", "llama", "--address", "10.0.0.1:8000", "--role", "decode"]);
    assert_eq!(out, "a: created\n");
    node.ok(&["register", "b", "--model", "llama", "--label", "zone=z1"]);
    push(&node, "a", 0, stored(3));
    push(&node, "b", 0, stored(1));
    node
}

/// Workers with their matched blocks.
type Held = &'static [(&'static str, u64)];

fn held(answer: &serde_json::Value) -> Vec<(&str, u64)> {
    let workers = answer["workers"].as_array().unwrap();
    workers
        .iter()
        .map(|w| (w["worker_id"].as_str().unwrap(), w["matched_blocks"].as_u64().unwrap()))
        .collect()
}

#[test]
fn match_answers_by_tokens_files_and_hashes() {
    let (node, folder) = (filled(&[]), Folder::new("match"));
    let by_tokens = node.json(&["match", "--model", "llama", "--tokens", &tokens(4)]);
    assert_eq!(held(&by_tokens), [("a", 3), ("b", 1)]);
    assert_eq!(by_tokens["prompt_tokens"], 64);
    assert_eq!(by_tokens["workers"][0]["uncached_tokens"], 16);
    assert_eq!(by_tokens["workers"][0]["trust"]["generation"], 1);
    serde_json::from_value::<v1::MatchResponse>(by_tokens.clone()).unwrap();

    let path = folder.file("tokens.json");
    std::fs::write(&path, format!("[{}]\n", tokens(2))).unwrap();
    let by_file = node.json(&["match", "--model", "llama", "--tokens-file", &path]);
    assert_eq!(held(&by_file), [("a", 2), ("b", 1)]);
    let asked =
        ["match", "--model", "llama", "--tokens-file", "-", "--output", "json", "--server", &node.server];
    let (code, out, err) = run_with_input(&asked, &tokens(2).replace(',', "\n"));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(held(&serde_json::from_str(&out).unwrap()), [("a", 2), ("b", 1)]);

    let by_hashes = ["match", "--model", "llama", "--engine-hashes", "100,0x65,999", "--block-size", "16"];
    assert_eq!(held(&node.json(&by_hashes)), [("a", 2), ("b", 1)]);
}

#[test]
fn a_prompt_may_be_text_with_the_models_tokenizer() {
    let (node, folder) = (filled(&[]), Folder::new("text"));
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../kvindex-server/tests/golden/tokenizer/");
    let tokenizer = format!("{golden}tokenizer.json");
    let vectors = std::fs::read(format!("{golden}vectors.json")).unwrap();
    let vectors: Vec<serde_json::Value> = serde_json::from_slice(&vectors).unwrap();
    let ids = |vector: &serde_json::Value| serde_json::from_value::<Vec<u32>>(vector["ids"].clone()).unwrap();
    let vector = vectors.iter().find(|vector| ids(vector).len() > 16).unwrap();
    let (text, ids) = (vector["text"].as_str().unwrap(), ids(vector));
    let token_ids = ids.iter().copied().take(16).collect();
    push(&node, "b", 1, v1::PublishEvent { token_ids, block_hashes: vec![900], ..stored(1) });
    let path = folder.file("prompt.txt");
    std::fs::write(&path, text).unwrap();
    let args = ["--model", "llama", "--tokenizer", &tokenizer];
    for by in [["--text", text], ["--text-file", &path]] {
        let answer = node.json(&[&["match"], &args[..], &by].concat());
        assert_eq!(answer["prompt_tokens"], ids.len() as u64);
        assert_eq!(held(&answer), [("b", 1), ("a", 0)]);
    }
    let without = run(&["match", "--model", "llama", "--text", text]);
    assert!(without.0 == 2 && without.2.contains("--tokenizer"), "{without:?}");
    let wrong = run(&["match", "--model", "llama", "--text", text, "--tokenizer", &path]);
    assert!(
        wrong.0 == 2 && wrong.2.contains("--tokenizer") && wrong.2.contains("tokenizer.json"),
        "{wrong:?}"
    );
}

#[test]
fn match_filters_and_keeps_salts_loras_and_items_apart() {
    let node = filled(&[]);
    let cases: [(&[&str], Held); 9] = [
        (&["--top", "1"], &[("a", 3)]),
        (&["--role", "decode"], &[("a", 3)]),
        (&["--label", "zone=z1"], &[("b", 1)]),
        (&["--worker", "10.0.0.1:8000"], &[("a", 3)]),
        (&["--min-blocks", "2"], &[("a", 3)]),
        (&["--salt", "s"], &[("a", 0), ("b", 0)]),
        (&["--lora", "l"], &[("a", 0), ("b", 0)]),
        (&["--item", "sha256:ab:0:4"], &[("a", 0), ("b", 0)]),
        (&["--tenant", "other"], &[]),
    ];
    let prompt = tokens(3);
    for (flags, expected) in cases {
        let answer = node.json(&[&["match", "--model", "llama", "--tokens", &prompt], flags].concat());
        assert_eq!(held(&answer), expected, "{flags:?}");
    }
}

#[test]
fn tables_show_what_json_tells() {
    let node = filled(&[]);
    let out = node.ok(&["match", "--model", "llama", "--tokens", &tokens(4)]);
    for part in ["10.0.0.1:8000", "75 %", "device 3", "prompt of 64 tokens"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let out = node.ok(&["workers"]);
    for part in ["llama", "default", "vllm", "pushed", "generation", "lag ms"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let before = run(&["--output", "json", "workers", "--server", &node.server]).1;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&before).unwrap(), node.json(&["workers"]));
    let none = node.ok(&["match", "--model", "gpt", "--tokens", "1"]);
    assert!(none.contains("no worker of this model"), "{none}");
}

#[test]
fn explain_tells_removed_from_never_stored() {
    let node = filled(&[]);
    push(&node, "a", 1, removed(101));
    let asked = ["explain", "--model", "llama", "--tokens", &tokens(4)];
    let answer = node.json(&asked);
    serde_json::from_value::<v1::ExplainResponse>(answer.clone()).unwrap();
    let of = |id: &str| {
        let workers = answer["workers"].as_array().unwrap();
        workers.iter().find(|w| w["matched"]["worker_id"] == id).unwrap().clone()
    };
    assert_eq!((of("a")["reason"].as_str(), of("a")["broke_at"].as_u64()), (Some("removed"), Some(1)));
    assert_eq!((of("a")["held_beyond"].as_u64(), of("a")["seq"].as_u64()), (Some(1), Some(1)));
    assert_eq!((of("b")["reason"].as_str(), of("b")["broke_at"].as_u64()), (Some("never_stored"), Some(1)));
    let table = node.ok(&[&asked[..], &["--table"]].concat());
    assert!(table.contains("breaks at") && table.contains("removed"), "{table}");
}

/// Where nothing says how wide, a picture is 80 columns wide, and a pipe has no colours.
#[test]
fn explain_draws_a_tree_of_where_each_match_ends() {
    let node = filled(&[]);
    push(&node, "a", 1, removed(102));
    node.ok(&["register", "c", "--model", "llama"]);
    let picture = node.ok(&["explain", "--model", "llama", "--tokens", &tokens(4)]);
    // What differs from run to run: times, and how long ago.
    let mut lines: Vec<&str> = picture.lines().collect();
    assert!(lines[0].starts_with("prompt of 64 tokens; "), "{picture}");
    lines.remove(0);
    let why = lines.iter().position(|line| line.contains("why: removed from device by batch 1, ")).unwrap();
    assert!(lines[why].ends_with(" ago"), "{picture}");
    lines.remove(why);
    let expected = "\
tokens on the left, D device, . not held

 64 ┬ the prompt's end
    │
 32 ├─ a rank 0, 10.0.0.1:8000, live
    │  [DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD.................................]  50 %
    │  2 of 4 blocks of 16 tokens, 32 tokens; device 2
    │
 16 ├─ b rank 0, live
    │  [DDDDDDDDDDDDDDDD.................................................]  25 %
    │  1 of 4 blocks of 16 tokens, 16 tokens; device 1
    │  why: never stored
    │";
    let drawn = lines.join("\n");
    assert!(drawn.starts_with(expected), "{drawn}");
    let rest = drawn.strip_prefix(expected).unwrap();
    assert!(rest.contains("  0 ├─ c rank 0, pending") && rest.contains("nothing was heard"), "{drawn}");
    assert!(rest.ends_with("  0 ┴ the prompt's beginning"), "{drawn}");
}

#[test]
fn what_others_chose_reaches_no_terminal_as_it_is() {
    let node = Node::start(&[]);
    // A node refuses control characters in names, and takes what turns a text's direction.
    let evil = "w\u{202e}evil";
    node.ok(&["register", evil, "--model", "llama"]);
    for command in [
        &["workers"][..],
        &["explain", "--model", "llama", "--tokens", "1"],
        &["explain", "--model", "llama", "--tokens", "1", "--table"],
        &["match", "--model", "llama", "--tokens", "1"],
        &["top", "--once", "--interval", "0.2"],
    ] {
        let out = node.ok(command);
        assert!(out.contains("w\\u{202e}evil") && !out.contains('\u{202e}'), "{command:?}: {out}");
        let json = [command, &["--output", "json", "--server", &node.server]].concat();
        let out = run(&json).1;
        assert!(out.contains("w\\u202eevil") && !out.contains('\u{202e}'), "{json:?}: {out}");
    }
}

#[test]
fn workers_come_and_go() {
    let node = Node::start(&[]);
    assert!(node.ok(&["workers"]).contains("kvindex register"));
    assert_eq!(node.json(&["register", "a", "--model", "llama"])["outcome"], "created");
    assert_eq!(node.json(&["register", "a", "--model", "llama"])["outcome"], "unchanged");
    let (code, _, err) = node.run(&["register", "a", "--model", "qwen"]);
    assert!(code == 1 && err.contains("worker_id"), "{err}");
    assert_eq!(node.ok(&["register", "a", "--model", "qwen", "--replace"]), "a: replaced\n");
    let listed = node.json(&["workers", "--model", "qwen"]);
    assert_eq!(listed["workers"][0]["worker_id"], "a");
    assert_eq!(node.ok(&["unregister", "a"]), "a: removed\n");
    assert_eq!(node.ok(&["unregister", "a"]), "a: was not registered\n");
    assert_eq!(node.json(&["workers"])["workers"].as_array().map(Vec::len), Some(0));
}

#[test]
fn watch_tells_changes_as_they_happen() {
    let node = Node::start(&[]);
    let mut command = kvindex(&["watch", "--worker", "a", "--output", "json", "--count", "2"]);
    command.args(["--server", &node.server]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watch = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(watch.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("watching http://"), "{said}");
    for worker in ["b", "a"] {
        node.ok(&["register", worker, "--model", "llama"]);
        push(&node, worker, 0, stored(2));
    }
    let ended = watch.wait_with_output().unwrap();
    assert!(ended.status.success());
    let lines = String::from_utf8(ended.stdout).unwrap();
    let events: Vec<v1::WatchEvent> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{lines}");
    assert!(events.iter().all(|event| event.worker_id == "a"), "{lines}");
    assert_eq!(events[0].kind, "registered");
}
