//! An engine's prefix cache: a bounded number of blocks, those of running requests held fast, the others evicted
//! least recently used first. As in vLLM, a request that ends gives its blocks back from the end of its prompt to
//! the beginning, so that what is evicted first is what the fewest prompts begin with.

use std::collections::{BTreeMap, HashMap};

/// The cache of one engine.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    capacity: usize,
    /// Blocks that have a name, which is their content's.
    named: HashMap<u64, Entry>,
    /// Named blocks that no running request uses, by the time they were given back.
    idle: BTreeMap<u64, u64>,
    /// Blocks of running requests that have no name yet, or never get one.
    nameless: usize,
    clock: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    users: u32,
    /// Key in `idle`, while there are no users.
    idle_since: u64,
}

impl BlockCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// How many of a prompt's first blocks are here without a hole.
    pub(super) fn prefix(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.named.contains_key(block)).count()
    }

    /// Holds the blocks of a prompt that are here, and as many nameless ones as a request needs in all: the names of
    /// the blocks that had to go for them, in order. `None`, and nothing changed, if there is no room for now.
    pub(super) fn take(&mut self, blocks: &[u64], all: usize) -> Option<Vec<u64>> {
        let held = self.prefix(blocks);
        let kept = blocks.get(..held)?;
        let idle_kept = kept.iter().filter(|block| self.users(**block) == 0).count();
        let needed = all.saturating_sub(held);
        let used = self.named.len() - self.idle.len() + self.nameless;
        if used + idle_kept + needed > self.capacity {
            return None;
        }
        for block in kept {
            self.hold(*block);
        }
        let mut evicted = Vec::new();
        while self.named.len() + self.nameless + needed > self.capacity {
            let (_, block) = self.idle.pop_first()?;
            self.named.remove(&block);
            evicted.push(block);
        }
        self.nameless += needed;
        Some(evicted)
    }

    /// Gives a computed prompt's blocks their names: how many were new. They stay held.
    pub(super) fn name(&mut self, blocks: &[u64], taken: usize) -> usize {
        let new = blocks.get(taken..).unwrap_or_default();
        for block in new {
            self.hold(*block);
        }
        self.nameless -= new.len();
        new.len()
    }

    /// Lets go of a request's blocks: its prompt's, which stay until they are evicted, and its nameless ones.
    pub(super) fn give_back(&mut self, blocks: &[u64], all: usize) {
        self.nameless -= all.saturating_sub(blocks.len());
        for block in blocks.iter().rev() {
            let Some(entry) = self.named.get_mut(block) else { continue };
            entry.users -= 1;
            if entry.users == 0 {
                self.clock += 1;
                entry.idle_since = self.clock;
                self.idle.insert(self.clock, *block);
            }
        }
    }

    fn users(&self, block: u64) -> u32 {
        self.named.get(&block).map_or(0, |entry| entry.users)
    }

    fn hold(&mut self, block: u64) {
        let entry = self.named.entry(block).or_default();
        if entry.users == 0 {
            self.idle.remove(&entry.idle_since);
        }
        entry.users += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kvindex_recording::splitmix64;

    use super::*;

    /// The same rules over one list, searched from end to end: idle blocks first, in the order they will go.
    struct Naive {
        capacity: usize,
        blocks: Vec<(u64, u32)>,
        nameless: usize,
    }

    impl Naive {
        fn at(&self, block: u64) -> Option<usize> {
            self.blocks.iter().position(|(name, _)| *name == block)
        }

        fn take(&mut self, blocks: &[u64], all: usize) -> Option<Vec<u64>> {
            let held: Vec<u64> = blocks.iter().copied().take_while(|b| self.at(*b).is_some()).collect();
            let needed = all - held.len();
            let lasting =
                self.blocks.iter().filter(|(name, users)| *users > 0 || held.contains(name)).count();
            if lasting + self.nameless + needed > self.capacity {
                return None;
            }
            for block in &held {
                let at = self.at(*block).unwrap();
                self.blocks[at].1 += 1;
            }
            let mut gone = Vec::new();
            while self.blocks.len() + self.nameless + needed > self.capacity {
                let first = self.blocks.iter().position(|(_, users)| *users == 0).unwrap();
                gone.push(self.blocks.remove(first).0);
            }
            self.nameless += needed;
            Some(gone)
        }

        fn name(&mut self, blocks: &[u64], taken: usize) {
            for block in &blocks[taken..] {
                self.blocks.push((*block, 1));
                self.nameless -= 1;
            }
        }

        fn give_back(&mut self, blocks: &[u64], all: usize) {
            self.nameless -= all - blocks.len();
            for block in blocks.iter().rev() {
                let at = self.at(*block).unwrap();
                let (name, users) = self.blocks.remove(at);
                // Who is last given back is last to go.
                self.blocks.push((name, users - 1));
            }
        }
    }

    #[test]
    fn agrees_with_a_naive_list() {
        for seed in 0..40u64 {
            let mut state = seed;
            let mut draw = |below: u64| {
                state = splitmix64(state.wrapping_add(0x9e37));
                state % below
            };
            let mut cache = BlockCache::new(24);
            let mut naive = Naive { capacity: 24, blocks: Vec::new(), nameless: 0 };
            let mut running: Vec<(Vec<u64>, usize)> = Vec::new();
            let (mut taken_times, mut evictions, mut refusals) = (0, 0, 0);
            for _ in 0..400 {
                if draw(3) > 0 {
                    // Chains that share beginnings: a block's name says where it stands and on which branch.
                    let (branch, length) = (draw(4), 1 + draw(9));
                    let blocks: Vec<u64> =
                        (0..length).map(|at| if at < 2 { at } else { at * 10 + branch }).collect();
                    let all = blocks.len() + draw(4) as usize;
                    let held = cache.prefix(&blocks);
                    let (ours, theirs) = (cache.take(&blocks, all), naive.take(&blocks, all));
                    assert_eq!(ours, theirs, "seed {seed}");
                    refusals += usize::from(ours.is_none());
                    if let Some(gone) = ours {
                        evictions += gone.len();
                        taken_times += 1;
                        assert_eq!(cache.name(&blocks, held), blocks.len() - held);
                        naive.name(&blocks, held);
                        running.push((blocks, all));
                    }
                } else if !running.is_empty() {
                    let (blocks, all) = running.remove(draw(running.len() as u64) as usize);
                    cache.give_back(&blocks, all);
                    naive.give_back(&blocks, all);
                }
                assert_eq!(cache.named.len(), naive.blocks.len(), "seed {seed}");
                assert!(cache.named.len() + cache.nameless <= 24, "seed {seed}");
            }
            assert!(
                taken_times > 50 && evictions > 20 && refusals > 5,
                "{taken_times} {evictions} {refusals}"
            );
        }
    }

    #[test]
    fn the_end_of_a_prompt_goes_before_its_beginning() {
        let mut cache = BlockCache::new(4);
        assert_eq!(cache.take(&[1, 2, 3], 3), Some(vec![]));
        cache.name(&[1, 2, 3], 0);
        assert_eq!(cache.take(&[9], 2), None, "all but one block are held");
        cache.give_back(&[1, 2, 3], 3);
        assert_eq!(cache.take(&[9], 3), Some(vec![3, 2]));
        assert_eq!(cache.prefix(&[1, 2, 3]), 1);
    }
}
