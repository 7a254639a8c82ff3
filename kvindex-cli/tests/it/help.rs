//! What a person sees first, and what shells complete.

use std::process::Stdio;

use crate::node::{kvindex, run};

const COMMANDS: [&str; 16] = [
    "serve",
    "demo",
    "match",
    "explain",
    "workers",
    "register",
    "unregister",
    "cluster",
    "config",
    "discover",
    "doctor",
    "watch",
    "replay",
    "dump",
    "token",
    "completions",
];

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in COMMANDS {
        assert!(
            out.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))),
            "{command}: {out}"
        );
        let (code, help, err) = run(&[command, "--help"]);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        assert!(help.contains(&format!("Usage: kvindex {command}")), "{help}");
    }
    assert!(out.contains("3 server unreachable"), "{out}");
    assert!(out.contains("--output"), "{out}");
}

#[test]
fn the_version_is_the_packages() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out.trim()), (0, concat!("kvindex ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("explain") && out.contains("sequence-hashes"), "{shell}");
    }
    assert_eq!(run(&["completions", "tcl"]).0, 2);
}

#[test]
fn a_reader_that_stops_reading_is_no_failure() {
    let mut command = kvindex(&["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}
