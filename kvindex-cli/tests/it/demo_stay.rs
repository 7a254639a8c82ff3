//! `kvindex demo --stay`: the lines that it prints to paste work, and Ctrl-C ends it cleanly.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::demo_cases::case;
use crate::node::kvindex;

#[test]
fn the_printed_commands_work_until_ctrl_c() {
    let path = case("dp");
    let mut command = kvindex(&["demo", "--stay", "--recording", path.to_str().unwrap()]);
    let mut demo = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let printed: Vec<String> = lines.by_ref().take_while(|line| line != "468 of 468 equal").collect();
    let pasted: Vec<&str> = printed.iter().filter_map(|line| line.trim().strip_prefix("kvindex ")).collect();
    assert_eq!(pasted.len(), 3, "{printed:?}");
    for line in &pasted {
        let shell = format!("'{}' {line}", env!("CARGO_BIN_EXE_kvindex"));
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(["dp0", "dp1", "dp2"].iter().all(|worker| text.contains(worker)), "{line}: {text}");
    }
    let file = pasted.iter().find_map(|line| line.split('\'').nth(1)).unwrap().to_owned();
    assert!(std::path::Path::new(&file).exists());
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    assert!(demo.wait().unwrap().success());
    assert!(!std::path::Path::new(&file).exists(), "{file} is left behind");
}
