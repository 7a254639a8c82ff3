//! Mirrors: from a prompt to the block hashes that an engine itself computes for it, so that a caller who holds
//! engine hashes can ask by them, and a node can tell whether an engine hashes as its operator says.
//!
//! Answers do not rest on mirrors: the index chains hashes of its own from the tokens that events carry, which
//! needs no engine's seed, algorithm or release (see [`SequenceHash`](crate::SequenceHash)).
//!
//! ```
//! use kvindex_core::mirror::{HashProfile, MirrorPrompt};
//! let vllm = HashProfile::parse("sha256", None, None, Some((0, 33, 0)))?;
//! let tokens: Vec<u64> = (1000..1020).collect();
//! let hashes = vllm.block_hashes(&MirrorPrompt::tokens(&tokens), 16)?;
//! assert_eq!(hashes.len(), 1); // the last four tokens fill no block
//! assert_eq!(
//!     hashes[0].digest.to_string(),
//!     "9d9c413731095d0ee811a14814414907cafccd751ce2052f659e8e1f547aeb68"
//! );
//! assert_eq!(hashes[0].wire.0, 7322446309363477352);
//! # Ok::<(), kvindex_core::mirror::MirrorError>(())
//! ```

mod cbor;
mod compare;
mod digest;
mod pickle;
mod profile;
mod sglang;
mod value;
mod vllm;

pub use compare::{Comparison, Difference};
pub use digest::Digest;
pub use sglang::{SglangFormat, SglangProfile};
pub use vllm::{FIXED_SEED, KeyForm, RepeatedItems, VllmAlgorithm, VllmProfile};

use crate::hash::EngineBlockHash;

/// What is wrong with a profile or a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct MirrorError {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, with the limit or the accepted values.
    pub message: String,
}

/// How an engine hashes its blocks. Made by [`HashProfile::parse`], or field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashProfile {
    /// vLLM, 0.10.2 and later.
    Vllm(VllmProfile),
    /// SGLang, 0.5.6 and later.
    Sglang(SglangProfile),
}

/// A prompt with all that an engine may put into its hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MirrorPrompt<'a> {
    /// Token ids; SGLang's placeholders for images can be wider than 32 bits.
    pub tokens: &'a [u64],
    /// The LoRA adapter. For SGLang: that a name is registered for the extra key.
    pub lora: Option<MirrorLora<'a>>,
    /// The request's cache salt; empty means none, as to the engines.
    pub cache_salt: Option<&'a str>,
    /// Multimodal items by offset, none overlapping another (vLLM).
    pub items: &'a [MirrorItem<'a>],
    /// For each block of a prompt given as embeddings, SHA-256 of its slice of the tensor; before 0.17 the
    /// slice itself (vLLM 0.12 and later).
    pub prompt_embeds: &'a [&'a [u8]],
    /// SGLang's extra key: the adapter's id, or a namespace of the caller's.
    pub extra_key: Option<&'a str>,
}

/// A LoRA adapter; which of it is hashed depends on the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorLora<'a> {
    /// Its name (from 0.12 on).
    pub name: &'a str,
    /// Its number in the engine (before 0.12).
    pub id: Option<i64>,
    /// Where the engine loaded it from (from 0.31 on).
    pub path: Option<&'a str>,
}

/// A multimodal item of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorItem<'a> {
    /// The engine's hash of its content.
    pub identifier: &'a str,
    /// Its first placeholder token.
    pub offset: usize,
    /// How many placeholder tokens it has.
    pub length: usize,
}

/// One block's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorHash {
    /// All of it: what the next block's hash is chained from, and what vLLM announces as bytes.
    pub digest: Digest,
    /// What events show of it.
    pub wire: EngineBlockHash,
}

impl<'a> MirrorPrompt<'a> {
    /// A prompt of tokens alone.
    #[must_use]
    pub fn tokens(tokens: &'a [u64]) -> Self {
        Self { tokens, ..Self::default() }
    }

    fn check(&self) -> Result<(), MirrorError> {
        let bad = |message| Err(MirrorError { field: "items", message });
        let mut end = 0;
        for (i, item) in self.items.iter().enumerate() {
            if item.offset < end {
                return bad(format!("item {i} begins at {}, but the one before ends at {end}", item.offset));
            }
            end = item.offset.saturating_add(item.length);
        }
        if end > self.tokens.len() {
            return bad(format!("the last ends at {end}, but the prompt has {} tokens", self.tokens.len()));
        }
        Ok(())
    }
}

impl HashProfile {
    /// The engine's hashes of the prompt's blocks, first to last; blocks that the engine would not hash (the
    /// partial last one, one without its lookahead tokens) are left out.
    ///
    /// # Errors
    /// A block size of 0, items out of order or beyond the prompt, or a part of the adapter missing that the
    /// release hashes; the error names the field.
    pub fn block_hashes(
        &self,
        prompt: &MirrorPrompt<'_>,
        block_size: usize,
    ) -> Result<Vec<MirrorHash>, MirrorError> {
        if block_size == 0 {
            return Err(MirrorError { field: "block_size", message: "is 0, at least 1 is needed".into() });
        }
        prompt.check()?;
        match self {
            Self::Vllm(profile) => profile.block_hashes(prompt, block_size),
            Self::Sglang(profile) => Ok(profile.block_hashes(prompt, block_size)),
        }
    }
}
