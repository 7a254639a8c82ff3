//! A prompt as a hash for each prefix, block by block. Hashes of this client alone: they are compared with each other
//! and with nothing that a node or an engine says.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use kvindex_proto::v1;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a token id.
const TOKEN: usize = 4;

/// Bytes of a block's hash.
const HASH: usize = 8;

/// A prompt's blocks, before it is known how long one is.
#[derive(Debug)]
pub(super) enum Blocks {
    /// Token ids, as little-endian bytes.
    Tokens(Vec<u8>),
    /// Tokens as the question holds them.
    Packed(Bytes),
    /// Hashes of blocks of so many tokens, as bytes.
    Hashes(Vec<u8>, u32),
}

impl Blocks {
    pub(super) fn of(prompt: &v1::Prompt) -> Self {
        let bytes = |hashes: &[u64]| hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        if !prompt.sequence_hashes.is_empty() {
            Self::Hashes(bytes(&prompt.sequence_hashes), prompt.block_size)
        } else if !prompt.engine_block_hashes.is_empty() {
            Self::Hashes(bytes(&prompt.engine_block_hashes), prompt.block_size)
        } else if !prompt.token_ids.is_empty() {
            Self::Tokens(prompt.token_ids.iter().flat_map(|token| token.to_le_bytes()).collect())
        } else {
            // Shares the bytes.
            Self::Packed(prompt.token_ids_le.clone())
        }
    }

    /// A hash for each prefix of whole blocks; none for a worker whose blocks are of another size than the hashes'.
    pub(super) fn chain(&self, block_size: u32) -> Vec<u64> {
        let tokens = usize::try_from(block_size).unwrap_or(usize::MAX);
        let (bytes, block) = match self {
            Self::Tokens(bytes) => (bytes.as_slice(), tokens.saturating_mul(TOKEN)),
            Self::Packed(bytes) => (&**bytes, tokens.saturating_mul(TOKEN)),
            Self::Hashes(bytes, of) if *of == block_size => (bytes.as_slice(), HASH),
            Self::Hashes(..) => return Vec::new(),
        };
        if block_size == 0 {
            return Vec::new();
        }
        let next = |hash: &mut u64, block: &[u8]| {
            *hash = xxh3_64_with_seed(block, *hash);
            Some(*hash)
        };
        bytes.chunks_exact(block).scan(0, next).collect()
    }
}

/// Blocks that two prompts have in common, from the first.
pub(super) fn common(one: &[u64], other: &[u64]) -> usize {
    // Each hash is of the whole prefix: once they differ they never meet again.
    let (mut same, mut differ) = (0, one.len().min(other.len()) + 1);
    while differ - same > 1 {
        let middle = usize::midpoint(same, differ);
        if one.get(middle - 1) == other.get(middle - 1) { same = middle } else { differ = middle }
    }
    same
}

/// What two prompts must share besides their blocks.
pub(super) fn space(prompt: &v1::Prompt) -> u64 {
    let mut hasher = DefaultHasher::new();
    let tenant = if prompt.tenant.is_empty() { "default" } else { &prompt.tenant };
    (&prompt.model, tenant, &prompt.lora_name, &prompt.cache_salt).hash(&mut hasher);
    (prompt.sequence_hashes.is_empty(), prompt.engine_block_hashes.is_empty()).hash(&mut hasher);
    for item in &prompt.items {
        (&item.identifier, item.offset, item.length).hash(&mut hasher);
    }
    hasher.finish()
}
