//! The naive model: per owner a trie from paths to copies, asked block by block.

use radix_trie::{Trie, TrieCommon};
use std::collections::BTreeMap;

/// What one owner (worker, tier) holds: path → copies.
#[derive(Default)]
struct Owner {
    copies: Trie<Vec<u8>, u32>,
}

/// All owners, by (worker, tier name).
#[derive(Default)]
pub(crate) struct Oracle {
    owners: BTreeMap<(String, &'static str), Owner>,
}

pub(crate) const TIERS: [&str; 2] = ["device", "host"];

impl Oracle {
    pub(crate) fn store(&mut self, worker: &str, tier: &'static str, path: &[u8], from: usize) {
        let owner = self.owners.entry((worker.to_owned(), tier)).or_default();
        for end in from + 1..=path.len() {
            let copies = owner.copies.get(&path[..end].to_vec()).copied().unwrap_or(0);
            owner.copies.insert(path[..end].to_vec(), copies + 1);
        }
    }

    pub(crate) fn remove(&mut self, worker: &str, tier: &'static str, path: &[u8]) {
        let owner = self.owners.entry((worker.to_owned(), tier)).or_default();
        match owner.copies.get(&path.to_vec()).copied() {
            None => {}
            Some(1) => drop(owner.copies.remove(&path.to_vec())),
            Some(copies) => drop(owner.copies.insert(path.to_vec(), copies - 1)),
        }
    }

    /// Forgets one tier of a worker, or all of it.
    pub(crate) fn clear(&mut self, worker: &str, tier: Option<&'static str>) {
        self.owners.retain(|(w, t), _| w != worker || tier.is_some_and(|tier| *t != tier));
    }

    pub(crate) fn holds(&self, worker: &str, tier: &'static str, path: &[u8]) -> bool {
        let owner = self.owners.get(&(worker.to_owned(), tier));
        owner.is_some_and(|owner| owner.copies.get(&path.to_vec()).is_some())
    }

    /// Longest prefix held on the first `tiers` tiers together, in blocks.
    pub(crate) fn prefix(&self, worker: &str, tiers: usize, path: &[u8]) -> usize {
        let held = |end: &usize| TIERS[..tiers].iter().any(|tier| self.holds(worker, tier, &path[..*end]));
        (1..=path.len()).take_while(held).count()
    }

    pub(crate) fn entries(&self) -> usize {
        self.owners.values().map(|owner| owner.copies.iter().count()).sum()
    }
}
