//! A worker's definition: what an operator writes, in the configuration file or in a register call, and the
//! checked form the node keeps. One definition and one check for both ways in.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use kvindex_core::limits::MAX_DP_RANKS;
use kvindex_core::{CopyPolicy, DEFAULT_TENANT, DpRank, EngineKind, GapPolicy, PodRef, WorkerId, WorkerSpec};

use crate::endpoints::{self, Endpoint};

/// What is wrong with one field of a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field, with its path.
    pub field: String,
    /// What is wrong, with the limit or the accepted values.
    pub message: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A definition as written. Field meanings are those of `RegisterRequest` in `ingest.proto`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // documented once, in the protocol file
pub struct RawWorker {
    pub worker_id: String,
    pub model: String,
    pub tenant: String,
    pub engine: String,
    pub engine_version: Option<String>,
    pub address: Option<String>,
    pub pod: Option<PodRef>,
    pub service: Option<String>,
    pub role: Option<String>,
    pub pd_group: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub copies: String,
    pub gap_policy: String,
    pub streams: Vec<RawStream>,
    pub endpoint: String,
    pub replay_endpoint: String,
    pub topic: String,
    pub data_parallel_size: u32,
}

/// One event stream as written; see `StreamSource` in `ingest.proto`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawStream {
    pub dp_rank: u32,
    pub endpoint: String,
    pub replay_endpoint: String,
    pub topic: String,
}

/// A checked definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerDefinition {
    /// What the index knows of the worker.
    #[serde(flatten)]
    pub spec: WorkerSpec,
    /// Where its ranks publish; empty when its events are pushed.
    pub streams: Vec<StreamSource>,
    /// What an unfillable gap does.
    pub gap_policy: GapPolicy,
}

/// Where one data-parallel rank publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSource {
    /// The rank.
    pub dp_rank: DpRank,
    /// ZeroMQ PUB endpoint.
    pub endpoint: String,
    /// ZeroMQ ROUTER endpoint for lost batches.
    pub replay_endpoint: Option<String>,
    /// Topic to subscribe with; empty means every topic.
    pub topic: String,
}

impl RawWorker {
    /// Checks every field; `gap_policy` is the server's setting for definitions that name none.
    ///
    /// # Errors
    /// The first field that is missing, malformed or contradicts another.
    pub fn check(self, gap_policy: GapPolicy) -> Result<WorkerDefinition, FieldError> {
        let id = WorkerId::new(self.worker_id.as_str())
            .map_err(|error| FieldError::new("worker_id", error.to_string()))?;
        let streams = self.sources()?;
        let spec = WorkerSpec {
            id,
            model: self.model,
            tenant: if self.tenant.is_empty() { DEFAULT_TENANT.into() } else { self.tenant },
            engine: word(
                "engine",
                &self.engine,
                &[("", EngineKind::Vllm), ("vllm", EngineKind::Vllm), ("sglang", EngineKind::Sglang)],
            )?,
            engine_version: present(self.engine_version),
            address: present(self.address),
            pod: self.pod,
            service: present(self.service),
            role: present(self.role),
            pd_group: present(self.pd_group),
            labels: self.labels,
            copies: word(
                "copies",
                &self.copies,
                &[("", CopyPolicy::Count), ("count", CopyPolicy::Count), ("set", CopyPolicy::Set)],
            )?,
        };
        spec.validate().map_err(|error| FieldError::new(name_field(&error), error.to_string()))?;
        let policies =
            [("", gap_policy), ("purge", GapPolicy::Purge), ("keep_as_suspect", GapPolicy::KeepAsSuspect)];
        let gap_policy = word("gap_policy", &self.gap_policy, &policies)?;
        Ok(WorkerDefinition { spec, streams, gap_policy })
    }

    fn sources(&self) -> Result<Vec<StreamSource>, FieldError> {
        let sources = match (self.streams.is_empty(), self.endpoint.is_empty()) {
            (false, false) => {
                let message = "give either streams, or endpoint with data_parallel_size, not both";
                return Err(FieldError::new("endpoint", message));
            }
            (false, true) => self.listed_sources()?,
            (true, false) => self.computed_sources()?,
            (true, true) if !self.replay_endpoint.is_empty() => {
                return Err(FieldError::new("replay_endpoint", "needs endpoint"));
            }
            (true, true) if self.data_parallel_size > 1 => {
                return Err(FieldError::new("data_parallel_size", "needs endpoint"));
            }
            (true, true) => Vec::new(),
        };
        Ok(sources)
    }

