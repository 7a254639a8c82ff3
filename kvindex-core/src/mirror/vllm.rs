//! vLLM's block hashes, from 0.10.2 on: `H_i = f((H_{i-1}, tokens, extra keys))`, where f is a digest of a
//! serialization of that Python tuple. What the extra keys look like changed three times.

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use super::value::{Object, Value};
use super::{Digest, MirrorError, MirrorHash, MirrorItem, MirrorPrompt, cbor, pickle};
use crate::hash::EngineBlockHash;

/// A release as (major, minor, patch).
pub(super) type Release = (u32, u32, u32);

/// `--prefix-caching-hash-algo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VllmAlgorithm {
    /// SHA-256 of a pickle: the default.
    Sha256,
    /// SHA-256 of canonical CBOR.
    Sha256Cbor,
    /// XXH3-128 of a pickle (0.14 and later).
    Xxhash,
    /// XXH3-128 of canonical CBOR (0.14 and later).
    XxhashCbor,
}

impl VllmAlgorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sha256, Self::Sha256Cbor, Self::Xxhash, Self::XxhashCbor];

    /// vLLM's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha256Cbor => "sha256_cbor",
            Self::Xxhash => "xxhash",
            Self::XxhashCbor => "xxhash_cbor",
        }
    }

    /// Whether object identity enters the hash, see [`RepeatedItems`].
    #[must_use]
    pub fn pickles(self) -> bool {
        matches!(self, Self::Sha256 | Self::Xxhash)
    }

    /// Whether it is one of the two with a random seed unless the operator sets one.
    pub(super) fn is_xxhash(self) -> bool {
        matches!(self, Self::Xxhash | Self::XxhashCbor)
    }

    /// What stands before the first block when the engine runs with this seed text: `PYTHONHASHSEED`, or
    /// [`FIXED_SEED`] from 0.29 on.
    #[must_use]
    pub fn none_hash(self, seed: &str) -> Digest {
        self.digest(&Value::own(seed), &mut Vec::new())
    }

    fn digest(self, value: &Value<'_>, bytes: &mut Vec<u8>) -> Digest {
        if self.pickles() {
            pickle::write(value, bytes);
        } else {
            cbor::write(value, bytes);
        }
        if self.is_xxhash() {
            xxh3_128(bytes).to_be_bytes().into()
        } else {
            <[u8; 32]>::from(Sha256::digest(bytes)).into()
        }
    }
}

/// The seed of `sha256` and `sha256_cbor` from vLLM 0.29 on when `PYTHONHASHSEED` is not set.
pub const FIXED_SEED: &str = "vllm-none-hash";

/// What extra keys look like inside the hash, by release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyForm {
    /// 0.10.2 to 0.11: the adapter's number, an item's hash, the salt, bare.
    LoraId,
    /// 0.12 to 0.18: the adapter's name in place of its number.
    LoraName,
    /// 0.19 to 0.30: an item's hash with its offset from the block's start.
    ItemOffsets,
    /// 0.31 and later: each key with a tag, the adapter with the path it was loaded from.
    Tagged,
}

impl KeyForm {
    /// The form of a release.
    #[must_use]
    pub fn of_release((major, minor, _): Release) -> Self {
        match (major, minor) {
            (0, 0..=11) => Self::LoraId,
            (0, 12..=18) => Self::LoraName,
            (0, 19..=30) => Self::ItemOffsets,
            _ => Self::Tagged,
        }
    }
}

/// **A hazard of pickle.** It writes a text that is the *same object* as an earlier one as a back reference, and
/// an *equal* one as a copy, so a block with the same image in it twice has two possible hashes, depending on
/// how the request reached the engine. Nothing on the wire tells which. CBOR has no such trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RepeatedItems {
    /// Equal identifiers are separate objects: requests that crossed a process boundary item by item.
    #[default]
    EqualCopies,
    /// Equal identifiers are one object: one text was put in for several items.
    SameObject,
}

/// How a vLLM engine hashes its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VllmProfile {
    /// The function.
    pub algorithm: VllmAlgorithm,
    /// What stands for the parent of a first block, see [`VllmAlgorithm::none_hash`].
    pub none_hash: Digest,
    /// The form of extra keys.
    pub keys: KeyForm,
    /// Tokens after a block that its hash covers (0.33 with EAGLE or MTP drafting), else 0.
    pub lookahead: usize,
    /// What an item that comes twice in one block is written as.
    pub repeated_items: RepeatedItems,
}

