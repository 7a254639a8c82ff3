//! `find_matches`: for every worker, the longest prefix of the prompt that it holds without a hole.

use std::sync::Arc;

use super::combine::{Held, by_engine_hashes, by_path};
use super::path::{Depths, Stretch, walk};
use super::prompt::{Prompt, Query, QueryError};
use crate::hash::{BlockHasher, SequenceHash};
use crate::ids::{DpRank, Tier};
use crate::index::{Family, IndexReader, OwnerSlot, Space, Stream, StreamStamp};
use crate::worker::WorkerSpec;

/// Buffers of a query, kept by the caller so that the next one allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) hasher: BlockHasher,
    pub(crate) walks: Vec<Walk>,
    spare: Vec<Walk>,
}

/// One namespace's part of a query.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) space: Space,
    pub(crate) block_size: u32,
    pub(crate) hidden: bool,
    pub(crate) hashes: Vec<SequenceHash>,
    pub(crate) path: Vec<Stretch>,
    depths: Depths,
}

/// Answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches {
    /// Tokens of the prompt; with hashes, blocks times block size.
    pub prompt_tokens: usize,
    /// Most matched tokens first, then by worker id and dp rank.
    pub workers: Vec<WorkerMatch>,
}

/// One stream's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerMatch {
    /// The worker.
    pub worker: Arc<WorkerSpec>,
    /// Its data-parallel rank.
    pub dp_rank: DpRank,
    /// Tokens a block; 0 when the stream has not announced any block yet.
    pub block_size: u32,
    /// Longest prefix held without a hole, in blocks.
    pub matched_blocks: usize,
    /// The same in tokens.
    pub matched_tokens: usize,
    /// Share of each tier, fastest first.
    pub tiers: Vec<TierMatch>,
    /// What the answer rests on.
    pub stream: StreamStamp,
    /// Whether the engine's events hide a salt or images that this prompt has: tokens alone then cannot tell.
    pub ambiguous: bool,
}

/// How much of a match lies on one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierMatch {
    /// The tier.
    pub tier: Tier,
    /// Blocks of the match on this tier.
    pub blocks: usize,
    /// Longest prefix on this tier and all faster ones together, in blocks.
    pub prefix_blocks: usize,
}

/// Finds for every worker of the query's tenant and model, and each of its streams, the longest prefix that
/// it holds. Exact for streams with complete coverage; for hybrid models no longer than what every group
/// holds.
///
/// # Errors
/// When the query contradicts itself.
///
/// ```
/// use kvindex_core::{Index, Query, Scratch, find_matches};
/// let index = Index::default();
/// let found = find_matches(&index.reader(), &Query::tokens("llama", &[1, 2, 3]), &mut Scratch::default())?;
/// assert!(found.workers.is_empty());
/// # Ok::<(), kvindex_core::QueryError>(())
/// ```
pub fn find_matches(
    reader: &IndexReader<'_>,
    query: &Query<'_>,
    scratch: &mut Scratch,
) -> Result<Matches, QueryError> {
    hash_prompt(reader, query, scratch)?;
    Ok(find_hashed(reader, query, scratch))
}

/// First half of [`find_matches`]: checks the query and hashes its prompt for every namespace that may hold
/// it. Apart so that a caller can time the halves.
///
/// # Errors
/// When the query contradicts itself.
pub fn hash_prompt(
    reader: &IndexReader<'_>,
    query: &Query<'_>,
    scratch: &mut Scratch,
) -> Result<(), QueryError> {
    query.check()?;
    scratch.hash_all(reader, query);
    Ok(())
}

/// Second half of [`find_matches`]: answers the query whose prompt [`hash_prompt`] hashed into `scratch`.
#[must_use]
pub fn find_hashed(reader: &IndexReader<'_>, query: &Query<'_>, scratch: &mut Scratch) -> Matches {
    scratch.walk_all(reader);
    let mut workers = Vec::new();
    for worker in reader.registry().workers() {
        let spec = &worker.spec;
        let asked = spec.model == query.model && spec.tenant == query.tenant && query.filter.passes(spec);
        if !asked {
            continue;
        }
        for stream in worker.streams.values().filter_map(|stream| reader.registry().stream(*stream)) {
            let found = scratch.match_stream(reader, query, stream, spec);
            if found.matched_blocks >= query.min_blocks {
                workers.push(found);
            }
        }
        if worker.streams.is_empty() && query.min_blocks == 0 {
            workers.push(WorkerMatch::nothing(spec, DpRank(0), StreamStamp::default()));
        }
    }
    workers.sort_by(|a, b| {
        let deepest = b.matched_tokens.cmp(&a.matched_tokens);
        deepest.then_with(|| a.worker.id.cmp(&b.worker.id)).then_with(|| a.dp_rank.cmp(&b.dp_rank))
    });
    workers.truncate(query.top_k.unwrap_or(usize::MAX));
    Matches { prompt_tokens: query.prompt_tokens(), workers }
}

