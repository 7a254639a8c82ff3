//! Shepherd Model Gateway's chain index, from the crate `smg-radix-tree`. Single-threaded.

use std::cell::RefCell;
use std::hint::black_box;

use radix_tree::{Config, HolderId, Overlap, OverlapScratch, RadixTree};

use super::KvIndex;
use crate::work::Credit;
use crate::work::stream::Block;

/// The tree, and each worker's name in it.
pub(crate) struct Smg {
    tree: RefCell<(RadixTree, Vec<HolderId>)>,
    scratch: RefCell<OverlapScratch>,
}

impl Default for Smg {
    fn default() -> Self {
        let tree = RadixTree::new(Config::default());
        Self { tree: RefCell::new((tree, Vec::new())), scratch: RefCell::default() }
    }
}

/// An event in the form that the tree takes: (engine hash, local hash) a block.
pub(crate) enum Event {
    Store(u32, Option<u64>, Vec<(u64, u64)>),
    Remove(u32, Vec<u64>),
}

fn holder(tree: &mut RadixTree, holders: &mut Vec<HolderId>, worker: u32) -> HolderId {
    while holders.len() <= worker as usize {
        holders.push(tree.create_holder(&holders.len().to_string()));
    }
    holders[worker as usize]
}

impl KvIndex for Smg {
    type Event = Event;
    type Query = Vec<u64>;
    type Answer = Vec<Overlap>;

    fn store(&self, worker: u32, _: u64, parent: Option<u64>, blocks: &[Block]) -> Event {
        Event::Store(worker, parent, blocks.iter().map(|block| (block.engine, block.local)).collect())
    }
    fn remove(&self, worker: u32, _: u64, hashes: &[u64]) -> Event {
        Event::Remove(worker, hashes.to_vec())
    }
    fn query(&self, locals: &[u64]) -> Vec<u64> {
        locals.to_vec()
    }
    fn apply(&self, event: Event) {
        let (tree, holders) = &mut *self.tree.borrow_mut();
        match event {
            Event::Store(worker, parent, blocks) => {
                let holder = holder(tree, holders, worker);
                let _ = black_box(tree.store(holder, parent, &blocks));
            }
            Event::Remove(worker, hashes) => {
                let holder = holder(tree, holders, worker);
                black_box(tree.remove(holder, &hashes));
            }
        }
    }
    fn find(&self, query: &Vec<u64>) -> Vec<Overlap> {
        let mut found = Vec::new();
        self.tree.borrow().0.overlap(query, &mut self.scratch.borrow_mut(), &mut found);
        found
    }
    fn credits(answer: &Vec<Overlap>) -> Vec<Credit> {
        let mut credits: Vec<Credit> =
            answer.iter().map(|found| (found.holder.parts().0, found.depth)).collect();
        credits.sort_unstable();
        credits
    }
}
