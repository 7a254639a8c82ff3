//! What a query says, and the hashes that follow from it in each namespace.

use std::collections::HashSet;

use crate::hash::{
    BlockHasher, EngineBlockHash, ExtraKey, LocalBlockHash, SequenceHash, local_hash_of_le_bytes,
};
use crate::limits::{MAX_BLOCK_SIZE, MAX_PROMPT_TOKENS};
use crate::worker::{HashScheme, ItemForm, WorkerSpec};

/// A prompt's token ids.
#[derive(Debug, Clone, Copy)]
pub enum Tokens<'a> {
    /// As numbers.
    Ids(&'a [u32]),
    /// As packed little-endian 32-bit words, hashed in place.
    LeBytes(&'a [u8]),
}

impl<'a> Tokens<'a> {
    /// How many tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::LeBytes(bytes) => bytes.len() / 4,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slice(&self, from: usize, to: usize) -> Tokens<'a> {
        match self {
            Self::Ids(ids) => Tokens::Ids(ids.get(from..to).unwrap_or(&[])),
            Self::LeBytes(bytes) => Tokens::LeBytes(bytes.get(from * 4..to * 4).unwrap_or(&[])),
        }
    }

    fn to_vec(self) -> Vec<u32> {
        match self {
            Self::Ids(ids) => ids.to_vec(),
            Self::LeBytes(bytes) => {
                bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
            }
        }
    }

    fn local(self, hasher: &mut BlockHasher) -> LocalBlockHash {
        match self {
            Self::Ids(ids) => hasher.local(ids, &[]),
            Self::LeBytes(bytes) => local_hash_of_le_bytes(bytes),
        }
    }
}

/// An image or other multimodal item inside a prompt. Positions in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptItem<'a> {
    /// Content hash of the item, as the engine computes it.
    pub identifier: &'a str,
    /// First placeholder token.
    pub offset: u64,
    /// Number of placeholder tokens.
    pub length: u64,
}

/// The prompt itself, in one of three forms.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// Token ids, with what else is part of its blocks' identity.
    Tokens {
        /// The tokens.
        tokens: Tokens<'a>,
        /// Cache salt.
        salt: Option<&'a str>,
        /// Multimodal items.
        items: &'a [PromptItem<'a>],
    },
    /// Our sequence hashes, first block to last; needs the query's block size.
    SequenceHashes(&'a [SequenceHash]),
    /// The engine's own block hashes; needs the query's block size.
    EngineHashes(&'a [EngineBlockHash]),
}

/// Which workers may answer. Empty fields let everyone pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Worker ids or addresses.
    pub candidates: &'a [&'a str],
    /// Role.
    pub role: Option<&'a str>,
    /// Prefill-decode group.
    pub pd_group: Option<&'a str>,
    /// Labels, all of which must be there.
    pub labels: &'a [(&'a str, &'a str)],
    /// Count only copies on this tier, by [`Tier::name`](crate::Tier::name).
    pub tier: Option<&'a str>,
}

/// So few candidates are compared one by one.
const FEW: usize = 8;

/// A filter as each worker is asked for: many candidates are found by their hash, so that a question's work is not its
/// candidates times the workers.
pub(crate) struct Chosen<'a> {
    filter: &'a Filter<'a>,
    many: Option<HashSet<&'a str>>,
}

impl<'a> Filter<'a> {
    pub(crate) fn chosen(&'a self) -> Chosen<'a> {
        let is_many = self.candidates.len() > FEW;
        Chosen { filter: self, many: is_many.then(|| self.candidates.iter().copied().collect()) }
    }
}

impl Chosen<'_> {
    pub(crate) fn passes(&self, worker: &WorkerSpec) -> bool {
        let filter = self.filter;
        self.names(worker)
            && filter.role.is_none_or(|role| worker.role.as_deref() == Some(role))
            && filter.pd_group.is_none_or(|group| worker.pd_group.as_deref() == Some(group))
            && filter.labels.iter().all(|(k, v)| worker.labels.get(*k).map(String::as_str) == Some(*v))
    }

    fn names(&self, worker: &WorkerSpec) -> bool {
        let (id, address) = (worker.id.as_str(), worker.address.as_deref());
        match &self.many {
            Some(many) => many.contains(id) || address.is_some_and(|address| many.contains(address)),
            None => {
                let few = self.filter.candidates;
                few.is_empty() || few.iter().any(|name| *name == id || Some(*name) == address)
            }
        }
    }
}

