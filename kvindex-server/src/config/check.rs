//! From the configuration as written to a checked one. Each section checks its own keys; here is what they share:
//! ranges, and errors that name key, value, origin and what is accepted.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use kvindex_core::GapPolicy;

use super::{Config, ConfigError, DiscoveryConfig, RawConfig, RawDiscovery};
use crate::workers::{RawWorker, WorkerDefinition};

/// Who set a key, for errors.
pub(super) type Origin<'a> = dyn Fn(&str) -> String + 'a;

impl RawConfig {
    pub(super) fn check(&self, origin: &Origin<'_>) -> Result<Config, ConfigError> {
        let checker = Checker { origin };
        let ingest = checker.ingest(&self.ingest)?;
        let limits = checker.limits(&self.limits)?;
        let config = Config {
            listen: checker.listen(&self.node)?,
            log: checker.log(&self.node)?,
            snapshot: checker.snapshot(&self.node)?,
            drain: checker.drain(&self.node)?,
            ingest,
            limits,
            access: checker.access(&self.access, limits.body_bytes)?,
            dialects: checker.dialects(&self.dialects)?,
            index: checker.index(&self.limits)?,
            cluster: checker.cluster(self)?,
            net: checker.net(self)?,
            tls: checker.tls(self)?,
            trace: checker.trace(&self.telemetry)?,
            discovery: checker.discovery(&self.discovery)?,
            workers: checker.workers(&self.workers, ingest.gap_policy)?,
        };
        if config.workers.len() > config.limits.workers {
            let reason = format!("max_workers is {}", config.limits.workers);
            return Err(checker.invalid("workers", &format!("{} workers", config.workers.len()), &reason));
        }
        Ok(config)
    }
}

impl RawDiscovery {
    /// Checks these keys alone.
    pub(super) fn check(&self, origin: &Origin<'_>) -> Result<DiscoveryConfig, ConfigError> {
        Checker { origin }.discovery(self)
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
