//! What happened in a run, in order. Its digest says whether two runs were the same; its last lines say what led to
//! a violation.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Lines kept for the report of a violation.
const KEPT: usize = 120;

/// One event. Numbers are cheap to note and enough to tell runs apart; text is for the rare and the telling.
#[derive(Debug, Clone)]
struct Line {
    at_ms: u64,
    what: &'static str,
    node: u64,
    words: [u64; 3],
    text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.words;
        write!(f, "{:>8} ms  node {}  {:<10}", self.at_ms, self.node, self.what)?;
        match self.text.as_str() {
            "" => write!(f, " {a} {b} {c:x}"),
            text => write!(f, " {text}"),
        }
    }
}

/// The events of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    begin: Instant,
    loud: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    digest: u64,
    count: u64,
    recent: VecDeque<Line>,
}

impl Trace {
    /// Begins now; `loud` prints every event as it comes.
    #[must_use]
    pub(crate) fn begin(loud: bool) -> Self {
        Self { begin: Instant::now(), loud, state: Mutex::default() }
    }

    /// Whether events are printed as they come.
    pub(crate) fn is_loud(&self) -> bool {
        self.loud
    }

    /// Virtual milliseconds since the start.
    #[must_use]
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes an event by numbers.
    pub(crate) fn note(&self, what: &'static str, node: u64, words: [u64; 3]) {
        self.add(Line { at_ms: self.now_ms(), what, node, words, text: String::new() });
    }

    /// Notes an event in words.
    pub(crate) fn say(&self, what: &'static str, node: u64, text: impl Into<String>) {
        self.add(Line { at_ms: self.now_ms(), what, node, words: [0; 3], text: text.into() });
    }

    fn add(&self, line: Line) {
        if self.loud {
            println!("{line}");
        }
        let mut state = self.state.lock();
        let mut bytes = Vec::with_capacity(64 + line.text.len());
        for word in [line.at_ms, line.node].iter().chain(&line.words) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(line.what.as_bytes());
        bytes.extend_from_slice(line.text.as_bytes());
        state.digest = xxh3_64_with_seed(&bytes, state.digest);
        state.count += 1;
        if state.recent.len() >= KEPT {
            state.recent.pop_front();
        }
        state.recent.push_back(line);
    }

    /// Digest and number of all events so far.
    #[must_use]
    pub(crate) fn digest(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.digest, state.count)
    }

    /// The last events, as text.
    #[must_use]
    pub(crate) fn recent(&self) -> Vec<String> {
        self.state.lock().recent.iter().map(ToString::to_string).collect()
    }
}
