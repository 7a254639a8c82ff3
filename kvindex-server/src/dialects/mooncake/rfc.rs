//! The JSON of Mooncake's documents: answers by tenant, with counts of blocks on each medium.

use serde::Serialize;
use std::collections::BTreeMap;

use super::{Held, Question};
use crate::dialects::fields::Fields;
use crate::dialects::fold::{Rank, Ranks};
use crate::dialects::refusal::Refusal;

/// An answer: instances by tenant.
pub(in crate::dialects) type Answer = BTreeMap<String, BTreeMap<String, Matched>>;

/// What one instance holds, in tokens. Media overlap: a block may lie on several.
#[derive(Debug, Serialize)]
pub(in crate::dialects) struct Matched {
    longest_matched: u64,
    #[serde(rename = "DP")]
    ranks: BTreeMap<u32, u64>,
    #[serde(rename = "GPU")]
    gpu: u64,
    #[serde(rename = "CPU")]
    cpu: u64,
    #[serde(rename = "DISK")]
    disk: u64,
    /// Future media may be named, say the documents; left out where nothing lies there.
    #[serde(rename = "EXTERNAL", skip_serializing_if = "is_zero")]
    external: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(tokens: &u64) -> bool {
    *tokens == 0
}

impl Matched {
    /// The documents join what an instance's ranks hold into one prefix. No rank could serve that, so here it is the
    /// best rank's.
    fn of(ranks: &Ranks) -> Self {
        let most = |tokens: fn(&Rank) -> u64| ranks.values().map(tokens).max().unwrap_or(0);
        let held = ranks.iter().filter(|(_, rank)| rank.on_device > 0);
        Self {
            longest_matched: most(|rank| rank.matched),
            ranks: held.map(|(number, rank)| (*number, rank.on_device)).collect(),
            gpu: most(|rank| rank.on_device),
            cpu: most(|rank| rank.on_host),
            disk: most(|rank| rank.on_disk),
            external: most(|rank| rank.on_external),
        }
    }
}

/// What `/query` asks, or `/query_by_hash`.
pub(in crate::dialects) fn question(
    fields: &mut Fields,
    by_hash: bool,
    limit: usize,
) -> Result<Question, Refusal> {
    if fields.number::<i64>("lora_id", &(i64::MIN.into()..=i64::MAX.into()))?.is_some_and(|id| id >= 0) {
        let message = "adapters are known by name here; give lora_name";
        return Err(Refusal::of("lora_id", "unsupported", message));
    }
    Question::read(fields, by_hash, limit)
}

/// What is told of what a question found.
pub(in crate::dialects) fn answer(held: Held) -> Answer {
    let Held { found, instances, only } = held;
    let mut matched: BTreeMap<String, Matched> =
        instances.iter().map(|(name, ranks)| (name.clone(), Matched::of(ranks))).collect();
    if let Some(only) = only {
        // Whoever names one hears of it.
        matched.entry(only).or_insert_with(|| Matched::of(&Ranks::new()));
    }
    if matched.is_empty() { Answer::new() } else { [(found.tenant, matched)].into() }
}