    fn listed_sources(&self) -> Result<Vec<StreamSource>, FieldError> {
        let (mut ranks, mut taken) = (BTreeSet::new(), BTreeMap::new());
        let mut sources = Vec::with_capacity(self.streams.len());
        for (i, stream) in self.streams.iter().enumerate() {
            let field = |name: &str| format!("streams[{i}].{name}");
            if stream.dp_rank >= MAX_DP_RANKS {
                let message = format!("is {}, the limit is {}", stream.dp_rank, MAX_DP_RANKS - 1);
                return Err(FieldError::new(field("dp_rank"), message));
            }
            if !ranks.insert(stream.dp_rank) {
                let message = format!("rank {} is listed twice", stream.dp_rank);
                return Err(FieldError::new(field("dp_rank"), message));
            }
            let named = [("endpoint", &stream.endpoint), ("replay_endpoint", &stream.replay_endpoint)];
            for (name, endpoint) in named {
                if name == "replay_endpoint" && endpoint.is_empty() {
                    continue;
                }
                Endpoint::parse(endpoint).map_err(|message| FieldError::new(field(name), message))?;
                if let Some(other) = taken.insert(endpoint.clone(), field(name)) {
                    let message = format!("{endpoint} is also {other}");
                    return Err(FieldError::new(field(name), message));
                }
            }
            sources.push(StreamSource {
                dp_rank: DpRank(stream.dp_rank),
                endpoint: stream.endpoint.clone(),
                replay_endpoint: present(Some(stream.replay_endpoint.clone())),
                topic: stream.topic.clone(),
            });
        }
        sources.sort_by_key(|source| source.dp_rank);
        Ok(sources)
    }

    /// vLLM's rule: rank n publishes on port + n and replays on port + n.
    fn computed_sources(&self) -> Result<Vec<StreamSource>, FieldError> {
        let ranks = self.data_parallel_size.max(1);
        if ranks > MAX_DP_RANKS {
            let message = format!("is {ranks}, the limit is {MAX_DP_RANKS}");
            return Err(FieldError::new("data_parallel_size", message));
        }
        let spread = |field: &'static str, text: &str| {
            let base = Endpoint::parse(text).map_err(|message| FieldError::new(field, message))?;
            endpoints::spread(&base, ranks).map_err(|message| FieldError::new(field, message))
        };
        let publish = spread("endpoint", &self.endpoint)?;
        let replay = match self.replay_endpoint.as_str() {
            "" => Vec::new(),
            text => spread("replay_endpoint", text)?,
        };
        if let Some(shared) = publish.iter().find(|endpoint| replay.contains(endpoint)) {
            let message = format!(
                "{shared} is in both port ranges, publishing {} to {} and replaying {} to {}: keep the first \
                 ports at least data_parallel_size ({ranks}) apart",
                publish[0],
                publish[publish.len() - 1],
                replay[0],
                replay[replay.len() - 1],
            );
            return Err(FieldError::new("replay_endpoint", message));
        }
        let mut replay = replay.into_iter();
        let sources = (0..).zip(publish).map(|(rank, endpoint)| StreamSource {
            dp_rank: DpRank(rank),
            endpoint,
            replay_endpoint: replay.next(),
            topic: self.topic.clone(),
        });
        Ok(sources.collect())
    }
}

impl WorkerDefinition {
    /// What `other` says differently, one sentence a field; empty when both are equal.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let as_map = |definition: &Self| match serde_json::to_value(definition) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (as_map(self), as_map(other));
        let differing = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(value));
        differing
            .map(|(key, value)| {
                let new = theirs.get(key).unwrap_or(&serde_json::Value::Null);
                format!("{key} is {value}, not {new}")
            })
            .collect()
    }

    /// Whether blocks learned under this definition mean the same under `other`.
    #[must_use]
    pub fn keeps_blocks_of(&self, other: &Self) -> bool {
        let identity = |definition: &Self| {
            let spec = &definition.spec;
            (
                spec.model.clone(),
                spec.tenant.clone(),
                spec.engine,
                spec.engine_version.clone(),
                spec.copies,
                definition.streams.clone(),
            )
        };
        identity(self) == identity(other)
    }
}

/// An empty text means absent.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn word<T: Copy>(field: &str, text: &str, words: &[(&str, T)]) -> Result<T, FieldError> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
        FieldError::new(field, format!("is {text:?}, must be one of {}", known.join(", ")))
    })
}

fn name_field(error: &kvindex_core::NameError) -> &'static str {
    use kvindex_core::NameError::{ControlCharacter, Empty, TooLong};
    match error {
        Empty { field } | TooLong { field, .. } | ControlCharacter { field } => match *field {
            "label key" | "label value" => "labels",
            field => field,
        },
    }
}

#[cfg(test)]
#[path = "workers_test.rs"]
mod tests;
