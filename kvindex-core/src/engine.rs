//! What is known of an engine beyond its events: which one it is, and what an operator says where the wire
//! is silent.

use serde::{Deserialize, Serialize};

use crate::ids::Group;

/// Which engine speaks on a stream: decides what its events mean where the wire does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// vLLM and its derivatives.
    #[default]
    Vllm,
    /// SGLang.
    Sglang,
}

/// What turning an engine's events into changes needs to know, see
/// [`EventBatch::seal`](crate::EventBatch::seal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineProfile {
    /// Which engine.
    pub kind: EngineKind,
    /// Release as (major, minor, patch), when the registration names it.
    pub version: Option<(u32, u32, u32)>,
    /// What the engine clears when it says that it cleared everything.
    pub cleared: ClearPolicy,
    /// Tokens that one of a hybrid model's hashes covers, when the registration names its groups: the
    /// greatest common divisor of their block sizes.
    pub hash_unit: Option<u32>,
}

impl EngineProfile {
    /// Whether requests to such an engine can carry something that its events never show: SGLang's `extra_key`;
    /// with an adapter, the path that its name stands for (in vLLM's hashes since 0.31).
    pub(crate) fn hides_identity(&self, adapter: bool) -> bool {
        match self.kind {
            EngineKind::Sglang => true,
            EngineKind::Vllm => adapter && self.version.is_none_or(|version| version >= (0, 31, 0)),
        }
    }

    /// Whether the engine names blocks by their content alone, without their prefix (SGLang before 0.5.6).
    #[must_use]
    pub fn hashes_content(&self) -> bool {
        self.kind == EngineKind::Sglang && self.version.is_some_and(|version| version < (0, 5, 6))
    }
}

/// What AllBlocksCleared means: it names no medium. vLLM sends it when the device's cache was reset; whether
/// the tiers behind it were reset too, nothing says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClearPolicy {
    /// Device memory alone.
    #[default]
    Device,
    /// Every tier of the stream.
    AllTiers,
}

/// Whether requests to an engine may carry what its events do not show: SGLang's `extra_key`, salts and images
/// before vLLM 0.17, an adapter name that is loaded from another path (vLLM 0.31 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenIdentity {
    /// They may: answers by tokens that could be wrong for it are marked.
    #[default]
    Possible,
    /// The operator says that they do not.
    Unused,
}

/// What a KV-cache group of a hybrid model needs of a prefix to go on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// Every block of the prefix.
    Full,
    /// The blocks that the window still reaches into.
    SlidingWindow,
    /// The state at the prefix's end.
    Mamba,
    /// Something this version does not know; taken as [`Full`](Self::Full), which never promises too much.
    Other,
}

impl GroupKind {
    /// Reads `kv_cache_spec_kind` as vLLM announces it (0.22 and later).
    #[must_use]
    pub fn from_wire(kind: &str) -> Self {
        match kind {
            "full_attention" | "mla_attention" | "sink_full_attention" => Self::Full,
            "sliding_window" | "sliding_window_mla" => Self::SlidingWindow,
            "mamba" => Self::Mamba,
            _ => Self::Other,
        }
    }
}

/// One KV-cache group of a hybrid model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Which.
    pub group: Group,
    /// What it needs of a prefix.
    pub kind: GroupKind,
    /// Tokens a block.
    pub block_size: u32,
    /// Tokens that a sliding window reaches back; nothing for other kinds.
    pub sliding_window: Option<u32>,
}

/// Greatest common divisor; 0 stands for nothing.
pub(crate) fn gcd<T: Copy + Default + PartialEq + std::ops::Rem<Output = T>>(a: T, b: T) -> T {
    if b == T::default() { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors() {
        assert_eq!([gcd(0, 16), gcd(16, 0), gcd(32, 48), gcd(64, 16)], [16, 16, 16, 16]);
    }
}
