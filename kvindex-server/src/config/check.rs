//! From the configuration as written to a checked one: defaults, ranges, and errors that name key, value,
//! origin and what is accepted.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use kvindex_core::GapPolicy;
use kvindex_core::limits::{IndexLimits, MAX_PROMPT_TOKENS};

use super::{
    ApiLimits, Config, ConfigError, DEFAULT_LISTEN, IngestConfig, LogConfig, LogFormat, RawConfig,
    SnapshotConfig,
};
use crate::workers::{RawWorker, WorkerDefinition};

/// Who set a key, for errors.
pub(super) type Origin<'a> = dyn Fn(&str) -> String + 'a;

/// Holds a prompt of the most tokens as packed bytes four times over, or as JSON numbers.
const DEFAULT_BODY_BYTES: u64 = 64 << 20;

/// The consensus library tells each heartbeat that is late; what follows from it is told here.
const DEFAULT_FILTER: &str = "info,openraft=error";

/// Below this the journal and empty tables are most of an index.
const MIN_INDEX_BYTES: u64 = 16 << 20;

impl RawConfig {
    pub(super) fn check(self, origin: &Origin<'_>) -> Result<Config, ConfigError> {
        let checker = Checker { origin };
        let gap_policy = checker.word(
            "gap_policy",
            self.gap_policy.as_deref(),
            &[("purge", GapPolicy::Purge), ("keep_as_suspect", GapPolicy::KeepAsSuspect)],
        )?;
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let workers = checker.workers(&self.workers, gap_policy)?;
        let listen = self.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
        let config = Config {
            listen: listen.parse().map_err(|_| {
                checker.invalid("listen", listen, "must be address:port, such as 127.0.0.1:9590 or [::]:9590")
            })?,
            log: LogConfig {
                format: checker.word("log_format", self.log_format.as_deref(), &formats)?,
                filter: self.log_filter.clone().unwrap_or_else(|| DEFAULT_FILTER.into()),
            },
            snapshot: checker.snapshot(self.snapshot_path.as_deref(), self.snapshot_interval_s)?,
            ingest: IngestConfig {
                threads: checker.number("ingest_threads", self.ingest_threads, 1, 1..=64)?,
                gap_policy,
                idle_poll: checker.millis("idle_poll_ms", self.idle_poll_ms, 5000)?,
                replay_timeout: checker.millis("replay_timeout_ms", self.replay_timeout_ms, 2000)?,
            },
            limits: ApiLimits {
                body_bytes: checker.number(
                    "max_body_bytes",
                    self.max_body_bytes,
                    DEFAULT_BODY_BYTES,
                    1024..=1 << 30,
                )?,
                prompt_tokens: checker.number(
                    "max_prompt_tokens",
                    self.max_prompt_tokens,
                    MAX_PROMPT_TOKENS as u64,
                    1..=MAX_PROMPT_TOKENS as u64,
                )?,
                batch: checker.number("max_batch", self.max_batch, 256, 1..=65_536)?,
                candidates: checker.number("max_candidates", self.max_candidates, 4096, 1..=65_536)?,
                streams: checker.number("max_streams", self.max_streams, 1024, 1..=65_536)?,
                watch_buffer: checker.number("watch_buffer", self.watch_buffer, 4096, 16..=1 << 20)?,
                workers: checker.number("max_workers", self.max_workers, 4096, 1..=65_536)?,
                index_bytes: checker.index_bytes(self.max_index_bytes)?,
            },
            index: IndexLimits {
                max_entries: checker.number(
                    "max_entries",
                    self.max_entries,
                    IndexLimits::default().max_entries as u64,
                    1000..=1 << 32,
                )?,
                ..IndexLimits::default()
            },
            cluster: checker.cluster(&self)?,
            drain: Duration::from_secs(checker.number("drain_s", self.drain_s, 10, 0..=3600)?),
            workers,
        };
        if config.workers.len() > config.limits.workers {
            let reason = format!("max_workers is {}", config.limits.workers);
            return Err(checker.invalid("workers", &format!("{} workers", config.workers.len()), &reason));
        }
        Ok(config)
    }
}

pub(super) struct Checker<'a> {
    origin: &'a Origin<'a>,
}

impl Checker<'_> {
    pub(super) fn invalid(&self, key: &str, value: &str, reason: &str) -> ConfigError {
        let (key, value, reason) = (key.to_owned(), value.to_owned(), reason.to_owned());
        let origin = (self.origin)(key.split('[').next().unwrap_or(&key));
        ConfigError::Invalid { key, value, origin, reason }
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &self,
        key: &str,
        value: Option<u64>,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let value = value.unwrap_or(default);
        let fits = range.contains(&value).then(|| T::try_from(value).ok()).flatten();
        fits.ok_or_else(|| {
            let reason = format!("must be from {} to {}", range.start(), range.end());
            self.invalid(key, &value.to_string(), &reason)
        })
    }

    /// 0, or a cap that leaves room for more than tables.
    fn index_bytes(&self, value: Option<u64>) -> Result<usize, ConfigError> {
        match value {
            None | Some(0) => Ok(0),
            value => self.number("max_index_bytes", value, 0, MIN_INDEX_BYTES..=1 << 44),
        }
    }

    pub(super) fn millis(
        &self,
        key: &str,
        value: Option<u64>,
        default: u64,
    ) -> Result<Duration, ConfigError> {
        Ok(Duration::from_millis(self.number(key, value, default, 10..=600_000)?))
    }

    /// One of `words`; the first is the default.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        text: Option<&str>,
        words: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let found = match text {
            None => words.first(),
            Some(text) => words.iter().find(|(word, _)| *word == text),
        };
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.invalid(key, text.unwrap_or(""), &format!("must be one of {}", known.join(", ")))
        })
    }

    fn snapshot(
        &self,
        path: Option<&str>,
        interval_s: Option<u64>,
    ) -> Result<Option<SnapshotConfig>, ConfigError> {
        let interval: u64 = self.number("snapshot_interval_s", interval_s, 0, 0..=86_400)?;
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return if interval == 0 {
                Ok(None)
            } else {
                Err(self.invalid("snapshot_interval_s", &interval.to_string(), "needs snapshot_path"))
            };
        };
        let interval = (interval > 0).then(|| Duration::from_secs(interval));
        Ok(Some(SnapshotConfig { path: PathBuf::from(path), interval }))
    }

    fn workers(
        &self,
        workers: &[RawWorker],
        gap_policy: GapPolicy,
    ) -> Result<Vec<WorkerDefinition>, ConfigError> {
        let mut seen = BTreeSet::new();
        let mut definitions = Vec::with_capacity(workers.len());
        for (i, worker) in workers.iter().enumerate() {
            let id = worker.worker_id.clone();
            if !seen.insert(id.clone()) {
                let key = format!("workers[{i}].worker_id");
                return Err(self.invalid(&key, &id, "is defined twice"));
            }
            let checked = worker.clone().check(gap_policy).map_err(|error| {
                self.invalid(
                    &format!("workers[{i}].{}", error.field),
                    &format!("worker {id:?}"),
                    &error.message,
                )
            });
            definitions.push(checked?);
        }
        Ok(definitions)
    }
}
