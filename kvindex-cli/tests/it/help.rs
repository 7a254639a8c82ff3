//! What a person sees first, and what shells complete.

use std::process::Stdio;

use crate::node::{Folder, kvindex, run};

const COMMANDS: [&str; 18] = [
    "serve",
    "demo",
    "match",
    "explain",
    "top",
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
    "man",
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
        assert!(help.contains(&format!("Examples:\n  kvindex {command}")), "{help}");
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

#[test]
fn manual_pages_name_every_command() {
    let folder = Folder::new("man");
    let pages = folder.file("man1");
    let (code, out, err) = run(&["man", "--dir", &pages]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(&pages), "{out}");
    let page = |name: &str| std::fs::read_to_string(format!("{pages}/{name}.1")).unwrap_or_default();
    let first = page("kvindex");
    for command in COMMANDS {
        assert!(first.contains(&format!("kvindex\\-{command}(1)")), "{command}: {first}");
        let own = page(&format!("kvindex-{command}"));
        assert!(own.contains(".SH SYNOPSIS") && own.contains("kvindex "), "{command}: {own}");
    }
    assert!(page("kvindex-top").contains("\\-\\-interval"));
    assert!(page("kvindex-cluster-transfer").contains("\\-\\-to"));
    let (code, out, _) = run(&["man"]);
    assert_eq!((code, out.as_str()), (0, first.as_str()));
    let file = folder.file("file");
    std::fs::write(&file, "").unwrap();
    let (code, _, err) = run(&["man", "--dir", &file]);
    assert!(code == 1 && err.contains("--dir") && err.contains(&file), "{err}");
}