impl WorkerMatch {
    fn nothing(spec: &Arc<WorkerSpec>, dp_rank: DpRank, stream: StreamStamp) -> Self {
        Self {
            worker: Arc::clone(spec),
            dp_rank,
            block_size: 0,
            matched_blocks: 0,
            matched_tokens: 0,
            tiers: Vec::new(),
            stream,
            ambiguous: false,
        }
    }
}

impl Scratch {
    /// Hashes the prompt for every namespace in which the query may have an answer.
    pub(crate) fn hash_all(&mut self, reader: &IndexReader<'_>, query: &Query<'_>) {
        self.spare.append(&mut self.walks);
        if matches!(query.prompt, Prompt::EngineHashes(_)) {
            return;
        }
        let family = Family { tenant: query.tenant, model: query.model, lora: query.lora };
        for space in reader.spaces().family(family) {
            let Some(namespace) = reader.spaces().get(*space) else { continue };
            if query.block_size.is_some_and(|size| size != namespace.block_size) {
                continue;
            }
            let mut walk = self.spare.pop().unwrap_or_default();
            walk.space = *space;
            walk.block_size = namespace.block_size;
            walk.hidden = query.hidden_from(namespace.scheme);
            query.sequence_hashes(namespace.block_size, namespace.scheme, &mut self.hasher, &mut walk.hashes);
            self.walks.push(walk);
        }
    }

    /// Walks the tree for every hashed prompt.
    pub(crate) fn walk_all(&mut self, reader: &IndexReader<'_>) {
        for step in &mut self.walks {
            walk(reader, step.space, &step.hashes, &mut step.path);
            step.depths.measure(reader, &step.path);
        }
    }

    /// The stream's best answer, over groups and namespaces.
    pub(crate) fn match_stream(
        &self,
        reader: &IndexReader<'_>,
        query: &Query<'_>,
        stream: &Stream,
        spec: &Arc<WorkerSpec>,
    ) -> WorkerMatch {
        let registry = reader.registry();
        let mut found = WorkerMatch::nothing(spec, stream.id.dp_rank, stream.stamp);
        let owners = stream.slots.iter().filter_map(|slot| Some((*slot, registry.owner(*slot)?)));
        let mut owners: Vec<_> = owners.collect();
        owners.sort_by_key(|(_, owner)| (owner.group, &owner.tier));
        found.block_size = owners.first().map_or(0, |(_, owner)| owner.block_size);
        let mut best: Option<WorkerMatch> = None;
        for group in owners.chunk_by(|a, b| a.1.group == b.1.group) {
            let on_tier = |tier: &Tier| query.filter.tier.is_none_or(|name| tier.name() == name);
            let held = group.iter().filter(|(_, owner)| on_tier(&owner.tier));
            let held: Vec<Held<'_>> =
                held.map(|(slot, owner)| Held { slot: *slot, tier: &owner.tier }).collect();
            let size = group.first().map_or(0, |(_, owner)| owner.block_size);
            let answer = self.match_group(reader, query, &held, size, &found);
            // A hit is what every group can serve; a group that cannot be judged serves nothing.
            if best.as_ref().is_none_or(|best| answer.matched_tokens < best.matched_tokens) {
                best = Some(answer);
            }
        }
        best.unwrap_or(found)
    }

    fn match_group(
        &self,
        reader: &IndexReader<'_>,
        query: &Query<'_>,
        held: &[Held<'_>],
        block_size: u32,
        blank: &WorkerMatch,
    ) -> WorkerMatch {
        let mut answer = WorkerMatch { block_size, ..blank.clone() };
        if let Prompt::EngineHashes(hashes) = query.prompt {
            if query.block_size == Some(block_size) {
                answer.fill(by_engine_hashes(reader, hashes, held), block_size);
            }
            return answer;
        }
        for walk in &self.walks {
            let (blocks, tiers) = match held {
                [only] => {
                    let blocks = walk.depths.of(only.slot);
                    let tier = only.tier.clone();
                    (blocks, vec![TierMatch { tier, blocks, prefix_blocks: blocks }])
                }
                several => by_path(reader, &walk.path, several),
            };
            if blocks * walk.block_size as usize > answer.matched_tokens {
                answer.fill((blocks, tiers), walk.block_size);
            }
            answer.ambiguous |= walk.hidden && walk.block_size == block_size;
        }
        answer
    }
}

impl Walk {
    /// Tokens of the prefix that one owner holds in this namespace.
    pub(crate) fn tokens_held(&self, owner: OwnerSlot) -> usize {
        self.depths.of(owner) * self.block_size as usize
    }
}

impl WorkerMatch {
    fn fill(&mut self, (blocks, tiers): (usize, Vec<TierMatch>), block_size: u32) {
        self.block_size = block_size;
        self.matched_blocks = blocks;
        self.matched_tokens = blocks * block_size as usize;
        self.tiers = tiers;
    }
}
