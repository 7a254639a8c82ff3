//! A configuration that changes while the node runs: what takes effect, what waits, what is refused.

use std::time::{Duration, Instant};

use crate::node::{Folder, Node};

/// Waits until the node's metrics hold this line.
fn metrics_say(node: &Node, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let url = format!("{}/metrics", node.server);
    loop {
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        if text.lines().any(|found| found == line) {
            return;
        }
        assert!(Instant::now() < deadline, "{line} is not in\n{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn worker_ids(node: &Node) -> Vec<String> {
    let listed = node.json(&["workers"]);
    let workers = listed["workers"].as_array().unwrap();
    workers.iter().map(|worker| worker["worker_id"].as_str().unwrap().to_owned()).collect()
}

fn workers(ids: &[&str]) -> String {
    ids.iter().map(|id| format!("[[workers]]\nworker_id = \"{id}\"\nmodel = \"m\"\n")).collect()
}

#[test]
fn a_changed_file_takes_effect_and_a_bad_one_is_refused_and_the_former_kept() {
    let folder = Folder::new("reload");
    let path = folder.file("kvindex.toml");
    std::fs::write(&path, workers(&["a", "b"])).unwrap();
    let node = Node::start(&["--config", &path]);
    assert_eq!(worker_ids(&node), ["a", "b"]);

    // Noticed by its content.
    std::fs::write(&path, format!("drain_s = 2\nmax_batch = 5\n{}", workers(&["b", "c"]))).unwrap();
    metrics_say(&node, "kvindex_config_reloads_total{result=\"taken\"} 1");
    metrics_say(&node, "kvindex_config_waiting_keys 1");
    metrics_say(&node, "kvindex_index_workers 2");
    let deadline = Instant::now() + Duration::from_secs(10);
    while worker_ids(&node) != ["b", "c"] {
        assert!(Instant::now() < deadline, "{:?}", worker_ids(&node));
        std::thread::sleep(Duration::from_millis(20));
    }

    std::fs::write(&path, "drain_s = \"soon\"\n").unwrap();
    metrics_say(&node, "kvindex_config_reloads_total{result=\"refused\"} 1");
    assert_eq!(worker_ids(&node), ["b", "c"]);

    // A signal reads it even unchanged.
    node.signal("-HUP");
    metrics_say(&node, "kvindex_config_reloads_total{result=\"refused\"} 2");
    assert!(node.end("-TERM").success());
}

#[test]
fn the_log_filter_changes_while_the_node_runs() {
    let folder = Folder::new("reload-filter");
    let (path, log) = (folder.file("kvindex.toml"), folder.file("log"));
    std::fs::write(&path, "log_filter = \"error\"\n").unwrap();
    let node = Node::start_logging(&["--config", &path], &log);
    let register = ["register", "--model", "m"];
    node.ok(&[&register[..], &["quiet"]].concat());
    std::fs::write(&path, "log_filter = \"info\"\n").unwrap();
    metrics_say(&node, "kvindex_config_reloads_total{result=\"taken\"} 1");
    node.ok(&[&register[..], &["loud"]].concat());
    assert!(node.end("-TERM").success());
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("quiet") && log.contains("loud"), "{log}");
}
