//! `kvindex cluster` against a cluster of one node, and what it says where there is none.

use serde_json::json;

use crate::node::{Folder, Node, nowhere, run};

const VERBS: [&str; 5] = ["status", "remove", "promote", "demote", "transfer"];

/// Arguments of each verb that only the server can refuse.
fn calls() -> [Vec<&'static str>; 5] {
    [
        vec!["cluster", "status"],
        vec!["cluster", "remove", "1", "--yes"],
        vec!["cluster", "promote", "1", "--yes"],
        vec!["cluster", "demote", "1", "--yes"],
        vec!["cluster", "transfer", "0", "--to", "1", "--yes"],
    ]
}

/// A founded cluster of one node.
fn founded(folder: &Folder) -> Node {
    let data = folder.file("data");
    let flags = ["--peer-listen", "127.0.0.1:0", "--cluster-size", "1", "--cluster-shards", "2"];
    let node = Node::start(&[&flags[..], &["--data-dir", &data]].concat());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let status = node.json(&["cluster", "status"]);
        let shards = status["shards"].as_array().unwrap();
        let led = shards.iter().filter(|shard| shard["role"] == "leader").count();
        if led == 2 && status["nodes"].as_array().map(Vec::len) == Some(1) {
            return node;
        }
        assert!(std::time::Instant::now() < deadline, "{status}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn help_lists_every_verb() {
    let (_, out, _) = run(&["cluster", "--help"]);
    for verb in VERBS {
        assert!(out.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb}: {out}");
        let (code, help, err) = run(&["cluster", verb, "--help"]);
        assert_eq!((code, err.as_str()), (0, ""), "{verb}");
        assert!(help.contains(&format!("Usage: kvindex cluster {verb}")), "{help}");
        assert_eq!(help.contains("--dry-run") && help.contains("--yes"), verb != "status", "{help}");
    }
    let (_, out, _) = run(&["completions", "bash"]);
    assert!(VERBS.iter().all(|verb| out.contains(&format!("kvindex__subcmd__cluster__subcmd__{verb}"))));
}

#[test]
fn a_cluster_is_shown_as_table_and_as_json() {
    let folder = Folder::new("cluster-status");
    let node = founded(&folder);
    let table = node.ok(&["cluster", "status"]);
    for part in ["as node 1 sees it", "peer address", "role here", "leader", "members (* votes)", "1*"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let status = node.json(&["cluster", "status", "--digests"]);
    assert_eq!(status["nodes"][0]["voter"], true);
    assert!(status["shards"][1]["digest"].is_number(), "{status}");
    assert!(node.ok(&["cluster", "status", "--digests"]).contains("digest"));
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let folder = Folder::new("cluster-dry-run");
    let node = founded(&folder);
    let before = node.json(&["cluster", "status"])["shards"][0]["last"].clone();
    let plan = node.ok(&["cluster", "transfer", "1", "--to", "1", "--dry-run"]);
    for part in ["let node 1 lead shard 1", "quorum", "goes on", "leads the shard already"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let plan = node.json(&["cluster", "promote", "1", "--dry-run"]);
    assert_eq!((&plan["goes_on"], &plan["shards"][0]["quorum_after"]), (&json!(true), &json!(1)));
    assert_eq!(plan["notes"], json!(["it has a vote already"]));
    assert_eq!(node.json(&["cluster", "status"])["shards"][0]["last"], before, "nothing was written");
    // The same, for real.
    let done = node.ok(&["cluster", "promote", "1", "--yes"]);
    assert!(done.contains("accepted") && done.contains("kvindex cluster status"), "{done}");
    assert_ne!(node.json(&["cluster", "status"])["shards"][0]["last"], before);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::new("cluster-refused");
    let node = founded(&folder);
    let refused: [(&[&str], &str); 5] = [
        (&["remove", "1", "--force", "--yes"], "last voter"),
        (&["demote", "1", "--dry-run"], "last voter"),
        (&["remove", "7", "--yes"], "node 7 is no node of the cluster; its nodes are 1"),
        (&["transfer", "9", "--to", "1", "--yes"], "there is no shard 9"),
        (&["transfer", "0", "--to", "3", "--yes"], "node 3 is no node"),
    ];
    for (arguments, part) in refused {
        let (code, out, err) = node.run(&[&["cluster"], arguments].concat());
        assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }
    // Nobody to ask: neither a terminal nor --yes.
    let (code, _, err) = node.run(&["cluster", "promote", "1"]);
    assert!(code == 2 && err.contains("--yes") && err.contains("--dry-run"), "{code} {err}");
    let wrong: [&[&str]; 4] = [
        &["remove", "0", "--yes"],
        &["remove", "one", "--yes"],
        &["transfer", "1", "--yes"],
        &["remove", "1", "--yes", "--dry-run"],
    ];
    for arguments in wrong {
        assert_eq!(run(&[&["cluster"], arguments].concat()).0, 2, "{arguments:?}");
    }
}

#[test]
fn a_node_alone_and_one_that_waits_say_so() {
    let alone = Node::start(&[]);
    for call in calls() {
        let (code, out, err) = alone.run(&call);
        assert_eq!((code, out.as_str()), (1, ""), "{call:?}: {err}");
        assert!(err.contains("alone") && err.contains("peer_listen"), "{err}");
    }
    let folder = Folder::new("cluster-waits");
    let data = folder.file("data");
    let waits = Node::start(&["--peer-listen", "127.0.0.1:0", "--data-dir", &data]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !waits.ok(&["cluster", "status"]).contains("not joined a cluster yet: 1 of 3 nodes") {
        assert!(std::time::Instant::now() < deadline, "{}", waits.ok(&["cluster", "status"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (code, _, err) = waits.run(&["cluster", "remove", "1", "--yes"]);
    assert!(code == 1 && err.contains("not joined"), "{err}");
    let server = nowhere();
    for call in calls() {
        let (code, out, err) = run(&[&call[..], &["--server", &server]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{call:?}: {err}");
    }
}
