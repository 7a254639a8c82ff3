//! A generated fleet that is large enough to weigh: conversations below shared system prompts, each held by two
//! engines, told over ZeroMQ as vLLM tells it.

use std::collections::BTreeSet;

use anyhow::Context;
use kvindex_recording::{Header, PromptSpec, Record, Recording, TokenRule};
use serde_json::json;

use crate::work::random::{Rng, mix};

/// Tokens of a block.
pub(super) const BLOCK: u32 = 16;
/// Blocks of an event, as a chunk of a prefill has them.
const CHUNK: usize = 128;
/// Room for the blocks of one prompt among the ids.
const STRIDE: u64 = 1 << 16;

/// How large a fleet is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    pub(super) seed: u64,
    pub(super) engines: u64,
    pub(super) systems: u64,
    /// Blocks of a system prompt.
    pub(super) shared: u64,
    pub(super) conversations: u64,
    /// Blocks of a conversation, its system prompt included.
    pub(super) depth: u64,
}

impl Fleet {
    /// A block of tokens each, by their ids: those of conversation `c`.
    fn ids(&self, c: u64) -> Vec<u64> {
        let system = (0..self.shared).map(|at| c % self.systems * STRIDE + at);
        system.chain((self.shared..self.depth).map(|at| (self.systems + c) * STRIDE + at)).collect()
    }

    fn rule(&self) -> TokenRule {
        TokenRule { seed: self.seed, chunk: BLOCK }
    }

    /// The tokens of these blocks.
    fn tokens(&self, ids: &[u64]) -> anyhow::Result<Vec<u32>> {
        let spec = PromptSpec { hash_ids: ids.to_vec(), tokens: ids.len() * BLOCK as usize, extra: None };
        self.rule().prompt(&spec).context("a prompt too long")
    }

    /// So many prompts of so many blocks, each the beginning of a conversation drawn at random.
    pub(super) fn prompts(&self, count: usize, blocks: usize) -> anyhow::Result<Vec<Vec<u32>>> {
        let mut rng = Rng(mix(self.seed ^ blocks as u64));
        let ids = (0..count).map(|_| self.ids(rng.below(self.conversations)));
        ids.map(|ids| self.tokens(ids.get(..blocks).unwrap_or(&ids))).collect()
    }

    /// All that the engines say, and how many (block, engine) entries that makes.
    pub(super) fn recording(&self) -> anyhow::Result<(Recording, usize)> {
        let mut seqs = vec![0; self.engines as usize];
        let (mut records, mut entries, mut systems) = (Vec::new(), 0, BTreeSet::new());
        for c in 0..self.conversations {
            let ids = self.ids(c);
            let first = c % self.engines;
            let second = (first + 1 + c / self.engines % (self.engines - 1)) % self.engines;
            for engine in [first, second] {
                let is_new = systems.insert((engine, c % self.systems));
                let from = if is_new { 0 } else { self.shared as usize };
                entries += ids.len() - from;
                for at in (from..ids.len()).step_by(CHUNK) {
                    let to = (at + CHUNK).min(ids.len());
                    let seq = &mut seqs[engine as usize];
                    records.push(self.record(engine, *seq, &ids, at..to)?);
                    *seq += 1;
                }
            }
        }
        Ok((Recording { header: self.header()?, records }, entries))
    }

    fn header(&self) -> anyhow::Result<Header> {
        let engine =
            |index: u64| json!({"index": index, "name": format!("engine-{index}"), "block_size": BLOCK});
        let engines: Vec<_> = (0..self.engines).map(engine).collect();
        Ok(serde_json::from_value(
            json!({"case": "fleet", "engine": "vllm", "version": "0.33.0", "engines": engines}),
        )?)
    }

    /// One stored event in the positions that vLLM gives its fields.
    fn record(
        &self,
        engine: u64,
        seq: u64,
        ids: &[u64],
        stored: std::ops::Range<usize>,
    ) -> anyhow::Result<Record> {
        let chain = |parent: &mut u64, id: &u64| {
            *parent = mix(*parent ^ mix(*id));
            Some(*parent)
        };
        let hashes: Vec<u64> = ids.iter().take(stored.end).scan(self.seed, chain).collect();
        let parent = stored.start.checked_sub(1).map(|at| hashes[at]);
        let tokens = self.tokens(&ids[stored.clone()])?;
        let (lora_id, lora_name, extra_keys) = (None::<u64>, None::<&str>, None::<u64>);
        let event =
            ("BlockStored", &hashes[stored], parent, tokens, BLOCK, lora_id, "GPU", lora_name, extra_keys);
        let payload = rmp_serde::to_vec(&(0.0, [event], Some(0)))?;
        Ok(Record { engine: engine as u32, seq, t_us: 0, topic: Vec::new(), payload })
    }
}
