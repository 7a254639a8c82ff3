//! KV events as engines announce them, after decoding and before hashing: still with token ids, which
//! [`EventBatch::seal`] turns into hashes and drops.

use std::sync::Arc;

use crate::columns::Column;
use crate::command::{Change, Changes, StoredRun};
use crate::engine::{ClearPolicy, EngineProfile, GroupKind, gcd};
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
    /// What the group needs of a prefix (vLLM 0.22 and later).
    pub kind: Option<GroupKind>,
    /// Tokens that the group's sliding window reaches back.
    pub sliding_window: Option<u32>,
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

impl EventBatch {
    /// Hashes the tokens of every stored block and drops them: what comes out is all that the index, a log
    /// or a peer ever sees.
    ///
    /// Groups of a hybrid model may have blocks of different sizes; all are hashed in units of the greatest
    /// common divisor of the sizes in the batch, as vLLM itself does, so that they share one chain.
    #[must_use]
    pub fn seal(&self, engine: &EngineProfile, hasher: &mut BlockHasher) -> Changes {
        let sizes = self.events.iter().filter_map(|event| match event {
            KvEvent::BlockStored(stored) => Some(stored.block_size),
            KvEvent::BlockRemoved(_) | KvEvent::AllBlocksCleared => None,
        });
        let unit = sizes.fold(engine.hash_unit.unwrap_or(0), gcd);
        self.events.iter().map(|event| event.seal(engine, unit, hasher)).collect()
    }
}

impl KvEvent {
    fn seal(&self, engine: &EngineProfile, unit: u32, hasher: &mut BlockHasher) -> Change {
        match self {
            Self::BlockStored(stored) => Change::Stored(stored.seal(engine, unit, hasher)),
            Self::BlockRemoved(removed) => Change::Removed {
                tier: removed.tier.clone(),
                group: removed.group,
                hashes: removed.block_hashes.as_slice().into(),
            },
            Self::AllBlocksCleared => Change::Cleared {
                tier: match engine.cleared {
                    ClearPolicy::Device => Some(Tier::Device),
                    ClearPolicy::AllTiers => None,
                },
            },
        }
    }
}

impl BlockStored {
    fn seal(&self, engine: &EngineProfile, unit: u32, hasher: &mut BlockHasher) -> StoredRun {
        let stride = self.block_size.checked_div(unit).unwrap_or(1).max(1);
        StoredRun {
            lora: self.lora().map(Arc::from),
            block_size: self.block_size / stride,
            stride,
            scheme: HashScheme::of_event(engine, self),
            tier: self.tier.clone(),
            group: self.group,
            kind: self.kind,
            sliding_window: self.sliding_window,
            parent: self.parent,
            engine_hashes: self.block_hashes.as_slice().into(),
            local_hashes: self.local_hashes(stride as usize, hasher),
        }
    }

    /// The adapter as it enters the namespace: its name, or `lora_id:N` where only the number is sent.
    fn lora(&self) -> Option<String> {
        self.lora_name.clone().or_else(|| self.lora_id.map(|id| format!("lora_id:{id}")))
    }

    /// Local hashes of all the units that the tokens cover, `stride` a block; none when the event does not
    /// say which tokens are whose, or which block the extra keys belong to.
    fn local_hashes(&self, stride: usize, hasher: &mut BlockHasher) -> Column<LocalBlockHash> {
        let (size, hashes) = (self.block_size as usize, self.block_hashes.len());
        let whole = size > 0 && self.token_ids.len().is_multiple_of(size);
        if hashes == 0 || !whole || self.token_ids.len() / size < hashes {
            return Column::new();
        }
        let aligned = stride == 1 && self.token_ids.len() == size * hashes;
        let plain = self.lookahead.is_empty() && self.cache_salt.is_none();
        if plain && (self.extra_keys.is_empty() || !aligned) {
            if (0..self.extra_keys.len()).any(|i| !self.extra_keys_of(i).is_empty()) {
                return Column::new();
            }
            return self.token_ids.chunks_exact(size / stride).map(|t| hasher.local(t, &[])).collect();
        }
        if !aligned {
            return Column::new();
        }
        let chunks = self.token_ids.chunks_exact(size).enumerate();
        chunks.map(|(i, tokens)| hasher.local(tokens, &self.identity_of(i))).collect()
    }

    /// Extra keys of block `i` without the adapter's name, which is the namespace's.
    fn extra_keys_of(&self, i: usize) -> &[ExtraKey] {
        let keys = self.extra_keys.get(i).map_or(&[][..], Vec::as_slice);
        match (&self.lora_name, keys) {
            (Some(lora), [ExtraKey::Text(first), rest @ ..]) if lora == first => rest,
            _ => keys,
        }
    }

    /// What besides its tokens makes block `i` itself: its extra keys, the chain's salt on a first block, the
    /// lookahead.
    fn identity_of(&self, i: usize) -> Vec<ExtraKey> {
        let mut keys = self.extra_keys_of(i).to_vec();
        if let (0, None, Some(salt)) = (i, self.parent, &self.cache_salt) {
            keys.push(ExtraKey::Text(salt.clone()));
        }
        if let Some(tokens) = self.lookahead.get(i).filter(|tokens| !tokens.is_empty()) {
            keys.push(ExtraKey::Lookahead(tokens.clone()));
        }
        keys
    }
}