/// One extra key, before it gets the form of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    LoraId(i64),
    LoraName(&'a str),
    Lora { name: &'a str, path: &'a str },
    Item { identifier: &'a str, offset: i64 },
    Salt(&'a str),
    Embeds(&'a [u8]),
}

impl VllmProfile {
    /// Hashes of all blocks of `block_size` tokens that the engine would hash: full ones, with all their
    /// lookahead tokens there.
    pub(super) fn block_hashes(
        &self,
        prompt: &MirrorPrompt<'_>,
        block_size: usize,
    ) -> Result<Vec<MirrorHash>, MirrorError> {
        let lora = self.lora_key(prompt)?;
        let hashable = prompt.tokens.len().saturating_sub(self.lookahead) / block_size;
        let mut hashes = Vec::with_capacity(hashable);
        let (mut parent, mut bytes, mut keys) = (self.none_hash, Vec::new(), Vec::new());
        for block in 0..hashable {
            let (start, end) = (block * block_size, (block + 1) * block_size);
            let covered = end + self.lookahead;
            keys.clear();
            keys.extend(lora);
            keys.extend(items_between(prompt.items, start, covered));
            keys.extend(prompt.cache_salt.filter(|salt| block == 0 && !salt.is_empty()).map(Key::Salt));
            keys.extend(prompt.prompt_embeds.get(block).map(|digest| Key::Embeds(digest)));
            parent = self.block(
                &parent,
                &prompt.tokens[start..end],
                &keys,
                &prompt.tokens[end..covered],
                &mut bytes,
            );
            hashes.push(wire(parent));
        }
        Ok(hashes)
    }

    fn lora_key<'a>(&self, prompt: &MirrorPrompt<'a>) -> Result<Option<Key<'a>>, MirrorError> {
        let missing = |field, why: &str| Err(MirrorError { field, message: format!("is missing: {why}") });
        let Some(lora) = prompt.lora else {
            return Ok(None);
        };
        Ok(Some(match (self.keys, lora.id, lora.path) {
            (KeyForm::LoraId, Some(id), _) => Key::LoraId(id),
            (KeyForm::LoraId, None, _) => {
                return missing("lora.id", "vLLM before 0.12 hashes the adapter's number");
            }
            (KeyForm::LoraName | KeyForm::ItemOffsets, _, _) => Key::LoraName(lora.name),
            (KeyForm::Tagged, _, Some(path)) => Key::Lora { name: lora.name, path },
            (KeyForm::Tagged, _, None) => {
                return missing("lora.path", "vLLM from 0.31 on hashes the adapter's path");
            }
        }))
    }

    /// The digest of one block. `bytes` is scratch.
    pub(super) fn block(
        &self,
        parent: &Digest,
        tokens: &[u64],
        keys: &[Key<'_>],
        lookahead: &[u64],
        bytes: &mut Vec<u8>,
    ) -> Digest {
        let keys = match keys {
            [] => Value::None,
            keys => Value::Tuple(keys.iter().map(|key| self.key_value(*key)).collect()),
        };
        let extra = match lookahead {
            [] => keys,
            tokens => {
                let ids = tokens.iter().map(|token| Value::Int(i128::from(*token)));
                Value::Tuple(std::iter::once(keys).chain(ids).collect())
            }
        };
        let block = Value::Tuple(vec![Value::Bytes(parent.as_bytes()), Value::Tokens(tokens), extra]);
        self.algorithm.digest(&block, bytes)
    }

    fn key_value<'a>(&self, key: Key<'a>) -> Value<'a> {
        let tagged = self.keys == KeyForm::Tagged;
        match key {
            Key::LoraId(id) => Value::Int(id.into()),
            Key::LoraName(name) => Value::own(name),
            Key::Lora { name, path } => {
                Value::Tuple(vec![Value::literal("lora"), Value::own(name), Value::own(path)])
            }
            Key::Item { identifier, offset } => {
                let object = match self.repeated_items {
                    RepeatedItems::EqualCopies => Object::Own,
                    RepeatedItems::SameObject => Object::Shared,
                };
                let (identifier, offset) = (Value::Text(identifier, object), Value::Int(offset.into()));
                match self.keys {
                    KeyForm::LoraId | KeyForm::LoraName => identifier,
                    KeyForm::ItemOffsets => Value::Tuple(vec![identifier, offset]),
                    KeyForm::Tagged => Value::Tuple(vec![Value::literal("mm"), identifier, offset]),
                }
            }
            Key::Salt(salt) if tagged => Value::Tuple(vec![Value::literal("cache_salt"), Value::own(salt)]),
            Key::Salt(salt) => Value::own(salt),
            Key::Embeds(digest) if tagged => {
                Value::Tuple(vec![Value::literal("prompt_embeds"), Value::Bytes(digest)])
            }
            Key::Embeds(digest) => Value::Bytes(digest),
        }
    }
}

/// vLLM's integer is the digest's last 8 bytes.
pub(super) fn wire(digest: Digest) -> MirrorHash {
    let wire = EngineBlockHash::from_bytes(digest.as_bytes()).unwrap_or(EngineBlockHash(0)); // has 16 or 32 bytes
    MirrorHash { digest, wire }
}

/// Items with a token in `start..end`, with their offsets from `start`.
fn items_between<'a>(items: &'a [MirrorItem<'a>], start: usize, end: usize) -> impl Iterator<Item = Key<'a>> {
    let overlapping =
        items.iter().filter(move |item| item.offset < end && item.offset.saturating_add(item.length) > start);
    overlapping.map(move |item| Key::Item {
        identifier: item.identifier,
        offset: item.offset as i64 - start as i64, // below 2^63: both index a slice
    })
}
