//! The header of a recording: which engines of which version spoke, and how their caches are cut.
//!
//! Headers grew with the recorder, so absent keys get a default and unknown keys are ignored.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};

/// What the recorder wrote about a case.
#[derive(Debug, Clone, Deserialize)]
pub struct Header {
    /// Name of the case, the key of [`Bar::of`](crate::Bar::of).
    pub case: String,
    /// One line about the story of the case.
    #[serde(default)]
    pub note: String,
    /// The engine software whose events these are.
    pub engine: EngineKind,
    /// The engine's release.
    pub version: Version,
    /// Seed of the token rule; only cases with generated prompts have one.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Tokens per hash id of the token rule; only cases with generated prompts have one.
    #[serde(default)]
    pub chunk: Option<u32>,
    /// The engines, at their index.
    pub engines: Vec<EngineHeader>,
}

impl Header {
    /// From this release on, events say the kind and window of each KV-cache group.
    pub const VLLM_NAMES_GROUP_KINDS: Version = Version { major: 0, minor: 22, patch: 0 };

    /// Whether an operator must say what the KV-cache groups are, because there are several and the events do
    /// not tell their kinds.
    pub fn hides_group_kinds(&self) -> bool {
        let old = self.engine == EngineKind::Vllm && self.version < Self::VLLM_NAMES_GROUP_KINDS;
        old && self.engines.iter().any(|engine| engine.groups.len() > 1)
    }

    /// Blocks that the CPU tier can only use together, where the case has such a tier. The recorder wrote this
    /// setting (`blocks_per_chunk`) into the note and nowhere else.
    pub fn offload_chunk(&self) -> Option<u32> {
        let (_, rest) = self.note.split_once("blocks_per_chunk=")?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    }
}

/// The engine software a recording comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
        })
    }
}

/// A release of an engine; ordered, because the meaning of events changed between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, 0 where the text has none.
    pub patch: u32,
}

impl Version {
    /// Parses `0.33.0`; a suffix such as `rc1` or `.post2` is ignored. `None` unless it starts with two numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end)?.parse::<u32>().ok()
        });
        Some(Self {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next().flatten().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("version {text:?} does not start with MAJOR.MINOR"))
        })
    }
}

/// One engine of a recording.
#[derive(Debug, Clone, Deserialize)]
pub struct EngineHeader {
    /// Its place in [`Header::engines`] and in every record and answer.
    pub index: u32,
    /// Its name in the recording; unique within a case.
    pub name: String,
    /// The topic it publishes under; may be empty, and DP ranks of one server share one.
    #[serde(default)]
    pub topic: String,
    /// Its data-parallel rank.
    #[serde(default)]
    pub dp_rank: u32,
    /// Tokens per block (SGLang: per page).
    pub block_size: u32,
    /// Tokens per block hash, the granularity of the truth's hashes; absent means `block_size`.
    #[serde(default)]
    hash_block_size: Option<u32>,
    /// Tokens per block as the scheduler aligns hits; absent means `block_size`.
    #[serde(default)]
    scheduler_block_size: Option<u32>,
    /// Blocks of the cache, vLLM's null block included; SGLang gives `capacity_tokens` instead.
    #[serde(default)]
    pub num_blocks: Option<u64>,
    /// Tokens the cache can hold (SGLang only).
    #[serde(default)]
    pub capacity_tokens: Option<u64>,
    /// The engine's block hash algorithm (vLLM only).
    #[serde(default)]
    pub hash_algo: Option<String>,
    /// The parent hash of a first block (vLLM only).
    #[serde(default, deserialize_with = "hex_bytes")]
    pub none_hash: Option<Vec<u8>>,
    /// How many tokens behind a block its hash covers too (EAGLE/MTP); 0 for almost all engines.
    #[serde(default)]
    pub lookahead: u32,
    /// KV-cache groups; more than one only in hybrid models.
    #[serde(default)]
    pub groups: Vec<GroupHeader>,
    /// LoRA name by the query's `extra_key` (SGLang only).
    #[serde(default)]
    pub lora_names: BTreeMap<String, String>,
    /// Whether SGLang published in its "dynamo" format.
    #[serde(default)]
    pub dynamo_format: bool,
}

impl EngineHeader {
    /// Tokens per block hash.
    pub fn hash_block_size(&self) -> u32 {
        self.hash_block_size.unwrap_or(self.block_size)
    }

    /// Tokens per block as the scheduler aligns hits.
    pub fn scheduler_block_size(&self) -> u32 {
        self.scheduler_block_size.unwrap_or(self.block_size)
    }
}

/// One KV-cache group of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupHeader {
    /// The engine's name of the spec, e.g. `FullAttentionSpec`, `SlidingWindowSpec`, `MambaSpec`, `radix`.
    pub kind: String,
    /// Tokens per block of this group.
    pub block_size: u32,
    /// Window in tokens, where the group has one.
    #[serde(default)]
    pub sliding_window: Option<u32>,
}

impl GroupHeader {
    /// The group's kind in the word that events use since vLLM 0.22 (`kv_cache_spec_kind`); `None` for a spec
    /// that has no such word.
    pub fn event_kind(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "FullAttentionSpec" | "radix" => Some("full_attention"),
            "SlidingWindowSpec" => Some("sliding_window"),
            "MambaSpec" => Some("mamba"),
            _ => None,
        }
    }
}

fn hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    decode_hex(&text)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not hexadecimal")))
}

/// Bytes of an even number of hexadecimal digits; `None` for anything else.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    // from_str_radix takes a sign, which is no digit here.
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
