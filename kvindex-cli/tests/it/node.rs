//! `kvindex serve` in a process of its own on a port of the system's choice, and ways to run the other commands.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A command with none of the caller's settings.
pub(crate) fn kvindex(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvindex"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVINDEX_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Runs to the end: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    ended(&kvindex(arguments).stdin(Stdio::null()).output().unwrap())
}

pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = kvindex(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ended(&child.wait_with_output().unwrap())
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A server address where nothing listens.
pub(crate) fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// An empty folder of this test, gone at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) server: String,
}

impl Node {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_as(kvindex(&["serve", "--listen", "127.0.0.1:0", "--log-filter", "warn"]).args(flags))
    }

    /// Listens where another node did.
    pub(crate) fn start_at(address: &str) -> Self {
        Self::start_as(&mut kvindex(&["serve", "--listen", address, "--log-filter", "warn"]))
    }

    /// Writes its log lines to a file; the flags say which.
    pub(crate) fn start_logging(flags: &[&str], log: &str) -> Self {
        let log = std::fs::File::create(log).unwrap();
        Self::start_as(kvindex(&["serve", "--listen", "127.0.0.1:0"]).args(flags).stderr(log))
    }

    fn start_as(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let server = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(server.contains("://127.0.0.1:"), "{line:?}");
        Self { child, server }
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command against this node, which must succeed; answers standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ok(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        run(&[arguments, &["--server", &self.server]].concat())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Signals the node and waits until it has ended.
    pub(crate) fn end(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the node did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
