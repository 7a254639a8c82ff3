//! The answers of Mooncake's conductor, as JSON or MessagePack: cumulative counts, rank by rank. It takes no field that
//! it does not know.

use serde::Serialize;
use std::collections::BTreeMap;

use super::{Held, Question};
use crate::dialects::fields::{Fields, Scalar};
use crate::dialects::fold::{Rank, Ranks};
use crate::dialects::refusal::Refusal;

/// What `/query` takes; by hashes the same with another list.
const QUERY: [&str; 7] =
    ["block_size", "cache_salt", "instance_id", "lora_name", "model", "tenant_id", "token_ids"];
const QUERY_BY_HASH: [&str; 7] =
    ["block_size", "block_hash", "instance_id", "lora_name", "model", "tenant_id", "seq_hashes"];

/// What `/register` takes.
pub(in crate::dialects) const REGISTER: [&str; 11] = [
    "block_size",
    "cache_group",
    "dp_rank",
    "endpoint",
    "hash_profile",
    "instance_id",
    "lora_name",
    "modelname",
    "replay_endpoint",
    "tenant_id",
    "type",
];

/// What `/unregister` takes.
pub(in crate::dialects) const UNREGISTER: [&str; 3] = ["dp_rank", "instance_id", "tenant_id"];

/// An answer.
#[derive(Debug, Serialize)]
pub(in crate::dialects) struct Answer {
    instances: BTreeMap<String, Matched>,
}

/// What one instance holds, in tokens: each the best of its ranks.
#[derive(Debug, Serialize)]
struct Matched {
    longest_matched: u64,
    gpu: u64,
    dp: BTreeMap<String, u64>,
    cpu: u64,
    disk: u64,
    rank_matches: BTreeMap<String, RankMatched>,
}

/// What one rank holds, in tokens: a prefix on the device, with host memory behind it, with everything.
#[derive(Debug, Serialize)]
struct RankMatched {
    gpu: u64,
    cpu: u64,
    disk: u64,
}

impl RankMatched {
    fn of(rank: &Rank) -> Self {
        Self { gpu: rank.device, cpu: rank.host, disk: rank.matched }
    }
}

impl Matched {
    fn of(ranks: &Ranks) -> Self {
        let most = |tokens: fn(&Rank) -> u64| ranks.values().map(tokens).max().unwrap_or(0);
        // Texts, because a MessagePack map could have numbers for keys, and the conductor's has not.
        let each = || ranks.iter().map(|(number, rank)| (number.to_string(), rank));
        Self {
            longest_matched: most(|rank| rank.matched),
            gpu: most(|rank| rank.device),
            dp: each().map(|(number, rank)| (number, rank.device)).collect(),
            cpu: most(|rank| rank.host),
            disk: most(|rank| rank.matched),
            rank_matches: each().map(|(number, rank)| (number, RankMatched::of(rank))).collect(),
        }
    }
}

/// Refuses what a call does not take, and null where the conductor does.
pub(in crate::dialects) fn only(fields: &Fields, known: &[&str]) -> Result<(), Refusal> {
    let foreign = fields.names().find(|name| !known.contains(name)).or(fields.unknown.as_deref());
    if let Some(name) = foreign {
        let message = format!("is not known; known are {}", known.join(", "));
        return Err(Refusal::of(name, "unknown_field", message));
    }
    for name in ["tenant_id", "lora_name"] {
        if fields.one(name) == Some(&Scalar::Null) {
            return Err(Refusal::of(name, "invalid_type", "must be a text; leave it out for none"));
        }
    }
    Ok(())
}

/// What `/query` asks, or `/query_by_hash`, which the conductor itself has not.
pub(in crate::dialects) fn question(
    fields: &mut Fields,
    by_hash: bool,
    limit: usize,
) -> Result<Question, Refusal> {
    only(fields, if by_hash { &QUERY_BY_HASH } else { &QUERY })?;
    Question::read(fields, by_hash, limit)
}

/// What is told of what a question found.
pub(in crate::dialects) fn answer(held: Held) -> Answer {
    let instances = held.instances.into_iter().map(|(name, ranks)| (name, Matched::of(&ranks)));
    Answer { instances: instances.collect() }
}
