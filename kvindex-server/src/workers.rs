//! A worker's definition: what an operator writes, in the configuration file or in a register call, and the
//! checked form the node keeps. One definition and one check for both ways in.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use kvindex_core::limits::MAX_BLOCK_SIZE;
use kvindex_core::{
    ClearPolicy, CopyPolicy, DEFAULT_TENANT, DpRank, EngineKind, GapPolicy, HiddenIdentity, PodRef, WorkerId,
    WorkerSpec,
};

use crate::hash_profile::RawHashProfile;
use crate::kv_groups::{self, RawGroup};
use crate::sources;

/// Label that holds the block size, in tokens, that other indexers' registrations tell: a definition has no field for it,
/// because a worker's own events say it.
pub(crate) const BLOCK_SIZE_LABEL: &str = "kvindex.io/block-size";

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
    pub groups: Vec<RawGroup>,
    pub cleared: String,
    pub hidden_identity: String,
    pub offload_chunk: u32,
    pub hash_profile: Option<RawHashProfile>,
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
    /// How its engine is said to hash blocks, to be checked against what it announces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_profile: Option<RawHashProfile>,
}

/// Where one data-parallel rank publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSource {
    /// The rank.
    pub dp_rank: DpRank,
    /// ZeroMQ PUB endpoint: the engine's, or one that kvindex binds for the engine to connect to (`tcp://*:port`,
    /// `bind+tcp://address:port`).
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
            groups: kv_groups::check(&self.groups)?,
            cleared: word("cleared", &self.cleared, &CLEAR_POLICIES)?,
            hidden_identity: word("hidden_identity", &self.hidden_identity, &HIDDEN_IDENTITIES)?,
            offload_chunk: offload_chunk(self.offload_chunk)?,
        };
        spec.validate().map_err(|error| FieldError::new(name_field(&error), error.to_string()))?;
        let policies =
            [("", gap_policy), ("purge", GapPolicy::Purge), ("keep_as_suspect", GapPolicy::KeepAsSuspect)];
        let gap_policy = word("gap_policy", &self.gap_policy, &policies)?;
        let hash_profile = self.hash_profile.and_then(RawHashProfile::present);
        if let Some(profile) = &hash_profile {
            profile.of(&spec)?;
        }
        Ok(WorkerDefinition { spec, streams, gap_policy, hash_profile })
    }

    fn sources(&self) -> Result<Vec<StreamSource>, FieldError> {
        let sources = match (self.streams.is_empty(), self.endpoint.is_empty()) {
            (false, false) => {
                let message = "give either streams, or endpoint with data_parallel_size, not both";
                return Err(FieldError::new("endpoint", message));
            }
            (false, true) => sources::listed(&self.streams)?,
            (true, false) => {
                let ranks = self.data_parallel_size.max(1);
                sources::computed(&self.endpoint, &self.replay_endpoint, &self.topic, ranks)?
            }
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
}

impl WorkerDefinition {
    /// The block size, in tokens, that it was registered with through another indexer's call, see [`BLOCK_SIZE_LABEL`].
    /// A label that is no block size, which a native call may have set, says nothing.
    pub(crate) fn told_block_size(&self) -> Option<u32> {
        let size = self.spec.labels.get(BLOCK_SIZE_LABEL)?.parse().ok();
        size.filter(|size| (1..=MAX_BLOCK_SIZE).contains(size))
    }

    /// What `other` says differently, one sentence a field; empty when both are equal.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let as_map = |definition: &Self| match serde_json::to_value(definition) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (as_map(self), as_map(other));
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let differing = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
        differing
            .map(|key| {
                let value = |map: &serde_json::Map<String, _>| map.get(key).cloned().unwrap_or_default();
                let (old, new): (serde_json::Value, _) = (value(&ours), value(&theirs));
                format!("{key} is {old}, not {new}")
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
                (spec.copies, spec.cleared, spec.groups.clone()),
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

const CLEAR_POLICIES: [(&str, ClearPolicy); 3] =
    [("", ClearPolicy::Device), ("device", ClearPolicy::Device), ("all_tiers", ClearPolicy::AllTiers)];

const HIDDEN_IDENTITIES: [(&str, HiddenIdentity); 3] = [
    ("", HiddenIdentity::Possible),
    ("possible", HiddenIdentity::Possible),
    ("unused", HiddenIdentity::Unused),
];

/// Largest chunk, in blocks: vLLM's are a handful; this only keeps nonsense out.
const MAX_OFFLOAD_CHUNK: u32 = 4096;

fn offload_chunk(blocks: u32) -> Result<Option<u32>, FieldError> {
    if blocks > MAX_OFFLOAD_CHUNK {
        let message = format!("is {blocks} blocks, the limit is {MAX_OFFLOAD_CHUNK}");
        return Err(FieldError::new("offload_chunk", message));
    }
    Ok(Some(blocks).filter(|blocks| *blocks > 0))
}

pub(crate) fn word<T: Copy>(field: &str, text: &str, words: &[(&str, T)]) -> Result<T, FieldError> {
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
