//! A block cache as vLLM's: full blocks under hashes that chain, found again from the front, and given up the least
//! used one first, a block never before those that follow it.

use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};

/// What the cache tells of a change, in vLLM's words (0.24 and later: a map with its kind).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub(super) enum Event {
    BlockStored {
        block_hashes: Vec<u64>,
        parent_block_hash: Option<u64>,
        token_ids: Vec<u32>,
        block_size: usize,
        lora_id: Option<u32>,
        medium: &'static str,
        lora_name: Option<String>,
    },
    BlockRemoved {
        block_hashes: Vec<u64>,
        medium: &'static str,
    },
}

const DEVICE: &str = "GPU";

#[derive(Debug)]
struct Block {
    parent: Option<u64>,
    children: usize,
    used: u64,
}

#[derive(Debug)]
pub(super) struct Cache {
    block_size: usize,
    room: usize,
    blocks: HashMap<u64, Block>,
    /// Blocks that nothing follows, by when they were used.
    ends: BTreeSet<(u64, u64)>,
    now: u64,
}

/// What a prompt found and changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Tokens that were there already.
    pub(super) cached: usize,
    pub(super) events: Vec<Event>,
}

fn hash(parent: Option<u64>, tokens: &[u32]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(parent.unwrap_or(0).to_le_bytes());
    tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    let digest: [u8; 32] = hash.finalize().into();
    let [.., a, b, c, d, e, f, g, h] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Cache {
    pub(super) fn new(block_size: usize, room: usize) -> Self {
        let (blocks, ends) = (HashMap::new(), BTreeSet::new());
        Self { block_size: block_size.max(1), room, blocks, ends, now: 0 }
    }

    /// Computes a prompt: what is there is used, the rest of its full blocks are stored as far as there is room.
    pub(super) fn compute(&mut self, tokens: &[u32]) -> Used {
        self.now += 1;
        let mut chain: Vec<(u64, Option<u64>, &[u32])> = Vec::new();
        let mut parent = None;
        for block in tokens.chunks_exact(self.block_size) {
            let hash = hash(parent, block);
            chain.push((hash, parent, block));
            parent = Some(hash);
        }
        let known = chain.iter().take_while(|(hash, ..)| self.blocks.contains_key(hash)).count();
        for (hash, ..) in chain.iter().take(known) {
            self.touch(*hash);
        }
        let new = chain.get(known..).unwrap_or_default();
        let mut events = Vec::new();
        let mut stored = 0;
        for (hash, parent, _) in new {
            if self.blocks.len() >= self.room {
                match self.give_up() {
                    Some(removed) => events.push(removed),
                    None => break,
                }
            }
            self.store(*hash, *parent);
            stored += 1;
        }
        let new = new.get(..stored).unwrap_or_default();
        if let Some((_, parent, _)) = new.first() {
            events.push(Event::BlockStored {
                block_hashes: new.iter().map(|(hash, ..)| *hash).collect(),
                parent_block_hash: *parent,
                token_ids: new.iter().flat_map(|(.., tokens)| tokens.iter().copied()).collect(),
                block_size: self.block_size,
                lora_id: None,
                medium: DEVICE,
                lora_name: None,
            });
        }
        Used { cached: known * self.block_size, events }
    }

    fn touch(&mut self, hash: u64) {
        let now = self.now;
        if let Some(block) = self.blocks.get_mut(&hash) {
            if self.ends.remove(&(block.used, hash)) {
                self.ends.insert((now, hash));
            }
            block.used = now;
        }
    }

    fn store(&mut self, hash: u64, parent: Option<u64>) {
        if let Some((parent, block)) = parent.and_then(|parent| Some((parent, self.blocks.get_mut(&parent)?)))
        {
            block.children += 1;
            self.ends.remove(&(block.used, parent));
        }
        self.blocks.insert(hash, Block { parent, children: 0, used: self.now });
        self.ends.insert((self.now, hash));
    }

    /// The end that was used longest ago, unless this prompt is on it.
    fn give_up(&mut self) -> Option<Event> {
        let (used, hash) = *self.ends.first()?;
        if used == self.now {
            return None;
        }
        self.ends.pop_first();
        let parent = self.blocks.remove(&hash)?.parent;
        if let Some((parent, block)) = parent.and_then(|parent| Some((parent, self.blocks.get_mut(&parent)?)))
        {
            block.children -= 1;
            if block.children == 0 {
                self.ends.insert((block.used, parent));
            }
        }
        Some(Event::BlockRemoved { block_hashes: vec![hash], medium: DEVICE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(first: u32, tokens: u32) -> Vec<u32> {
        (0..tokens).map(|token| first * 1000 + token).collect()
    }

    fn removed(used: &Used) -> usize {
        used.events.iter().filter(|event| matches!(event, Event::BlockRemoved { .. })).count()
    }

    #[test]
    fn a_prefix_is_found_again_and_only_full_blocks_are_kept() {
        let mut cache = Cache::new(4, 100);
        let used = cache.compute(&prompt(1, 10));
        assert_eq!((used.cached, used.events.len()), (0, 1));
        assert_eq!(cache.compute(&prompt(1, 10)), Used { cached: 8, events: vec![] });
        let longer = cache.compute(&prompt(1, 13));
        let [Event::BlockStored { parent_block_hash, token_ids, block_hashes, .. }] = &longer.events[..]
        else {
            panic!("{longer:?}");
        };
        assert_eq!((longer.cached, block_hashes.len()), (8, 1));
        assert!(parent_block_hash.is_some() && *token_ids == [1008, 1009, 1010, 1011]);
    }

    #[test]
    fn the_least_used_goes_first_and_from_its_end() {
        let mut cache = Cache::new(4, 4);
        cache.compute(&prompt(1, 8));
        cache.compute(&prompt(2, 8));
        cache.compute(&prompt(1, 8));
        let third = cache.compute(&prompt(3, 4));
        assert_eq!((third.cached, removed(&third)), (0, 1));
        assert_eq!(cache.compute(&prompt(1, 8)).cached, 8, "used last");
        assert_eq!(cache.compute(&prompt(2, 8)).cached, 4, "its end was given up");
        let large = cache.compute(&prompt(4, 40));
        assert_eq!(removed(&large), 4, "no prompt gives up its own blocks");
        assert_eq!(cache.compute(&prompt(4, 40)).cached, 16);
    }
}
