//! KV events as engines announce them, after decoding and before hashing: still with token ids, which
//! [`EventBatch::seal`] turns into hashes and drops.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::command::{Change, StoredRun};
use crate::hash::{BlockHasher, EngineBlockHash, ExtraKey, LocalBlockHash};
use crate::ids::{DpRank, Group, Tier};
use crate::worker::HashScheme;

/// One engine step's events, in the order the engine emitted them; the order matters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventBatch {
    /// The engine host's wall clock in milliseconds; 0 when unknown. Never used for ordering.
    pub engine_time_ms: u64,
    /// The rank the batch names itself; absent in old versions.
    pub dp_rank: Option<DpRank>,
    /// The events.
    pub events: Vec<KvEvent>,
}

/// One KV event. Names and meaning follow vLLM's `distributed/kv_events.py`.
#[derive(Debug, Clone, PartialEq)]
pub enum KvEvent {
    /// Blocks entered a cache.
    BlockStored(BlockStored),
    /// One physical copy of each named block left a cache.
    BlockRemoved(BlockRemoved),
    /// The cache was reset. The wire names no medium.
    AllBlocksCleared,
}

/// Blocks that entered a cache, as one chain below `parent`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BlockStored {
    /// Engine block hashes, first to last. May be empty or shorter than the tokens imply (hybrid models);
    /// then it is not known which blocks are meant.
    pub block_hashes: Vec<EngineBlockHash>,
    /// The block before the first one; `None` for the start of a prompt.
    pub parent: Option<EngineBlockHash>,
    /// Token ids of all blocks, `block_size` each; empty in placeholder events of offload tiers.
    pub token_ids: Vec<u32>,
    /// Tokens a block; 0 in placeholder events.
    pub block_size: u32,
    /// Where the copies lie.
    pub tier: Tier,
    /// LoRA adapter name.
    pub lora_name: Option<String>,
    /// Engine-local adapter number of versions that send no name (before vLLM 0.14).
    pub lora_id: Option<u64>,
    /// Whether this engine's events carry extra keys at all (vLLM 0.17 and later).
    pub carries_extra_keys: bool,
    /// Extra keys for each block, or nothing when no block has any.
    pub extra_keys: Vec<Vec<ExtraKey>>,
    /// SGLang's cache salt of the whole chain.
    pub cache_salt: Option<String>,
    /// For each block the tokens after it that its engine hash covers (vLLM 0.33 with speculative decoding).
    pub lookahead: Vec<Vec<u32>>,
    /// KV-cache group of a hybrid model.
    pub group: Group,
}

/// Blocks that left a cache: one physical copy each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BlockRemoved {
    /// Engine block hashes.
    pub block_hashes: Vec<EngineBlockHash>,
    /// Where the copies lay.
    pub tier: Tier,
    /// KV-cache group of a hybrid model.
    pub group: Group,
}

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

impl EventBatch {
    /// Hashes the tokens of every stored block and drops them: what comes out is all that the index, a log
    /// or a peer ever sees.
    #[must_use]
    pub fn seal(&self, engine: &EngineProfile, hasher: &mut BlockHasher) -> Vec<Change> {
        self.events.iter().map(|event| event.seal(engine, hasher)).collect()
    }
}

/// What is known of an engine beyond the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineProfile {
    /// Which engine.
    pub kind: EngineKind,
    /// Release as (major, minor, patch), when the registration names it.
    pub version: Option<(u32, u32, u32)>,
}

impl KvEvent {
    fn seal(&self, engine: &EngineProfile, hasher: &mut BlockHasher) -> Change {
        match self {
            Self::BlockStored(stored) => Change::Stored(stored.seal(engine, hasher)),
            Self::BlockRemoved(removed) => Change::Removed {
                tier: removed.tier.clone(),
                group: removed.group,
                hashes: removed.block_hashes.clone(),
            },
            Self::AllBlocksCleared => Change::Cleared { tier: Some(Tier::Device) },
        }
    }
}

impl BlockStored {
    fn seal(&self, engine: &EngineProfile, hasher: &mut BlockHasher) -> StoredRun {
        StoredRun {
            lora: self.lora().map(Arc::from),
            block_size: self.block_size,
            scheme: HashScheme::of_event(engine, self),
            tier: self.tier.clone(),
            group: self.group,
            parent: self.parent,
            engine_hashes: self.block_hashes.clone(),
            local_hashes: self.local_hashes(hasher),
        }
    }

    /// The adapter as it enters the namespace: its name, or `lora_id:N` where only the number is sent.
    fn lora(&self) -> Option<String> {
        self.lora_name.clone().or_else(|| self.lora_id.map(|id| format!("lora_id:{id}")))
    }

    /// Local hashes of all blocks, or none when the event does not say which tokens are whose.
    fn local_hashes(&self, hasher: &mut BlockHasher) -> Vec<LocalBlockHash> {
        let (size, blocks) = (self.block_size as usize, self.block_hashes.len());
        if size == 0 || self.token_ids.len() != size * blocks {
            return Vec::new();
        }
        if self.extra_keys.is_empty() && self.lookahead.is_empty() && self.cache_salt.is_none() {
            return self.token_ids.chunks_exact(size).map(|t| hasher.local(t, &[])).collect();
        }
        let chunks = self.token_ids.chunks_exact(size).enumerate();
        chunks.map(|(i, tokens)| hasher.local(tokens, &self.identity_of(i))).collect()
    }

    /// What besides its tokens makes block `i` itself: its extra keys without the adapter's name (that is
    /// the namespace's), the chain's salt on a first block, the lookahead.
    fn identity_of(&self, i: usize) -> Vec<ExtraKey> {
        let mut keys = self.extra_keys.get(i).cloned().unwrap_or_default();
        if let (Some(lora), Some(ExtraKey::Text(first))) = (&self.lora_name, keys.first())
            && lora == first
        {
            keys.remove(0);
        }
        if let (0, None, Some(salt)) = (i, self.parent, &self.cache_salt) {
            keys.push(ExtraKey::Text(salt.clone()));
        }
        if let Some(tokens) = self.lookahead.get(i).filter(|tokens| !tokens.is_empty()) {
            keys.push(ExtraKey::Lookahead(tokens.clone()));
        }
        keys
    }
}
