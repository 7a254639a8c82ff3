//! `kvindex serve`: settings, signals, the snapshot.

use std::net::TcpListener;

use crate::node::{Folder, Node, kvindex, run};
use crate::round_trip::filled;

#[test]
fn a_signal_ends_the_node_well_and_the_snapshot_brings_it_back() {
    for signal in ["-INT", "-TERM"] {
        let folder = Folder::new(&format!("snapshot{signal}"));
        let path = folder.file("index.snapshot");
        let node = filled(&["--snapshot", &path]);
        assert!(!std::path::Path::new(&path).exists());
        assert!(node.end(signal).success());
        assert!(std::fs::metadata(&path).unwrap().len() > 0);
        let again = Node::start(&["--snapshot-path", &path]);
        let answer =
            again.json(&["match", "--model", "llama", "--engine-hashes", "100,101", "--block-size", "16"]);
        assert_eq!(answer["workers"][0]["worker_id"], "a");
        assert_eq!(answer["workers"][0]["matched_blocks"], 2);
    }
}

#[test]
fn print_config_shows_each_value_and_who_set_it() {
    let folder = Folder::new("print-config");
    let path = folder.file("kvindex.toml");
    std::fs::write(&path, "max_batch = 7\ndrain_s = 3\n").unwrap();
    let mut command = kvindex(&["serve", "--config", &path, "--drain-s", "4", "--print-config"]);
    let output = command.env("KVINDEX_MAX_WORKERS", "9").output().unwrap();
    assert!(output.status.success());
    let out = String::from_utf8(output.stdout).unwrap();
    for (line, origin) in [
        ("max_batch = 7  # ", "kvindex.toml"),
        ("drain_s = 4  # ", "--drain-s"),
        ("max_workers = 9  # ", "KVINDEX_MAX_WORKERS"),
        ("watch_buffer = 4096  # ", "default"),
    ] {
        let found = out.lines().find(|found| found.starts_with(line));
        assert!(found.is_some_and(|found| found.contains(origin)), "{line}{origin}: {out}");
    }
}

#[test]
fn every_setting_has_its_flag() {
    let (_, config, _) = run(&["serve", "--print-config"]);
    let (_, help, _) = run(&["serve", "--help"]);
    let keys: Vec<&str> =
        config.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
    assert!(keys.len() >= 18, "{config}");
    for key in keys {
        assert!(help.contains(&format!("--{} ", key.replace('_', "-"))), "{key}: {help}");
    }
}

#[test]
fn bad_settings_end_with_2_and_name_flag_value_and_range() {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--listen", "nowhere"], &["listen", "nowhere", "--listen", "127.0.0.1:9590"]),
        (&["--max-batch", "0"], &["max_batch = 0", "--max-batch", "from 1 to 65536"]),
        (&["--gap-policy", "keep"], &["gap_policy", "purge, keep_as_suspect"]),
        (&["--config", "/nonexistent/kvindex.toml"], &["/nonexistent/kvindex.toml"]),
        (&["--listen", "127.0.0.1:0", "--log-filter", "kvindex=loud"], &["log_filter", "loud"]),
    ];
    for (flags, expected) in cases {
        let (code, out, err) = run(&[&["serve"], flags].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{flags:?}: {err}");
        for part in expected {
            assert!(err.contains(part), "{flags:?} does not say {part}: {err}");
        }
    }
}

#[test]
fn a_taken_port_ends_with_1_and_says_the_next_step() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["serve", "--listen", &address]);
    assert_eq!(code, 1);
    assert!(err.contains(&address) && err.contains("is another kvindex running?"), "{err}");
}

#[test]
fn config_show_says_what_differs_and_config_check_what_is_wrong() {
    let folder = Folder::new("config-show");
    let path = folder.file("kvindex.toml");
    std::fs::write(&path, "max_batch = 7\n").unwrap();
    let (code, out, _) = run(&["config", "show", "--changed", "--config", &path, "--drain-s", "4"]);
    assert_eq!(code, 0);
    let rows: Vec<Vec<&str>> = out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{out}");
    assert_eq!(rows[0], ["drain_s", "4", "--drain-s"]);
    assert!(rows[1][..2] == ["max_batch", "7"] && rows[1][2].ends_with("kvindex.toml"), "{out}");

    let (_, out, _) = run(&["config", "show", "max_batch", "listen", "--config", &path, "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["max_batch"]["value"], 7);
    assert_eq!(shown["listen"], serde_json::json!({"value": "127.0.0.1:9590", "origin": "default"}));
    assert_eq!(shown.as_object().unwrap().len(), 2);

    let (code, out, err) = run(&["config", "check", "--config", &path]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    std::fs::write(&path, "max_batch = 0\n").unwrap();
    let (code, _, err) = run(&["config", "check", "--config", &path]);
    assert!(code == 2 && err.contains("max_batch = 0") && err.contains("from 1 to 65536"), "{err}");
    let (code, _, err) = run(&["config", "show", "max_bach"]);
    assert!(code == 2 && err.contains("max_bach"), "{err}");
}

#[test]
fn the_page_of_keys_is_what_the_program_takes() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let (_, now, _) = run(&["config", "keys"]);
    if std::env::var_os("KVINDEX_WRITE_GOLDEN").is_some() {
        std::fs::write(page, &now).unwrap();
    }
    let written = std::fs::read_to_string(page).unwrap();
    assert!(
        written == now,
        "docs/configuration.md is not what `kvindex config keys` prints; write it again with it"
    );
}
