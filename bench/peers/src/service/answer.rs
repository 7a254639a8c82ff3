//! What both servers answer. The peer's crate has no client and no type that reads its answers, only those that
//! write them, so this is written from those.

use std::collections::BTreeMap;

use serde::Deserialize;

/// An answer in the peer's shape: every field is there, and no other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// Tokens on the device, by instance and rank.
    scores: BTreeMap<u64, BTreeMap<u32, u32>>,
    /// How often blocks were asked for: counted on neither side.
    frequencies: Vec<usize>,
    instances: BTreeMap<u64, Matched>,
}

/// What one instance holds, in tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matched {
    longest_matched: u32,
    gpu: u32,
    dp: BTreeMap<u32, u32>,
    cpu: u32,
    disk: u32,
}

impl Answer {
    /// Tokens that one rank holds on its device.
    pub(super) fn device(&self, instance: u64, rank: u32) -> u64 {
        let ranks = self.instances.get(&instance).map(|matched| &matched.dp);
        ranks.and_then(|ranks| ranks.get(&rank)).copied().unwrap_or(0).into()
    }

    /// Tokens of the best instance, and how many hold something.
    pub(super) fn best(&self) -> (u32, usize) {
        let longest = self.instances.values().map(|matched| matched.longest_matched).max();
        (longest.unwrap_or(0), self.instances.len())
    }
}
