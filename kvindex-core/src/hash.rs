//! Block hashes. The *local block hash* names one block's content, the *sequence hash* a block together
//! with everything before it, the *engine block hash* is the engine's own opaque name.
//!
//! The recipe is the one of the Mooncake indexer standard and of NVIDIA Dynamo, so hashes computed by their
//! callers are ours: local = XXH3-64 (seed 1337) over the token ids as little-endian `u32`; sequence = the
//! local hash for the first block, then XXH3-64 (seed 1337) over the 16 little-endian bytes
//! (parent sequence hash, local hash).

use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Seed of both hashes, fixed by the standard.
pub const HASH_SEED: u64 = 1337;

macro_rules! hash_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

hash_newtype! {
    /// Names one block's content: its tokens and extra keys, regardless of what comes before.
    LocalBlockHash
}
hash_newtype! {
    /// Names a block and its whole prefix. Equal sequence hashes in one namespace mean equal prompts up to
    /// the end of that block.
    SequenceHash
}
hash_newtype! {
    /// The engine's own name of a block, scoped to its owner: it finds the parent of a stored block and the
    /// target of a removal, nothing else. 64 bits: integers as they are (negative ones by their bits),
    /// byte strings by [`EngineBlockHash::from_bytes`].
    EngineBlockHash
}

impl EngineBlockHash {
    /// Folds a byte hash to its last 8 bytes, big-endian: vLLM's own rule for integer hashes, so one engine
    /// speaks the same hash in both forms. `None` for widths that no engine emits (under 8 or over 64
    /// bytes).
    ///
    /// ```
    /// use kvindex_core::EngineBlockHash;
    /// let digest = [0u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
    /// assert_eq!(EngineBlockHash::from_bytes(&digest), Some(EngineBlockHash(258)));
    /// assert_eq!(EngineBlockHash::from_bytes(&[1, 2]), None);
    /// ```
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > 64 {
            return None;
        }
        bytes.last_chunk::<8>().map(|tail| Self(u64::from_be_bytes(*tail)))
    }
}

/// One extra part of a block's identity, as engines put it into their own hashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExtraKey {
    /// A bare string: a cache salt, or an image in engines that send no offset.
    Text(String),
    /// An image or other multimodal item and the offset of its first token from the block's first.
    Item {
        /// The item's content hash, as the engine names it.
        identifier: String,
        /// Item start minus block start, in tokens; negative when it began in an earlier block.
        offset: i64,
    },
    /// Raw bytes: the digest of prompt embeddings.
    Bytes(Vec<u8>),
    /// The tokens after the block that the engine's hash covers (speculative decoding).
    Lookahead(Vec<u32>),
}

impl ExtraKey {
    /// Unambiguous encoding: a tag, then length-prefixed content.
    fn encode(&self, out: &mut Vec<u8>) {
        let mut sized = |tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Self::Text(text) => sized(1, text.as_bytes()),
            Self::Item { identifier, offset } => {
                sized(2, identifier.as_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Self::Bytes(bytes) => sized(3, bytes),
            Self::Lookahead(tokens) => {
                out.push(4);
                out.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
                tokens.iter().for_each(|t| out.extend_from_slice(&t.to_le_bytes()));
            }
        }
    }
}

/// Computes local block hashes, keeping one buffer so that hashing a prompt allocates nothing per block.
#[derive(Debug, Default)]
pub struct BlockHasher {
    bytes: Vec<u8>,
}

impl BlockHasher {
    /// A hasher with an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hash of one block's tokens and extra keys. Without extra keys this is exactly the standard's hash.
    ///
    /// ```
    /// use kvindex_core::{BlockHasher, LocalBlockHash};
    /// let hash = BlockHasher::new().local(&[1, 2, 3, 4], &[]);
    /// assert_eq!(hash, LocalBlockHash(14643705804678351452)); // Dynamo's published test vector
    /// ```
    pub fn local(&mut self, tokens: &[u32], extra: &[ExtraKey]) -> LocalBlockHash {
        self.bytes.clear();
        self.bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        for key in extra {
            key.encode(&mut self.bytes);
        }
        LocalBlockHash(xxh3_64_with_seed(&self.bytes, HASH_SEED))
    }
}

/// Hash of one block whose tokens already are little-endian bytes: the way in that copies nothing.
#[must_use]
pub fn local_hash_of_le_bytes(tokens: &[u8]) -> LocalBlockHash {
    LocalBlockHash(xxh3_64_with_seed(tokens, HASH_SEED))
}

impl SequenceHash {
    /// Sequence hash of a block after `parent`, or of a first block.
    #[must_use]
    pub fn chain(parent: Option<Self>, local: LocalBlockHash) -> Self {
        let Some(parent) = parent else {
            return Self(local.0);
        };
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&parent.0.to_le_bytes());
        bytes[8..].copy_from_slice(&local.0.to_le_bytes());
        Self(xxh3_64_with_seed(&bytes, HASH_SEED))
    }
}
