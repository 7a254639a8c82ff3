//! `kvindex top` on a pseudo-terminal: `script` of util-linux makes one, and what is drawn on it is read by a terminal
//! emulator.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::node::{Folder, Node, kvindex};
use crate::round_trip::filled;

/// Rows and columns that terminals begin with.
const SIZE: (u16, u16) = (24, 100);

/// Of the documentation's picture.
const PICTURE: (u16, u16) = (38, 132);

/// How long something may take to be drawn; test machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell on a terminal, in which `top` runs and after which the terminal's state is printed.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
    size: (u16, u16),
    process_file: String,
    _folder: Folder,
}

impl Terminal {
    fn start(name: &str, server: &str) -> Self {
        Self::sized(SIZE, name, server)
    }

    fn sized(size @ (rows, columns): (u16, u16), name: &str, server: &str) -> Self {
        let folder = Folder::new(name);
        let process_file = folder.file("process");
        let top = kvindex(&["top", "--interval", "0.5", "--server", server]);
        let program = top.get_program().to_str().unwrap();
        let arguments: Vec<&str> = top.get_args().map(|argument| argument.to_str().unwrap()).collect();
        let arguments = arguments.join(" ");
        let shell = format!(
            "stty rows {rows} cols {columns}; sh -c 'echo $$ > {process_file}; exec {program} {arguments}'; \
             echo \"ended with $?\"; stty -a"
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--command", &shell, "/dev/null"]);
        command.env("TERM", "xterm-256color").env("SHELL", "/bin/sh").env_remove("NO_COLOR");
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("KVINDEX_") {
                command.env_remove(variable);
            }
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut out, into) = (child.stdout.take().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        let keys = child.stdin.take().unwrap();
        Self { child, keys, seen, size, process_file, _folder: folder }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// What stands on the screen now.
    fn screen(&self) -> vt100::Parser {
        let mut parser = vt100::Parser::new(self.size.0, self.size.1, 1000);
        parser.process(&self.seen.lock().unwrap());
        parser
    }

    fn until(&self, what: &str, there: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.screen().screen().contents();
            if there(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "never seen: {what}\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_seen(&self, what: &str) -> String {
        self.until(what, |text| text.contains(what))
    }

    /// Waits for the end, after which the terminal must be as it was.
    fn ended(mut self, code: &str) {
        let text = self.until_seen("ended with ");
        assert!(text.contains(&format!("ended with {code}")), "{text}");
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the shell did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = self.until("the terminal's state", |text| text.contains("echoctl"));
        let words: Vec<&str> = text.split([' ', ';', '\n']).collect();
        for word in ["icanon", "echo", "isig", "icrnl", "opost"] {
            assert!(words.contains(&word), "{word} is not set again: {text}");
        }
        let parser = self.screen();
        assert!(!parser.screen().alternate_screen(), "the screen was not left");
        assert!(!parser.screen().hide_cursor(), "the cursor was not shown again");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn top_draws_takes_keys_and_gives_the_terminal_back() {
    let node = filled(&[]);
    let mut terminal = Terminal::start("top-keys", &node.server);
    let text = terminal.until_seen("2 workers, 2 streams");
    assert!(terminal.screen().screen().alternate_screen());
    assert!(text.contains("llama") && text.contains("q quit"), "{text}");
    terminal.press("s");
    terminal.until_seen("by model");
    terminal.press("/b");
    terminal.until_seen("filter /b_");
    terminal.press("\r");
    terminal.until_seen("1 of 2 streams");
    terminal.press("p");
    terminal.until_seen("PAUSED");
    terminal.press("?");
    terminal.until_seen("filter by id, model, tenant or trust");
    // Leaves the help, then the program.
    terminal.press("q");
    terminal.until("the help gone", |text| !text.contains("filter by id"));
    terminal.press("q");
    terminal.ended("0");
}

/// Makes the picture of the documentation: `cargo test --workspace --test it -- --ignored picture_of_top`, with the
/// address of a node that has something to show in `TOP_PICTURE_OF`.
#[test]
#[ignore = "makes docs/images/top.svg"]
fn picture_of_top() {
    let server = std::env::var("TOP_PICTURE_OF").unwrap();
    let mut terminal = Terminal::sized(PICTURE, "top-picture", &server);
    terminal.until("rates", |text| text.contains(" live ") && !text.contains("batches -/s"));
    std::thread::sleep(Duration::from_secs(3));
    let parser = terminal.screen();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images/top.svg");
    std::fs::write(path, crate::picture::svg(parser.screen())).unwrap();
    terminal.press("q");
    terminal.ended("0");
}

/// SIGINT was found by a review: as a signal from elsewhere, not as a key, it left the terminal as it was drawn on.
#[test]
fn signals_give_the_terminal_back() {
    let node = Node::start(&[]);
    for (signal, code) in [("-TERM", "143"), ("-INT", "130"), ("-HUP", "143")] {
        let terminal = Terminal::start("top-signals", &node.server);
        terminal.until_seen("0 workers");
        let process = std::fs::read_to_string(&terminal.process_file).unwrap();
        assert!(Command::new("kill").args([signal, process.trim()]).status().unwrap().success());
        terminal.ended(code);
    }
}

#[test]
fn a_node_that_goes_away_is_told_and_comes_back() {
    let node = filled(&[]);
    let server = node.server.clone();
    let mut terminal = Terminal::start("top-gone", &server);
    terminal.until_seen("2 workers");
    node.end("-KILL");
    let text = terminal.until_seen("the node does not answer");
    assert!(text.contains("trying again") && text.contains("2 workers"), "{text}");
    let address = server.trim_start_matches("http://");
    let again = Node::start_at(address);
    terminal.until("the node that came back", |text| {
        text.contains("0 workers") && !text.contains("does not answer")
    });
    terminal.press("q");
    terminal.ended("0");
    drop(again);
}
