//! A prompt to ask about, built once and usable for any number of calls.

use kvindex_proto::v1;

/// A prompt by its token ids.
///
/// ```
/// use kvindex_client::PromptTokens;
///
/// let prompt = PromptTokens::new("llama", &[1, 2, 3]).tenant("acme").cache_salt("s").item("4f1c", 1, 2);
/// assert_eq!(prompt.message().token_ids_le.len(), 12);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PromptTokens {
    prompt: v1::Prompt,
}

/// A prompt by the hashes of its blocks.
///
/// ```
/// use kvindex_client::PromptHashes;
///
/// let prompt = PromptHashes::sequence("llama", 16, vec![0x4cf1, 0x77aa]);
/// assert_eq!(prompt.message().block_size, 16);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PromptHashes {
    prompt: v1::Prompt,
}

impl PromptTokens {
    /// A prompt of `model` (as workers registered it). The tokens travel packed, 4 bytes each, which the node
    /// hashes where they lie.
    #[must_use]
    pub fn new(model: impl Into<String>, tokens: &[u32]) -> Self {
        let packed: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let prompt = v1::Prompt { model: model.into(), token_ids_le: packed.into(), ..v1::Prompt::default() };
        Self { prompt }
    }

    /// Only workers of this tenant instead of `default`.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.prompt.tenant = tenant.into();
        self
    }

    /// The prompt runs with this LoRA adapter.
    #[must_use]
    pub fn lora(mut self, name: impl Into<String>) -> Self {
        self.prompt.lora_name = Some(name.into());
        self
    }

    /// Salt that keeps this prompt's blocks apart from equal tokens (vLLM's `cache_salt`).
    #[must_use]
    pub fn cache_salt(mut self, salt: impl Into<String>) -> Self {
        self.prompt.cache_salt = Some(salt.into());
        self
    }

    /// One image, audio clip or the like: its content hash, its first placeholder token and how many there are.
    #[must_use]
    pub fn item(mut self, identifier: impl Into<String>, offset: u64, length: u64) -> Self {
        self.prompt.items.push(v1::PromptItem { identifier: identifier.into(), offset, length });
        self
    }

    /// Only workers of this block size, in tokens.
    #[must_use]
    pub fn block_size(mut self, tokens: u32) -> Self {
        self.prompt.block_size = tokens;
        self
    }

    /// The prompt as it is sent.
    #[must_use]
    pub fn message(&self) -> &v1::Prompt {
        &self.prompt
    }
}

impl PromptHashes {
    /// Sequence hashes (XXH3-64, seed 1337, as the Mooncake indexer standard), first to last, of blocks of
    /// `block_size` tokens.
    #[must_use]
    pub fn sequence(model: impl Into<String>, block_size: u32, hashes: Vec<u64>) -> Self {
        let prompt =
            v1::Prompt { model: model.into(), block_size, sequence_hashes: hashes, ..v1::Prompt::default() };
        Self { prompt }
    }

    /// The engine's own block hashes, first to last, of blocks of `block_size` tokens.
    #[must_use]
    pub fn engine(model: impl Into<String>, block_size: u32, hashes: Vec<u64>) -> Self {
        let prompt = v1::Prompt {
            model: model.into(),
            block_size,
            engine_block_hashes: hashes,
            ..v1::Prompt::default()
        };
        Self { prompt }
    }

    /// Only workers of this tenant instead of `default`.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.prompt.tenant = tenant.into();
        self
    }

    /// The prompt runs with this LoRA adapter.
    #[must_use]
    pub fn lora(mut self, name: impl Into<String>) -> Self {
        self.prompt.lora_name = Some(name.into());
        self
    }

    /// The prompt as it is sent.
    #[must_use]
    pub fn message(&self) -> &v1::Prompt {
        &self.prompt
    }
}

impl From<&PromptTokens> for v1::MatchRequest {
    fn from(prompt: &PromptTokens) -> Self {
        // The packed tokens are shared, not copied.
        Self { prompt: Some(prompt.prompt.clone()), ..Self::default() }
    }
}

impl From<&PromptHashes> for v1::MatchRequest {
    fn from(prompt: &PromptHashes) -> Self {
        Self { prompt: Some(prompt.prompt.clone()), ..Self::default() }
    }
}
