//! SGLang's page hashes, from 0.5.6 on: SHA-256 over the previous page's digest and the page's token ids; and
//! what its two event formats make of them.

use sha2::{Digest as _, Sha256};

use super::vllm::Release;
use super::{MirrorHash, MirrorPrompt};
use crate::hash::EngineBlockHash;

/// First release with chained hashes; before it a page's hash said nothing of its prefix.
pub(super) const FIRST_RELEASE: Release = (0, 5, 6);

/// `format` of SGLang's `--kv-events-config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SglangFormat {
    /// The page hash itself; from 0.5.23 on in the extra key's namespace where a LoRA name is registered for it.
    #[default]
    Default,
    /// Every hash in the namespace of its extra key and cache salt, where there is one.
    Dynamo,
}

/// How an SGLang engine hashes its pages and announces the hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SglangProfile {
    /// The event format.
    pub format: SglangFormat,
    /// Whether EAGLE drafting makes each unit of a page the pair of a token and the one after it.
    pub eagle: bool,
}

impl SglangProfile {
    /// Hashes of all full pages. Pages of an EAGLE engine need the token after their last.
    pub(super) fn block_hashes(&self, prompt: &MirrorPrompt<'_>, page_size: usize) -> Vec<MirrorHash> {
        let salt = present(prompt.cache_salt);
        let namespace = self.namespace(present(prompt.extra_key), salt, prompt.lora.is_some());
        let pages = prompt.tokens.len().saturating_sub(usize::from(self.eagle)) / page_size;
        let mut parent = salt.map(salt_seed);
        let mut hashes = Vec::with_capacity(pages);
        for page in 0..pages {
            let (start, end) = (page * page_size, (page + 1) * page_size);
            let digest = match self.eagle {
                false => page_digest(parent.as_ref(), prompt.tokens[start..end].iter().copied()),
                true => {
                    page_digest(parent.as_ref(), prompt.tokens[start..=end].windows(2).flatten().copied())
                }
            };
            parent = Some(digest);
            hashes.push(MirrorHash { digest: digest.into(), wire: published(&digest, namespace.as_ref()) });
        }
        hashes
    }

    fn namespace(&self, extra_key: Option<&str>, salt: Option<&str>, named: bool) -> Option<[u8; 32]> {
        match self.format {
            SglangFormat::Dynamo => namespace_seed(extra_key, salt),
            // The salt is in the chain already.
            SglangFormat::Default => namespace_seed(extra_key.filter(|_| named), None),
        }
    }
}

/// An empty text is no text to SGLang.
fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// What stands before the first page of a salted chain (0.5.18 and later).
fn salt_seed(salt: &str) -> [u8; 32] {
    Sha256::new().chain_update(b"sglang-cache-salt-v1\0").chain_update(salt).finalize().into()
}

/// Digest of one page after `parent`. Ids are 32 bits wide unless one of the page is larger; then all have 64,
/// after a byte that says so (0.5.23; read in its source, no vector holds one).
fn page_digest(parent: Option<&[u8; 32]>, words: impl Iterator<Item = u64> + Clone) -> [u8; 32] {
    let mut hasher = Sha256::new();
    if let Some(parent) = parent {
        hasher.update(parent);
    }
    if words.clone().all(|word| u32::try_from(word).is_ok()) {
        words.for_each(|word| hasher.update((word as u32).to_le_bytes())); // fits, see above
    } else {
        hasher.update([0xff]);
        words.for_each(|word| hasher.update(word.to_le_bytes()));
    }
    hasher.finalize().into()
}

/// Seed of a namespace; `None` when there is neither extra key nor salt, and hashes are published as they are.
fn namespace_seed(extra_key: Option<&str>, salt: Option<&str>) -> Option<[u8; 32]> {
    if extra_key.is_none() && salt.is_none() {
        return None;
    }
    let mut hasher = Sha256::new().chain_update(b"sglang-kv-event-namespace-v1");
    for part in [extra_key, salt] {
        match part {
            None => hasher.update([0]),
            Some(text) => {
                hasher.update([1]);
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
        }
    }
    Some(hasher.finalize().into())
}

/// The hash on the wire: the first 8 bytes, of the page's digest or of its hash in the namespace. SGLang sends
/// them as a signed number, of which an [`EngineBlockHash`] holds the bits.
fn published(digest: &[u8; 32], namespace: Option<&[u8; 32]>) -> EngineBlockHash {
    let first = digest.first_chunk::<8>().copied().unwrap_or_default(); // has 32 bytes
    let Some(seed) = namespace else {
        return EngineBlockHash(u64::from_be_bytes(first));
    };
    let wrapped: [u8; 32] = Sha256::new().chain_update(seed).chain_update(first).finalize().into();
    published(&wrapped, None)
}