/// A question.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// Tenant, see [`DEFAULT_TENANT`](crate::DEFAULT_TENANT).
    pub tenant: &'a str,
    /// Model.
    pub model: &'a str,
    /// LoRA adapter. Not looked at with engine block hashes, which cover it.
    pub lora: Option<&'a str>,
    /// The prompt.
    pub prompt: Prompt<'a>,
    /// Tokens a block: needed with hashes, a filter with tokens.
    pub block_size: Option<u32>,
    /// Which workers.
    pub filter: Filter<'a>,
    /// Only the best so many.
    pub top_k: Option<usize>,
    /// Leave out workers with fewer matched blocks.
    pub min_blocks: usize,
}

impl<'a> Query<'a> {
    /// A question by token ids to all workers of one model.
    #[must_use]
    pub fn tokens(model: &'a str, tokens: &'a [u32]) -> Self {
        Self {
            tenant: crate::DEFAULT_TENANT,
            model,
            lora: None,
            prompt: Prompt::Tokens { tokens: Tokens::Ids(tokens), salt: None, items: &[] },
            block_size: None,
            filter: Filter::default(),
            top_k: None,
            min_blocks: 0,
        }
    }
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Hashes say nothing without the block size.
    #[error("block_size is required with hashes")]
    NoBlockSize,
    /// The block size is 0 or larger than any engine's.
    #[error("block_size is {0}, must be 1 to {MAX_BLOCK_SIZE}")]
    BlockSize(u32),
    /// The prompt is longer than any context window.
    #[error("the prompt has {0} tokens, the limit is {MAX_PROMPT_TOKENS}")]
    TooLong(usize),
    /// Packed tokens are cut in the middle of one.
    #[error("packed token ids have {0} bytes, which is not a multiple of 4")]
    TornTokens(usize),
}

/// Tokens from which hashing a prompt takes longer than taking a lock once more.
const LONG_TOKENS: usize = 8192;

impl Query<'_> {
    /// Whether hashing the prompt takes so long that no lock should be held meanwhile.
    #[must_use]
    pub fn is_long(&self) -> bool {
        match self.prompt {
            Prompt::Tokens { tokens, items, .. } => tokens.len() >= LONG_TOKENS || items.len() > FEW,
            Prompt::SequenceHashes(_) | Prompt::EngineHashes(_) => false,
        }
    }

    /// Tokens of the prompt; with hashes, blocks times block size.
    pub(crate) fn prompt_tokens(&self) -> usize {
        let size = self.block_size.unwrap_or(0) as usize;
        match self.prompt {
            Prompt::Tokens { tokens, .. } => tokens.len(),
            Prompt::SequenceHashes(hashes) => hashes.len() * size,
            Prompt::EngineHashes(hashes) => hashes.len() * size,
        }
    }

    pub(crate) fn check(&self) -> Result<(), QueryError> {
        if let Some(size) = self.block_size
            && !(1..=MAX_BLOCK_SIZE).contains(&size)
        {
            return Err(QueryError::BlockSize(size));
        }
        match self.prompt {
            Prompt::Tokens { tokens: Tokens::LeBytes(bytes), .. } if bytes.len() % 4 != 0 => {
                return Err(QueryError::TornTokens(bytes.len()));
            }
            Prompt::SequenceHashes(_) | Prompt::EngineHashes(_) if self.block_size.is_none() => {
                return Err(QueryError::NoBlockSize);
            }
            _ => {}
        }
        let tokens = self.prompt_tokens();
        if tokens > MAX_PROMPT_TOKENS { Err(QueryError::TooLong(tokens)) } else { Ok(()) }
    }

    /// Whether engines of this scheme hide something that tells this prompt's blocks from others.
    pub(crate) fn hidden_from(&self, scheme: HashScheme) -> bool {
        match self.prompt {
            Prompt::Tokens { salt, items, .. } => {
                (salt.is_some() && !scheme.salt) || (!items.is_empty() && scheme.items == ItemForm::Hidden)
            }
            _ => false,
        }
    }

    /// The prompt's sequence hashes under one block size and scheme, into `out`. Engine hashes have none.
    pub(crate) fn sequence_hashes(
        &self,
        block_size: u32,
        scheme: HashScheme,
        hasher: &mut BlockHasher,
        out: &mut Vec<SequenceHash>,
    ) {
        out.clear();
        let (tokens, salt, items) = match self.prompt {
            Prompt::EngineHashes(_) => return,
            Prompt::SequenceHashes(hashes) => {
                out.extend_from_slice(hashes);
                return;
            }
            Prompt::Tokens { tokens, salt, items } => (tokens, salt, items),
        };
        let (size, lookahead) = (block_size as usize, usize::from(scheme.lookahead));
        let blocks = tokens.len().saturating_sub(lookahead).checked_div(size).unwrap_or(0);
        let salt = salt.filter(|_| scheme.salt);
        let items = if scheme.items == ItemForm::Hidden { &[] } else { items };
        let plain = items.is_empty() && lookahead == 0;
        let mut sweep = Sweep::over(items);
        let mut before: Option<SequenceHash> = None;
        for i in 0..blocks {
            let (start, end) = (i * size, (i + 1) * size);
            let block = tokens.slice(start, end);
            let local = if plain && (i > 0 || salt.is_none()) {
                block.local(hasher)
            } else {
                let items = sweep.reaching_into(start as u64, end as u64);
                let keys = Identity { salt, items, scheme, tokens }.of_block(start, end);
                hasher.local(&block.to_vec(), &keys)
            };
            out.push(SequenceHash::chain(before, local));
            // Engines that hash content alone chain every block to its neighbour's content only.
            before = if scheme.content_only { Some(SequenceHash(local.0)) } else { out.last().copied() };
        }
    }
}

