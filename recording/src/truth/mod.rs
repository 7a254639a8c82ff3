//! The engines' own answers, `CASE.truth.jsonl.gz`: one checkpoint per line, read as a stream.
//!
//! Large cases unpack to many megabytes of tokens, so one checkpoint at a time is held.

mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use thiserror::Error;

use crate::container::{Recording, RecordingError, case_file};
use crate::header::Header;
use crate::tokens::{MAX_PROMPT_TOKENS, PromptSpec, TokenRule};
use wire::{RawCheckpoint, RawHashes, RawQuery, fold_all};

/// The longest line of the recorded cases is under 50 KiB; 64 MiB stops a file that has no line ends.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// What the engines answered after exactly the first [`pos`](Checkpoint::pos) records.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its number, from 0.
    pub checkpoint: u64,
    /// Where in the story it lies; may be empty.
    pub label: String,
    /// Records of the recording that are applied.
    pub pos: usize,
    /// Per engine, the seq of its next message: its messages among the first `pos`, since its last restart.
    pub next_seq: Vec<u64>,
    /// What was asked.
    pub queries: Vec<Query>,
}

/// One prompt and what every engine answered to it.
#[derive(Debug, Clone)]
pub struct Query {
    /// The prompt's token ids.
    pub tokens: Vec<u32>,
    /// The adapter the prompt is for.
    pub lora: Option<Lora>,
    /// The request's cache salt.
    pub salt: Option<String>,
    /// Images and the like inside the prompt.
    pub mm: Vec<MmItem>,
    /// SGLang's extra key: names the adapter's cache.
    pub extra_key: Option<String>,
    /// Why the generator asked this (`recent`, …); large cases only.
    pub kind: Option<String>,
    /// The prompt's engine block hashes, as on the wire.
    pub block_hashes: BlockHashes,
    /// What each engine answered, at its index.
    pub engines: Vec<Answer>,
}

/// Engine block hashes of a prompt, by tokens per block; empty where the truth has none (SGLang).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockHashes(pub BTreeMap<u32, Vec<u64>>);

/// A LoRA adapter as the request named it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Lora {
    /// Its name.
    pub name: String,
    /// Its number; what releases before 0.12 hashed.
    #[serde(default)]
    pub id: Option<i64>,
    /// Where it was loaded from.
    #[serde(default)]
    pub path: Option<String>,
}

/// One multimodal item of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MmItem {
    /// Its content's identifier.
    pub identifier: String,
    /// First token of its placeholder.
    pub offset: u32,
    /// Tokens of its placeholder.
    pub length: u32,
}

/// One engine's own answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Tokens the engine would take from its cache. vLLM never takes a prompt's last token from it.
    pub hit_tokens: u64,
    /// The same without that cap (vLLM only).
    #[serde(default)]
    pub raw_hit_tokens: Option<u64>,
    /// Per cache group, one `0` or `1` per block hash: whether the engine holds it, reachable or not.
    #[serde(default)]
    pub present: Vec<String>,
    /// The same for the CPU tier, where the engine has one.
    #[serde(default)]
    pub present_cpu: Option<String>,
}

impl Query {
    /// The prompt's engine block hashes for blocks of `block_size` tokens; `None` where the truth has none.
    pub fn block_hashes_for(&self, block_size: u32) -> Option<&[u64]> {
        self.block_hashes.0.get(&block_size).map(Vec::as_slice)
    }
}

impl Answer {
    /// Tokens that a prefix match on this engine must report: the uncapped hit.
    pub fn expected_tokens(&self) -> u64 {
        self.raw_hit_tokens.unwrap_or(self.hit_tokens)
    }

    /// Blocks of the prompt that lie on the CPU tier without a hole from the first one on: what that tier alone
    /// could load. In block hashes, each [`hash_block_size`](crate::EngineHeader::hash_block_size) tokens;
    /// `None` for an engine without the tier.
    pub fn host_prefix(&self) -> Option<u64> {
        let present = self.present_cpu.as_ref()?;
        Some(present.bytes().take_while(|bit| *bit == b'1').count() as u64)
    }
}

/// Why the answers could not be read.
#[derive(Debug, Error)]
pub enum TruthError {
    /// The recording next to it, which holds seed and block sizes, cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The file is missing or may not be read.
    #[error("cannot open truth {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file ends inside a line or its gzip stream is damaged.
    #[error("truth {path}: line {line} cannot be unpacked: {source}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the decoder said.
        source: io::Error,
    },
    /// A line is not the checkpoint it should be.
    #[error("truth {path}, line {line}: {problem}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// The checkpoints of a case, in order of position. After an error the stream ends.
