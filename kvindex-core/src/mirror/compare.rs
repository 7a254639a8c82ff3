//! Does an engine hash as a profile says? Recomputes the hashes of a stored event from what the event shows.

use super::vllm::{Key, wire};
use super::{Digest, HashProfile, KeyForm, MirrorPrompt, SglangFormat, SglangProfile, VllmProfile};
use crate::engine::GroupKind;
use crate::event::BlockStored;
use crate::hash::{EngineBlockHash, ExtraKey};
use crate::ids::Tier;

/// How the blocks of one event compare with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Blocks with the hash that the profile makes, up to the first that has another.
    pub equal: usize,
    /// The first block with another hash.
    pub difference: Option<Difference>,
    /// Whether the hashes cover more than tokens (salt, images, lookahead), and so tell the release and the
    /// event format too.
    pub keyed: bool,
}

/// A block whose hash is not the profile's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The profile's.
    pub expected: EngineBlockHash,
    /// The engine's.
    pub announced: EngineBlockHash,
    /// Whether the event shows all that the hash covers. Where it may not (salts before vLLM 0.17, SGLang's extra
    /// keys), a single difference is no proof.
    pub proof: bool,
}

impl HashProfile {
    /// Compares the first `limit` blocks of an event; `None` when the event does not show what their hashes
    /// cover: it starts below a parent, lacks tokens, lies on another tier than the device, is of a group that
    /// keeps only some blocks, or is for an adapter of which the engine hashes more than it announces.
    ///
    /// `release_known` tells whether the profile's release is the engine's, or a guess.
    #[must_use]
    pub fn compare(&self, event: &BlockStored, release_known: bool, limit: usize) -> Option<Comparison> {
        let size = event.block_size as usize;
        let dense = size > 0 && event.token_ids.len() == size * event.block_hashes.len();
        let whole = matches!(event.kind, None | Some(GroupKind::Full));
        if event.parent.is_some()
            || !dense
            || !whole
            || event.block_hashes.is_empty()
            || event.tier != Tier::Device
        {
            return None;
        }
        match self {
            Self::Vllm(profile) => profile.compare(event, release_known, limit),
            Self::Sglang(profile) => profile.compare(event, limit),
        }
    }
}

impl VllmProfile {
    fn compare(&self, event: &BlockStored, release_known: bool, limit: usize) -> Option<Comparison> {
        let size = event.block_size as usize;
        let keyed = !event.extra_keys.is_empty() || !event.lookahead.is_empty();
        let announced = event.block_hashes.iter().copied().take(limit);
        let blocks = event.token_ids.chunks_exact(size).zip(announced).enumerate();
        let (mut parent, mut bytes) = (self.none_hash, Vec::new());
        let (mut equal, mut difference, mut ambiguous) = (0, None, false);
        for (i, (tokens, announced)) in blocks {
            let keys = self.keys_of(event, i)?;
            ambiguous |= self.algorithm.pickles() && has_repeated_item(&keys);
            let lookahead = event.lookahead.get(i).map(|tokens| wide(tokens)).unwrap_or_default();
            let before = parent;
            parent = self.block(&before, &wide(tokens), &keys, &lookahead, &mut bytes);
            if wire(parent).wire != announced {
                match self.in_smaller_units(before, tokens, announced, keyed) {
                    Some(digest) => parent = digest,
                    None => {
                        let proof = event.carries_extra_keys && !ambiguous && (release_known || !keyed);
                        difference = Some(Difference { expected: wire(parent).wire, announced, proof });
                        break;
                    }
                }
            }
            equal += 1;
        }
        Some(Comparison { equal, difference, keyed })
    }

    /// A hybrid model's groups may have larger blocks than its hashes: such a block is announced under the hash
    /// of its last unit. Any divisor may be the unit; 64 equal bits are no accident.
    fn in_smaller_units(
        &self,
        parent: Digest,
        tokens: &[u32],
        announced: EngineBlockHash,
        keyed: bool,
    ) -> Option<Digest> {
        let (tokens, mut bytes) = (wide(tokens), Vec::new());
        let units = (1..tokens.len()).rev().filter(|unit| !keyed && tokens.len() % unit == 0);
        units
            .map(|unit| {
                let mut chunks = tokens.chunks_exact(unit);
                chunks.by_ref().fold(parent, |parent, chunk| self.block(&parent, chunk, &[], &[], &mut bytes))
            })
            .find(|digest| wire(*digest).wire == announced)
    }

    /// The keys in the hash of an event's block; `None` when the event does not show them.
    fn keys_of<'a>(&self, event: &'a BlockStored, i: usize) -> Option<Vec<Key<'a>>> {
        let lora = event.lora_name.is_some() || event.lora_id.is_some();
        let shown = event.extra_keys.get(i).map(Vec::as_slice).unwrap_or_default();
        if lora && self.keys == KeyForm::Tagged {
            return None; // the path is hashed and not announced
        }
        let mut keys = Vec::new();
        if lora && !event.carries_extra_keys {
            keys.push(match self.keys {
                KeyForm::LoraId => Key::LoraId(i64::try_from(event.lora_id?).ok()?),
                _ => Key::LoraName(event.lora_name.as_deref()?),
            });
        }
        for key in shown {
            keys.push(match key {
                // Untagged, an adapter's name, a bare item and a salt are the same bytes.
                ExtraKey::Text(text) => Key::Salt(text),
                ExtraKey::Item { identifier, offset } => Key::Item { identifier, offset: *offset },
                ExtraKey::Bytes(bytes) => Key::Embeds(bytes),
                ExtraKey::Lookahead(_) => return None, // comes in a field of its own
            });
        }
        Some(keys)
    }
}

impl SglangProfile {
    fn compare(&self, event: &BlockStored, limit: usize) -> Option<Comparison> {
        if event.lora_name.is_some() {
            return None; // the extra key that it stands for is hashed and not announced
        }
        let limit = limit.min(event.block_hashes.len());
        let tokens = wide(event.token_ids.get(..limit * event.block_size as usize)?);
        let prompt = MirrorPrompt {
            tokens: &tokens,
            cache_salt: event.cache_salt.as_deref(),
            ..MirrorPrompt::default()
        };
        let hashes = |profile: &Self| profile.block_hashes(&prompt, event.block_size as usize);
        let expected = hashes(self);
        let pairs = || expected.iter().map(|hash| hash.wire).zip(event.block_hashes.iter().copied());
        let equal = pairs().take_while(|(expected, announced)| expected == announced).count();
        let difference = pairs().nth(equal).map(|(expected, announced)| {
            // In the dynamo format an extra key that is not announced may be in the hash, unless the hash
            // is plainly the other format's.
            let plain = hashes(&Self { format: SglangFormat::Default, ..*self });
            let proof = self.format == SglangFormat::Default
                || plain.get(equal).is_some_and(|hash| hash.wire == announced);
            Difference { expected, announced, proof }
        });
        Some(Comparison { equal, difference, keyed: event.cache_salt.is_some() })
    }
}

fn wide(tokens: &[u32]) -> Vec<u64> {
    tokens.iter().copied().map(u64::from).collect()
}

fn has_repeated_item(keys: &[Key<'_>]) -> bool {
    let items = || {
        keys.iter().filter_map(|key| match key {
            Key::Item { identifier, .. } => Some(*identifier),
            _ => None,
        })
    };
    items().enumerate().any(|(i, identifier)| items().skip(i + 1).any(|other| other == identifier))
}
