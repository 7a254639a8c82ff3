//! The keys of what callers may ask for, and of what the index may grow to.

use clap::Args;
use kvindex_core::limits::{IndexLimits, MAX_PROMPT_TOKENS};
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::{Config, ConfigError, Shown};

/// Holds a prompt of the most tokens as packed bytes four times over, or as JSON numbers.
const DEFAULT_BODY_BYTES: u64 = 64 << 20;

/// The one key whose default depends on where the process runs.
pub(super) const INDEX_CAP: &str = "max_index_bytes";

/// Below this the journal and empty tables are most of an index.
const MIN_INDEX_BYTES: u64 = 16 << 20;

/// What callers may ask for, and what the index may grow to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawLimits {
    /// Largest request.
    #[arg(long, value_name = "BYTES")]
    pub max_body_bytes: Option<u64>,
    /// Longest prompt.
    #[arg(long, value_name = "TOKENS")]
    pub max_prompt_tokens: Option<u64>,
    /// Most questions in one batch.
    #[arg(long, value_name = "N")]
    pub max_batch: Option<u64>,
    /// Most candidates or labels in one question.
    #[arg(long, value_name = "N")]
    pub max_candidates: Option<u64>,
    /// Most open match streams and watchers.
    #[arg(long, value_name = "N")]
    pub max_streams: Option<u64>,
    /// Changes a watcher may lag behind before it loses some.
    #[arg(long, value_name = "N")]
    pub watch_buffer: Option<u64>,
    /// Most registered workers.
    #[arg(long, value_name = "N")]
    pub max_workers: Option<u64>,
    /// Most (block, owner) entries of the index.
    #[arg(long, value_name = "N")]
    pub max_entries: Option<u64>,
    /// Most bytes of the index; beyond it blocks are evicted, 0 for no cap [default: by the control group's memory].
    #[arg(long, value_name = "BYTES")]
    pub max_index_bytes: Option<u64>,
}

/// What callers may ask for. Every refusal names its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Largest request, in bytes.
    pub body_bytes: usize,
    /// Longest prompt, in tokens.
    pub prompt_tokens: usize,
    /// Most questions in one batch.
    pub batch: usize,
    /// Most candidates or labels in one question.
    pub candidates: usize,
    /// Most match streams and watchers open at one time.
    pub streams: usize,
    /// Changes a watcher may lag behind before it loses some.
    pub watch_buffer: usize,
    /// Most registered workers.
    pub workers: usize,
    /// Bytes of the index beyond which blocks are evicted; 0 for no cap.
    pub index_bytes: usize,
}

impl ApiLimits {
    /// Sets the cap on the index, to no less than one that makes sense.
    pub(super) fn cap_index(&mut self, bytes: u64) {
        self.index_bytes = usize::try_from(bytes.max(MIN_INDEX_BYTES)).unwrap_or(usize::MAX);
    }
}

impl Checker<'_> {
    pub(super) fn limits(&self, raw: &RawLimits) -> Result<ApiLimits, ConfigError> {
        let body = 1024..=1 << 30;
        let prompt = MAX_PROMPT_TOKENS as u64;
        Ok(ApiLimits {
            body_bytes: self.number("max_body_bytes", raw.max_body_bytes, DEFAULT_BODY_BYTES, body)?,
            prompt_tokens: self.number("max_prompt_tokens", raw.max_prompt_tokens, prompt, 1..=prompt)?,
            batch: self.number("max_batch", raw.max_batch, 256, 1..=65_536)?,
            candidates: self.number("max_candidates", raw.max_candidates, 4096, 1..=65_536)?,
            streams: self.number("max_streams", raw.max_streams, 1024, 1..=65_536)?,
            watch_buffer: self.number("watch_buffer", raw.watch_buffer, 4096, 16..=1 << 20)?,
            workers: self.number("max_workers", raw.max_workers, 4096, 1..=65_536)?,
            index_bytes: self.index_bytes(raw.max_index_bytes)?,
        })
    }

    pub(super) fn index(&self, raw: &RawLimits) -> Result<IndexLimits, ConfigError> {
        let usual = IndexLimits::default();
        let entries = usual.max_entries as u64;
        Ok(IndexLimits {
            max_entries: self.number("max_entries", raw.max_entries, entries, 1000..=1 << 32)?,
            ..usual
        })
    }

    /// 0, or a cap that leaves room for more than tables.
    fn index_bytes(&self, value: Option<u64>) -> Result<usize, ConfigError> {
        match value {
            None | Some(0) => Ok(0),
            value => self.number(INDEX_CAP, value, 0, MIN_INDEX_BYTES..=1 << 44),
        }
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let limits = &config.limits;
    let values = [
        ("max_body_bytes", limits.body_bytes),
        ("max_prompt_tokens", limits.prompt_tokens),
        ("max_batch", limits.batch),
        ("max_candidates", limits.candidates),
        ("max_streams", limits.streams),
        ("watch_buffer", limits.watch_buffer),
        ("max_workers", limits.workers),
        ("max_entries", config.index.max_entries),
        (INDEX_CAP, limits.index_bytes),
    ];
    values.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}