/// Which items reach into each block, as the blocks go by: an item is looked at when it begins and when it ends.
struct Sweep<'a> {
    items: &'a [PromptItem<'a>],
    /// By offset.
    order: Vec<usize>,
    begun: usize,
    /// Those that reach into the block, in the prompt's order.
    open: Vec<usize>,
    reaching: Vec<PromptItem<'a>>,
}

impl<'a> Sweep<'a> {
    fn over(items: &'a [PromptItem<'a>]) -> Self {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|place| items.get(*place).map(|item| item.offset));
        Self { items, order, begun: 0, open: Vec::new(), reaching: Vec::new() }
    }

    /// Blocks must be asked for in their order.
    fn reaching_into(&mut self, from: u64, to: u64) -> &[PromptItem<'a>] {
        let items = self.items;
        let item = |place: usize| items.get(place).copied();
        let before = (self.open.len(), self.begun);
        self.open
            .retain(|place| item(*place).is_some_and(|item| from < item.offset.saturating_add(item.length)));
        let went = self.open.len() != before.0;
        while let Some(place) = self.order.get(self.begun).copied() {
            let Some(next) = item(place).filter(|item| item.offset < to) else { break };
            self.begun += 1;
            if from < next.offset.saturating_add(next.length) {
                self.open.push(place);
            }
        }
        if went || self.begun != before.1 {
            self.open.sort_unstable();
            self.reaching.clear();
            self.reaching.extend(self.open.iter().filter_map(|place| item(*place)));
        }
        &self.reaching
    }
}

/// What besides its tokens tells a block from others.
struct Identity<'a> {
    salt: Option<&'a str>,
    /// Those that reach into the block.
    items: &'a [PromptItem<'a>],
    scheme: HashScheme,
    tokens: Tokens<'a>,
}

impl Identity<'_> {
    /// Extra keys of the block of tokens `start..end`, in the order in which vLLM publishes them.
    fn of_block(&self, start: usize, end: usize) -> Vec<ExtraKey> {
        let from = start as u64;
        let key = |item: &PromptItem<'_>| match self.scheme.items {
            ItemForm::WithOffset => ExtraKey::Item {
                identifier: item.identifier.to_owned(),
                offset: item.offset.cast_signed().wrapping_sub(from.cast_signed()),
            },
            ItemForm::Bare | ItemForm::Hidden => ExtraKey::Text(item.identifier.to_owned()),
        };
        let mut keys: Vec<ExtraKey> = self.items.iter().map(key).collect();
        if let Some(salt) = self.salt.filter(|_| start == 0) {
            keys.push(ExtraKey::Text(salt.to_owned()));
        }
        if self.scheme.lookahead > 0 {
            let after = self.tokens.slice(end, end + usize::from(self.scheme.lookahead));
            keys.push(ExtraKey::Lookahead(after.to_vec()));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sweep_finds_what_a_look_at_every_item_finds(
            places in vec((0_u64..60, prop_oneof![0_u64..30, Just(u64::MAX)]), 0..12),
            size in 1_u64..9,
        ) {
            let item = |(offset, length): &(u64, u64)| PromptItem { identifier: "i", offset: *offset, length: *length };
            let items: Vec<PromptItem<'_>> = places.iter().map(item).collect();
            let mut sweep = Sweep::over(&items);
            for block in 0..12 {
                let (from, to) = (block * size, (block + 1) * size);
                let reaches = |item: &&PromptItem<'_>| {
                    to > item.offset && from < item.offset.saturating_add(item.length)
                };
                let expected: Vec<PromptItem<'_>> = items.iter().filter(reaches).copied().collect();
                prop_assert_eq!(sweep.reaching_into(from, to), expected.as_slice());
            }
        }
    }
}
