//! A simulated engine's cache: chains of blocks under a capacity, the least recently used leaf goes first; a tier
//! behind it; second copies; and what of all that the engine announces.

use kvindex_core::{BlockRemoved, BlockStored, EngineBlockHash, KvEvent, Tier};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::dice::Dice;
use crate::question::{BLOCK, tokens};

/// What an engine holds: copies of each block on each tier.
pub(crate) type Truth = BTreeMap<(Tier, EngineBlockHash), u32>;

#[derive(Debug, Clone, Copy)]
struct Held {
    used: u64,
    copies: u32,
}

/// One life of an engine's cache.
#[derive(Debug)]
pub(crate) struct Cache {
    salt: u64,
    capacity: usize,
    /// Whether a clear empties the tier behind the device too.
    clears_all: bool,
    device: BTreeMap<Vec<u8>, Held>,
    host: BTreeMap<Vec<u8>, u64>,
    clock: u64,
}

impl Cache {
    /// An empty one. With `salt` its names are unlike those of another life.
    #[must_use]
    pub(crate) fn new(salt: u64, capacity: usize, clears_all: bool) -> Self {
        let (device, host) = (BTreeMap::new(), BTreeMap::new());
        Self { salt, capacity, clears_all, device, host, clock: 0 }
    }

    fn name(&self, path: &[u8]) -> EngineBlockHash {
        EngineBlockHash(xxh3_64_with_seed(path, self.salt))
    }

    /// What it holds now.
    #[must_use]
    pub(crate) fn truth(&self) -> Truth {
        let device = self.device.iter().map(|(path, held)| ((Tier::Device, self.name(path)), held.copies));
        let host = self.host.keys().map(|path| ((Tier::Host, self.name(path)), 1));
        device.chain(host).collect()
    }

    /// One scheduler step: what it does is announced as one batch.
    pub(crate) fn step(&mut self, prompts: &[Vec<u8>], dice: &mut Dice) -> Vec<KvEvent> {
        self.clock += 1;
        let mut events = Vec::new();
        match dice.below(100) {
            0..2 => {
                self.device.clear();
                if self.clears_all {
                    self.host.clear();
                }
                events.push(KvEvent::AllBlocksCleared);
            }
            2..8 => events.extend(self.copy(dice)),
            8..20 => events.extend(self.offload(dice)),
            _ => {}
        }
        if events.is_empty() {
            for _ in 0..=dice.below(2) {
                if let Some(path) = dice.pick(prompts) {
                    self.request(path, &mut events);
                }
            }
        }
        events
    }

    fn request(&mut self, path: &[u8], events: &mut Vec<KvEvent>) {
        let path = &path[..path.len().min(self.capacity)];
        let hit = (1..=path.len()).take_while(|len| self.device.contains_key(&path[..*len])).count();
        for len in 1..=hit {
            if let Some(held) = self.device.get_mut(&path[..len]) {
                held.used = self.clock;
            }
        }
        let mut gone = Vec::new();
        while self.device.len() + path.len() - hit > self.capacity {
            let Some(leaf) = self.oldest_leaf(&path[..hit]) else { break };
            if let Some(held) = self.device.remove(&leaf) {
                gone.extend((0..held.copies).map(|_| self.name(&leaf)));
            }
        }
        if !gone.is_empty() {
            events.push(removed(gone, Tier::Device));
        }
        if hit < path.len() {
            events.push(self.stored(path, hit, Tier::Device));
            for len in hit + 1..=path.len() {
                self.device.insert(path[..len].to_vec(), Held { used: self.clock, copies: 1 });
            }
        }
    }

    /// The block used longest ago that no other hangs below, and that is not part of `spared`.
    fn oldest_leaf(&self, spared: &[u8]) -> Option<Vec<u8>> {
        let mut paths = self.device.iter().peekable();
        let mut best: Option<(u64, &Vec<u8>)> = None;
        while let Some((path, held)) = paths.next() {
            let leaf = paths.peek().is_none_or(|(next, _)| !next.starts_with(path));
            if leaf && !spared.starts_with(path) && best.is_none_or(|(used, _)| held.used < used) {
                best = Some((held.used, path));
            }
        }
        best.map(|(_, path)| path.clone())
    }

    /// A second copy of a chain, as an engine makes when it computes the same prompt twice at once.
    fn copy(&mut self, dice: &mut Dice) -> Option<KvEvent> {
        let path = self.any(dice)?;
        for len in 1..=path.len() {
            self.device.get_mut(&path[..len])?.copies += 1;
        }
        Some(self.stored(&path, 0, Tier::Device))
    }

    /// A block to host memory, and out of it again.
    fn offload(&mut self, dice: &mut Dice) -> Option<KvEvent> {
        if self.host.len() >= self.capacity / 2 {
            let (path, _) = self.host.iter().min_by_key(|(_, at)| **at)?;
            let path = path.clone();
            self.host.remove(&path);
            return Some(removed(vec![self.name(&path)], Tier::Host));
        }
        let path = self.any(dice)?;
        if self.host.contains_key(&path) {
            return None;
        }
        self.host.insert(path.clone(), self.clock);
        Some(self.stored(&path, path.len() - 1, Tier::Host))
    }

    fn any(&self, dice: &mut Dice) -> Option<Vec<u8>> {
        self.device.keys().nth(dice.below(self.device.len())).cloned()
    }

    fn stored(&self, path: &[u8], from: usize, tier: Tier) -> KvEvent {
        KvEvent::BlockStored(BlockStored {
            block_hashes: (from..path.len()).map(|last| self.name(&path[..=last])).collect(),
            parent: (from > 0).then(|| self.name(&path[..from])),
            token_ids: tokens(&path[from..]),
            block_size: BLOCK,
            tier,
            ..BlockStored::default()
        })
    }
}

fn removed(block_hashes: Vec<EngineBlockHash>, tier: Tier) -> KvEvent {
    KvEvent::BlockRemoved(BlockRemoved { block_hashes, tier, ..BlockRemoved::default() })
}