#[derive(Debug)]
pub struct Truth {
    path: PathBuf,
    input: BufReader<MultiGzDecoder<File>>,
    header: Header,
    line: usize,
    failed: bool,
}

impl Truth {
    /// Opens `CASE.truth.jsonl.gz`, and the header of `CASE.kvrec.gz` for seed and block sizes.
    ///
    /// # Errors
    /// [`TruthError`] when one of the two cannot be read.
    pub fn open(case: &Path) -> Result<Self, TruthError> {
        let header = Recording::open_header(case)?;
        let path = case_file(case, ".truth.jsonl.gz");
        match File::open(&path) {
            Ok(file) => Ok(Self {
                input: BufReader::new(MultiGzDecoder::new(file)),
                path,
                header,
                line: 0,
                failed: false,
            }),
            Err(source) => Err(TruthError::Open { path, source }),
        }
    }

    fn read(&mut self) -> Result<Option<Checkpoint>, TruthError> {
        self.line += 1;
        let mut line = Vec::new();
        let got = (&mut self.input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if let Err(source) = got {
            return Err(self.corrupt(source));
        }
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            return Err(self.bad(format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        let raw: RawCheckpoint = serde_json::from_slice(&line).map_err(|e| self.bad(e.to_string()))?;
        self.checkpoint(raw).map(Some)
    }

    fn checkpoint(&self, raw: RawCheckpoint) -> Result<Checkpoint, TruthError> {
        let engines = self.header.engines.len();
        let queries: Vec<Query> = raw
            .queries
            .into_iter()
            .enumerate()
            .map(|(at, query)| {
                if query.engines.len() != engines {
                    return Err(self.bad(format!(
                        "query {at} has {} answers, the recording has {engines} engines",
                        query.engines.len()
                    )));
                }
                self.query(query).map_err(|problem| self.bad(format!("query {at}: {problem}")))
            })
            .collect::<Result<_, _>>()?;
        if raw.next_seq.len() != engines {
            return Err(self.bad(format!(
                "next_seq has {} entries, the recording has {engines} engines",
                raw.next_seq.len()
            )));
        }
        Ok(Checkpoint {
            checkpoint: raw.checkpoint,
            label: raw.label,
            pos: raw.pos,
            next_seq: raw.next_seq,
            queries,
        })
    }

    fn query(&self, raw: RawQuery) -> Result<Query, String> {
        let tokens = match (raw.tokens, raw.prompt) {
            (Some(tokens), _) => tokens,
            (None, Some(spec)) => self.regenerate(&spec)?,
            (None, None) => return Err("neither tokens nor prompt".into()),
        };
        Ok(Query {
            tokens,
            lora: raw.lora,
            salt: raw.salt,
            mm: raw.mm,
            extra_key: raw.extra_key,
            kind: raw.kind,
            block_hashes: self.block_hashes(raw.block_hashes)?,
            engines: raw.engines,
        })
    }

    fn regenerate(&self, spec: &PromptSpec) -> Result<Vec<u32>, String> {
        let (Some(seed), Some(chunk)) = (self.header.seed, self.header.chunk) else {
            return Err("a prompt to regenerate, but the recording has no seed and chunk".into());
        };
        TokenRule { seed, chunk }
            .prompt(spec)
            .ok_or_else(|| format!("prompt longer than {MAX_PROMPT_TOKENS} tokens"))
    }

    fn block_hashes(&self, raw: Option<RawHashes>) -> Result<BlockHashes, String> {
        let mut out = BTreeMap::new();
        match raw {
            None => {}
            Some(RawHashes::List(hashes)) => {
                // A plain list is in the one granularity that all engines of the case hash in.
                let size = self.header.engines.first().map(|e| e.hash_block_size());
                out.insert(size.ok_or("block_hashes without engines")?, fold_all(hashes)?);
            }
            Some(RawHashes::ByBlockSize(map)) => {
                for (size, hashes) in map {
                    let size =
                        size.parse().map_err(|_| format!("block_hashes: {size:?} is no block size"))?;
                    out.insert(size, fold_all(hashes)?);
                }
            }
        }
        Ok(BlockHashes(out))
    }

    fn corrupt(&self, source: io::Error) -> TruthError {
        TruthError::Corrupt {
            path: self.path.clone(),
            line: self.line,
            source: match source.kind() {
                ErrorKind::UnexpectedEof => io::Error::new(ErrorKind::UnexpectedEof, "the file is truncated"),
                _ => source,
            },
        }
    }

    fn bad(&self, problem: String) -> TruthError {
        TruthError::BadLine { path: self.path.clone(), line: self.line, problem }
    }
}

impl Iterator for Truth {
    type Item = Result<Checkpoint, TruthError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.read().transpose();
        self.failed = !matches!(item, Some(Ok(_)));
        item
    }
}
