//! The two baselines: a map with one entry a block, from its chained hash to those who hold it. That is how
//! simple routers do it. They take every engine's hash for the same chain, which engines do not promise.

use dashmap::DashMap;
use parking_lot::RwLock;
use rustc_hash::FxBuildHasher;

use super::KvIndex;
use crate::work::Credit;
use crate::work::stream::{Block, chain_of};

/// Workers that hold a block, ascending.
type Holders = Vec<u32>;

fn insert(holders: &mut Holders, worker: u32) {
    if let Err(at) = holders.binary_search(&worker) {
        holders.insert(at, worker);
    }
}

/// Answers whether nobody is left.
fn remove(holders: &mut Holders, worker: u32) -> bool {
    if let Ok(at) = holders.binary_search(&worker) {
        holders.remove(at);
    }
    holders.is_empty()
}

/// A walk along a question's blocks: who still holds all so far, and how deep the others came.
#[derive(Default)]
struct Walk {
    depth: u32,
    alive: Vec<u32>,
    credits: Vec<Credit>,
}

impl Walk {
    /// Goes on by one block; answers whether anybody is left.
    fn step(&mut self, holders: &[u32]) -> bool {
        if self.depth == 0 {
            self.alive = holders.to_vec();
        } else if self.alive != holders {
            let (depth, credits) = (self.depth, &mut self.credits);
            self.alive.retain(|worker| {
                let holds = holders.binary_search(worker).is_ok();
                if !holds {
                    credits.push((*worker, depth));
                }
                holds
            });
        }
        self.depth += 1;
        !self.alive.is_empty()
    }

    fn finish(mut self) -> Vec<Credit> {
        let depth = self.depth;
        self.credits.extend(self.alive.iter().map(|worker| (*worker, depth)));
        self.credits
    }
}

/// A store or a removal of one worker's blocks, by engine hash.
pub(crate) struct Event {
    worker: u32,
    stored: bool,
    hashes: Vec<u64>,
}

/// What the two maps share but for the map itself.
macro_rules! block_map {
    ($name:ident) => {
        impl KvIndex for $name {
            type Event = Event;
            type Query = Vec<u64>;
            type Answer = Vec<Credit>;

            fn store(&self, worker: u32, _: u64, _: Option<u64>, blocks: &[Block]) -> Event {
                Event { worker, stored: true, hashes: blocks.iter().map(|block| block.engine).collect() }
            }
            fn remove(&self, worker: u32, _: u64, hashes: &[u64]) -> Event {
                Event { worker, stored: false, hashes: hashes.to_vec() }
            }
            fn query(&self, locals: &[u64]) -> Vec<u64> {
                chain_of(None, locals.iter().copied()).iter().map(|block| block.engine).collect()
            }
            fn apply(&self, event: Event) {
                if event.stored {
                    self.add(event.worker, &event.hashes);
                } else {
                    self.take(event.worker, &event.hashes);
                }
            }
            fn find(&self, query: &Vec<u64>) -> Vec<Credit> {
                self.walk(query)
            }
            fn credits(answer: &Vec<Credit>) -> Vec<Credit> {
                let mut credits = answer.clone();
                credits.sort_unstable();
                credits
            }
        }
    };
}

/// A `DashMap`, as concurrent as its shards are.
#[derive(Default)]
pub(crate) struct Sharded(DashMap<u64, Holders, FxBuildHasher>);

impl Sharded {
    fn add(&self, worker: u32, hashes: &[u64]) {
        for hash in hashes {
            insert(&mut self.0.entry(*hash).or_default(), worker);
        }
    }

    fn take(&self, worker: u32, hashes: &[u64]) {
        for hash in hashes {
            self.0.remove_if_mut(hash, |_, holders| remove(holders, worker));
        }
    }

    fn walk(&self, query: &[u64]) -> Vec<Credit> {
        let mut walk = Walk::default();
        for hash in query {
            let goes_on = self.0.get(hash).is_some_and(|holders| walk.step(&holders));
            if !goes_on {
                break;
            }
        }
        walk.finish()
    }
}

/// A `radix_trie::Trie` behind a lock.
#[derive(Default)]
pub(crate) struct Trie(RwLock<radix_trie::Trie<u64, Holders>>);

impl Trie {
    fn add(&self, worker: u32, hashes: &[u64]) {
        let mut trie = self.0.write();
        for hash in hashes {
            match trie.get_mut(hash) {
                Some(holders) => insert(holders, worker),
                None => drop(trie.insert(*hash, vec![worker])),
            }
        }
    }

    fn take(&self, worker: u32, hashes: &[u64]) {
        let mut trie = self.0.write();
        for hash in hashes {
            if trie.get_mut(hash).is_some_and(|holders| remove(holders, worker)) {
                trie.remove(hash);
            }
        }
    }

    fn walk(&self, query: &[u64]) -> Vec<Credit> {
        let trie = self.0.read();
        let mut walk = Walk::default();
        for hash in query {
            let goes_on = trie.get(hash).is_some_and(|holders| walk.step(holders));
            if !goes_on {
                break;
            }
        }
        walk.finish()
    }
}

block_map!(Sharded);
block_map!(Trie);
