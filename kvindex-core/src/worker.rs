//! What is known of a worker: where it is, what it serves, how its hashes are made.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::{ClearPolicy, EngineKind, EngineProfile, GroupSpec, HiddenIdentity, gcd};
use crate::event::BlockStored;
use crate::ids::{NameError, WorkerId, check_name};

/// Tenant of workers and queries that name none.
pub const DEFAULT_TENANT: &str = "default";

/// A registered worker. All of it but the id may be absent; an answer carries what is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// Identity.
    pub id: WorkerId,
    /// Model name that queries use.
    pub model: String,
    /// Tenant.
    pub tenant: String,
    /// Which engine.
    pub engine: EngineKind,
    /// Engine release such as `0.33.0`; sharpens what the wire leaves open.
    pub engine_version: Option<String>,
    /// Address of the serving endpoint, `ip:port` or `[ip]:port`: what a router sends requests to.
    pub address: Option<String>,
    /// Kubernetes pod, as namespace, name, UID.
    pub pod: Option<PodRef>,
    /// Kubernetes service or the like.
    pub service: Option<String>,
    /// `prefill`, `decode` or `aggregate`.
    pub role: Option<String>,
    /// Prefill-decode group.
    pub pd_group: Option<String>,
    /// Free labels for filters.
    pub labels: BTreeMap<String, String>,
    /// How repeated stores of one block count.
    pub copies: CopyPolicy,
    /// KV-cache groups of a hybrid model, for engines that do not announce what kind their groups are (vLLM
    /// 0.20 and 0.21); empty: learned from the events.
    #[serde(default)]
    pub groups: Vec<GroupSpec>,
    /// What AllBlocksCleared clears.
    #[serde(default)]
    pub cleared: ClearPolicy,
    /// Whether requests may carry what the events do not show.
    #[serde(default)]
    pub hidden_identity: HiddenIdentity,
    /// Blocks that an offload tier moves and uses only together; `None`: learned from the events.
    #[serde(default)]
    pub offload_chunk: Option<u32>,
}

/// A Kubernetes pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID, which unlike the name is never used again.
    pub uid: String,
}

/// Whether an engine announces each physical copy of a block, or each block once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyPolicy {
    /// Every store adds a copy, every removal takes one: what vLLM and SGLang do today.
    #[default]
    Count,
    /// A block is there or not.
    Set,
}

impl WorkerSpec {
    /// A worker with defaults for all but its id and model.
    #[must_use]
    pub fn new(id: WorkerId, model: impl Into<String>) -> Self {
        Self {
            id,
            model: model.into(),
            tenant: DEFAULT_TENANT.into(),
            engine: EngineKind::default(),
            engine_version: None,
            address: None,
            pod: None,
            service: None,
            role: None,
            pd_group: None,
            labels: BTreeMap::new(),
            copies: CopyPolicy::default(),
            groups: Vec::new(),
            cleared: ClearPolicy::default(),
            hidden_identity: HiddenIdentity::default(),
            offload_chunk: None,
        }
    }

    /// Checks every name.
    ///
    /// # Errors
    /// The first name that is empty, too long or holds control characters.
    pub fn validate(&self) -> Result<(), NameError> {
        check_name("model", &self.model)?;
        check_name("tenant", &self.tenant)?;
        let optional = [
            ("engine_version", &self.engine_version),
            ("address", &self.address),
            ("service", &self.service),
            ("role", &self.role),
            ("pd_group", &self.pd_group),
        ];
        for (field, value) in optional {
            if let Some(value) = value {
                check_name(field, value)?;
            }
        }
        for (key, value) in &self.labels {
            check_name("label key", key)?;
            if !value.is_empty() {
                check_name("label value", value)?;
            }
        }
        Ok(())
    }

    /// What decoding and hashing need to know of the engine.
    #[must_use]
    pub fn profile(&self) -> EngineProfile {
        EngineProfile {
            kind: self.engine,
            version: self.version(),
            cleared: self.cleared,
            hash_unit: (!self.groups.is_empty())
                .then(|| self.groups.iter().fold(0, |unit, group| gcd(unit, group.block_size))),
        }
    }

    /// The engine's release as (major, minor, patch), when it is known and starts with two numbers.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32, u32)> {
        self.engine_version.as_deref().and_then(parse_version)
    }
}

/// Reads `0.33.0`, `v0.5.4.post1` or `0.11` as numbers; `None` when it does not start with two.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.trim_start_matches('v').split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u32>().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// What a block's identity holds besides tokens, as far as this engine's events show it. Part of the
/// namespace: two engines whose blocks are identified differently never share a chain by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct HashScheme {
    /// Whether cache salts are visible.
    pub salt: bool,
    /// How multimodal items are visible.
    pub items: ItemForm,
    /// How many tokens after a block its identity covers (speculative decoding), usually 0.
    pub lookahead: u8,
    /// Whether the engine hashes a block's content alone, without its prefix (SGLang before 0.5.6).
    pub content_only: bool,
}

/// How an engine's events show the images of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum ItemForm {
    /// Not at all: equal placeholder tokens of different images look alike.
    #[default]
    Hidden,
    /// By the item's hash alone (vLLM 0.17 and 0.18).
    Bare,
    /// By the item's hash and its offset from the block's start (vLLM 0.19 and later).
    WithOffset,
}

impl HashScheme {
    /// The scheme that one event's shape and the engine's release imply.
    #[must_use]
    pub fn of_event(engine: &EngineProfile, event: &BlockStored) -> Self {
        let lookahead = event.lookahead.first().map_or(0, |t| u8::try_from(t.len()).unwrap_or(u8::MAX));
        match engine.kind {
            EngineKind::Vllm => {
                let bare = matches!(engine.version, Some((0, 17 | 18, _)));
                let items = match (event.carries_extra_keys, bare) {
                    (false, _) => ItemForm::Hidden,
                    (true, true) => ItemForm::Bare,
                    (true, false) => ItemForm::WithOffset,
                };
                Self { salt: event.carries_extra_keys, items, lookahead, content_only: false }
            }
            EngineKind::Sglang => Self {
                salt: engine.version.is_none_or(|v| v >= (0, 5, 18)),
                items: ItemForm::Hidden,
                lookahead,
                content_only: engine.hashes_content(),
            },
        }
    }
}

/// Where equal prompts mean equal blocks: nothing ever matches across namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Model.
    pub model: Arc<str>,
    /// LoRA adapter.
    pub lora: Option<Arc<str>>,
    /// Tokens a block.
    pub block_size: u32,
    /// What identifies a block.
    pub scheme: HashScheme,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_leniently() {
        assert_eq!(parse_version("0.33.0"), Some((0, 33, 0)));
        assert_eq!(parse_version("v0.5.4.post1"), Some((0, 5, 4)));
        assert_eq!(parse_version("0.11rc1"), Some((0, 11, 0)));
        assert_eq!(parse_version("nightly"), None);
    }
}
