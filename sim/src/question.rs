//! What clients ask an index.

use kvindex_core::{
    ClearPolicy, DpRank, LocalBlockHash, Prompt, Query, SequenceHash, StreamId, Tier, WorkerId, WorkerSpec,
    local_hash_of_le_bytes,
};
use kvindex_server::node::Node;

/// The model that all simulated engines serve.
pub(crate) const MODEL: &str = "m";
/// Tokens a block.
pub(crate) const BLOCK: u32 = 2;

/// One stream's part of an answer: blocks served, and for each tier blocks on it and the prefix up to it.
pub(crate) type Matched = (StreamId, usize, Vec<(Tier, usize, usize)>);

/// What is registered of a worker. Its offload tiers move single blocks, so that no chunk is guessed.
#[must_use]
pub(crate) fn spec(worker: WorkerId) -> WorkerSpec {
    let cleared = if clears_all(&worker) { ClearPolicy::AllTiers } else { ClearPolicy::Device };
    WorkerSpec { offload_chunk: Some(1), cleared, ..WorkerSpec::new(worker, MODEL) }
}

/// Whether an engine means every tier when it says that it cleared its cache; otherwise the device alone. Of both
/// kinds there are some.
#[must_use]
pub(crate) fn clears_all(worker: &WorkerId) -> bool {
    worker.as_str().bytes().last().is_some_and(|last| last % 2 == 1)
}

/// Tokens of a prompt of which each letter stands for a block.
#[must_use]
pub(crate) fn tokens(path: &[u8]) -> Vec<u32> {
    path.iter().flat_map(|letter| [u32::from(*letter), 7]).collect()
}

fn local(letter: u8) -> LocalBlockHash {
    let bytes: Vec<u8> = tokens(&[letter]).iter().flat_map(|token| token.to_le_bytes()).collect();
    local_hash_of_le_bytes(&bytes)
}

/// Sequence hashes of a prompt's prefixes.
#[must_use]
pub(crate) fn sequence_hashes(path: &[u8]) -> Vec<SequenceHash> {
    let mut before = None;
    let mut hashes = Vec::with_capacity(path.len());
    for letter in path {
        let hash = SequenceHash::chain(before, local(*letter));
        before = Some(hash);
        hashes.push(hash);
    }
    hashes
}

/// What each stream that serves anything serves of a prompt, in order of streams.
pub(crate) fn ask(node: &Node, path: &[u8]) -> Vec<Matched> {
    let hashes = sequence_hashes(path);
    let prompt = Prompt::SequenceHashes(&hashes);
    let query = Query { prompt, block_size: Some(BLOCK), ..Query::tokens(MODEL, &[]) };
    let Ok(found) = node.find(&query, false) else { return Vec::new() };
    let all = found.workers.into_iter().map(|found| found.matched);
    let serving = all.filter(|found| found.matched_blocks > 0);
    let matched = serving.map(|found| {
        let tiers = found.tiers.iter().map(|tier| (tier.tier.clone(), tier.blocks, tier.prefix_blocks));
        (stream_of(&found.worker.id, found.dp_rank), found.matched_blocks, tiers.collect())
    });
    let mut all: Vec<Matched> = matched.collect();
    all.sort_unstable();
    all
}

/// A stream by its parts.
#[must_use]
pub(crate) fn stream_of(worker: &WorkerId, dp_rank: DpRank) -> StreamId {
    StreamId { worker: worker.clone(), dp_rank }
}
