//! Reads a request trace in Mooncake's published form: one JSON object a line, with the prompt's length and one hash
//! for every 512 tokens of it. Prompts themselves are not in such a trace, and nothing here needs them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// Tokens that one hash of the trace stands for; what the trace was published with.
pub(super) const BLOCK_TOKENS: u64 = 512;

/// One request, as the simulation needs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// Its place in the trace.
    pub(super) number: usize,
    /// When it arrives, in seconds of the trace.
    pub(super) at_s: f64,
    /// Tokens of the prompt.
    pub(super) tokens: u64,
    /// Tokens of the answer.
    pub(super) output: u64,
    /// Names of the prompt's full blocks. The last, partial one is never cached by an engine.
    pub(super) blocks: Vec<u64>,
}

impl Request {
    /// Blocks that hold the prompt and its answer, the partial ones included.
    pub(super) fn all_blocks(&self) -> usize {
        usize::try_from((self.tokens + self.output).div_ceil(BLOCK_TOKENS)).unwrap_or(usize::MAX)
    }

    /// Blocks that hold the prompt, a partial one included.
    pub(super) fn prompt_blocks(&self) -> usize {
        usize::try_from(self.tokens.div_ceil(BLOCK_TOKENS)).unwrap_or(usize::MAX)
    }

    /// Tokens that an engine need not compute when it holds this many blocks of the prompt. The last token is always
    /// computed: its result is the first token of the answer.
    pub(super) fn saved_by(&self, held: usize) -> u64 {
        let most = self.tokens.saturating_sub(1) / BLOCK_TOKENS;
        (held as u64).min(most) * BLOCK_TOKENS
    }
}

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// The first `most` requests of a trace, plain or compressed with gzip.
pub(super) fn read(path: &Path, most: usize) -> anyhow::Result<Vec<Request>> {
    let named = || format!("--trace {}", path.display());
    let mut head = [0u8; 2];
    let is_gzip = File::open(path).with_context(named)?.read_exact(&mut head).is_ok() && head == [0x1f, 0x8b];
    let file = File::open(path).with_context(named)?;
    let bytes: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let requests = parse(BufReader::new(bytes), most).with_context(named)?;
    anyhow::ensure!(!requests.is_empty(), "--trace {}: there is no request in it", path.display());
    Ok(requests)
}

fn parse(lines: impl BufRead, most: usize) -> anyhow::Result<Vec<Request>> {
    let mut requests: Vec<Request> = Vec::new();
    for (index, line) in lines.lines().enumerate() {
        let line = line.with_context(|| format!("line {}", index + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        if requests.len() == most {
            break;
        }
        let request = request(&line, requests.len()).with_context(|| format!("line {}", index + 1))?;
        let before = requests.last().map_or(0.0, |last| last.at_s);
        anyhow::ensure!(
            request.at_s >= before,
            "line {}: timestamp {} ms is before the line above it; sort the trace by timestamp",
            index + 1,
            request.at_s * 1e3
        );
        requests.push(request);
    }
    Ok(requests)
}

fn request(line: &str, number: usize) -> anyhow::Result<Request> {
    const FORM: &str =
        "expected timestamp (ms), input_length, output_length and hash_ids (one for 512 tokens)";
    let mut line: Line = serde_json::from_str(line).context(FORM)?;
    anyhow::ensure!(line.timestamp >= 0.0, "timestamp {} is negative", line.timestamp);
    anyhow::ensure!(line.input_length > 0, "input_length is 0");
    let hashes = line.hash_ids.len() as u64;
    let full = line.input_length / BLOCK_TOKENS;
    anyhow::ensure!(
        hashes >= full,
        "hash_ids has {hashes} entries, and input_length {} has {full} full blocks of {BLOCK_TOKENS} tokens",
        line.input_length
    );
    line.hash_ids.truncate(usize::try_from(full)?);
    Ok(Request {
        number,
        at_s: line.timestamp / 1e3,
        tokens: line.input_length,
        output: line.output_length,
        blocks: line.hash_ids,
    })
}

/// What tells each request's session apart, since the trace has no word for it: the first block of its prompt that
/// few requests share. Those before it are the system prompt's. A prompt with no such block is a session of its own.
pub(super) fn sessions(requests: &[Request]) -> Vec<u64> {
    /// More requests than this share of all do not belong to one session.
    const SHARED: usize = 100;
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for block in requests.iter().flat_map(|request| &request.blocks) {
        *seen.entry(*block).or_default() += 1;
    }
    let most = (requests.len() / SHARED).max(1);
    let session = |request: &Request| {
        let own = |block: &&u64| seen.get(block).is_none_or(|count| *count <= most);
        // Names of blocks are small numbers: those from the top are free.
        request.blocks.iter().find(own).copied().unwrap_or(u64::MAX - request.number as u64)
    };
    requests.iter().map(session).collect()
}

/// Tokens that one engine with room for everything would save, if it served all requests one by one.
pub(super) fn repeated(requests: &[Request]) -> u64 {
    let mut seen = HashSet::new();
    let mut saved = 0;
    for request in requests {
        let held = request.blocks.iter().take_while(|block| seen.contains(*block)).count();
        saved += request.saved_by(held);
        seen.extend(request.blocks.iter().copied());
    }
    saved
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_full_blocks_and_says_what_is_wrong() {
        let good = r#"{"timestamp": 1500, "input_length": 1030, "output_length": 7, "hash_ids": [4, 5, 6]}"#;
        let read = parse(good.as_bytes(), 9).unwrap();
        assert_eq!(read, [Request { number: 0, at_s: 1.5, tokens: 1030, output: 7, blocks: vec![4, 5] }]);
        for (bad, said) in [
            (
                r#"{"timestamp": 0, "input_length": 1030, "output_length": 7, "hash_ids": [4]}"#,
                "2 full blocks",
            ),
            (
                r#"{"timestamp": 0, "input_length": 0, "output_length": 7, "hash_ids": []}"#,
                "input_length is 0",
            ),
            (r#"{"timestamp": 0, "input_length": 5, "hash_ids": []}"#, "expected timestamp"),
            (&format!("{good}\n{}", good.replace("1500", "1499")), "line 2: timestamp"),
        ] {
            let error = format!("{:#}", parse(bad.as_bytes(), 9).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_prompt_held_whole_still_computes_its_last_block() {
        let request = Request { number: 0, at_s: 0.0, tokens: 1024, output: 1, blocks: vec![1, 2] };
        assert_eq!(request.saved_by(2), 512);
        let longer = Request { tokens: 1025, ..request.clone() };
        assert_eq!(longer.saved_by(2), 1024);
        assert_eq!(repeated(&[request.clone(), request, longer]), 512 + 1024);
    }

    #[test]
    fn sessions_begin_behind_the_system_prompt() {
        let request = |number, blocks: &[u64]| Request {
            number,
            at_s: 0.0,
            tokens: blocks.len() as u64 * BLOCK_TOKENS,
            output: 0,
            blocks: blocks.to_vec(),
        };
        let mut requests: Vec<Request> = (0..300).map(|n| request(n, &[0, 1000 + n as u64 / 2])).collect();
        requests.push(request(300, &[0]));
        let sessions = sessions(&requests);
        assert_eq!(sessions[0], sessions[1]);
        assert_ne!(sessions[1], sessions[2]);
        assert_eq!(sessions.iter().collect::<HashSet<_>>().len(), 151);
    }
}
