//! `find_matches`: for every worker, the longest prefix of the prompt that it holds without a hole.

use std::sync::Arc;

use super::combine::{Held, by_engine_hashes, by_path};
use super::doubt::{Doubt, Doubts};
use super::groups::{GroupHeld, Units, longest_hit};
use super::path::{Depths, Stretch, walk};
use super::prompt::{Prompt, Query, QueryError};
use super::score::Score;
use crate::engine::{ClearPolicy, HiddenIdentity};
use crate::hash::{BlockHasher, SequenceHash};
use crate::ids::{DpRank, Tier};
use crate::index::{IndexReader, Owner, OwnerBlocks, OwnerSlot, Shape, Space, Stream, StreamStamp};
use crate::worker::{HashScheme, WorkerSpec};

/// Buffers of a query, kept by the caller so that the next one allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) hasher: BlockHasher,
    pub(crate) walks: Vec<Walk>,
    pub(super) spare: Vec<Walk>,
    /// Where the last family of namespaces was found.
    pub(crate) family: usize,
    pub(crate) alive: Vec<u64>,
    pub(crate) scores: Vec<Score>,
}

/// One namespace's part of a query.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) space: Space,
    pub(crate) block_size: u32,
    /// Whether engines of this namespace hide something that this prompt has.
    pub(crate) hidden: bool,
    pub(crate) scheme: HashScheme,
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
    /// Tokens a block; in hybrid models those of one hash, which all groups' sizes are multiples of. 0 when the
    /// stream has not announced any block yet.
    pub block_size: u32,
    /// Longest prefix held without a hole, in blocks.
    pub matched_blocks: usize,
    /// The same in tokens.
    pub matched_tokens: usize,
    /// Share of each tier, fastest first.
    pub tiers: Vec<TierMatch>,
    /// What the answer rests on.
    pub stream: StreamStamp,
    /// What the engine's events leave open about this answer; empty when it is as good as they are.
    pub doubts: Doubts,
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
/// it holds; for hybrid models the longest that every group can serve. Exact for streams with complete coverage
/// and no [`Doubts`].
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
    let chosen = query.filter.chosen();
    for worker in reader.registry().workers() {
        let spec = &worker.spec;
        let asked = spec.model == query.model && spec.tenant == query.tenant && chosen.passes(spec);
        if !asked {
            continue;
        }
        for stream in worker.streams.values().filter_map(|stream| reader.registry().stream(*stream)) {
            if query.min_blocks > 0 && scratch.surely_nothing(reader, query, stream) {
                continue;
            }
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
            doubts: Doubts::default(),
        }
    }
}

impl Scratch {
    /// Walks the tree for every hashed prompt.
    pub(crate) fn walk_all(&mut self, reader: &IndexReader<'_>) {
        for step in &mut self.walks {
            walk(reader, step.space, &step.hashes, &mut step.path);
            step.depths.measure(reader, &step.path);
        }
    }

    /// Whether the stream's only owner holds nothing of the prompt, seen without looking further.
    fn surely_nothing(&self, reader: &IndexReader<'_>, query: &Query<'_>, stream: &Stream) -> bool {
        let by_hash = matches!(query.prompt, Prompt::EngineHashes(_));
        let [only] = stream.slots.as_slice() else { return false };
        !by_hash
            && reader.view().slots.is_plain(*only)
            && self.walks.iter().all(|walk| walk.depths.of(*only) == 0)
    }

    /// The stream's answer: the best over namespaces of what all its groups can serve.
    pub(crate) fn match_stream(
        &self,
        reader: &IndexReader<'_>,
        query: &Query<'_>,
        stream: &Stream,
        spec: &Arc<WorkerSpec>,
    ) -> WorkerMatch {
        let mut found = WorkerMatch::nothing(spec, stream.id.dp_rank, stream.stamp);
        found.block_size = stream.groups.unit(&spec.groups);
        let on_tier = |tier: &Tier| query.filter.tier.is_none_or(|name| tier.name() == name);
        let mut owners = owners_of(reader, stream, on_tier);
        let simple = stream.groups.is_simple(&spec.groups);
        let walk = if simple && owners.iter().all(|owner| owner.chunk <= 1) {
            let held: Vec<Held<'_>> = owners.iter().map(|owner| owner.held).collect();
            self.match_simple(reader, query, &held, &mut found)
        } else {
            self.match_groups(reader, query, &stream.groups.shapes(&spec.groups), &owners, &mut found)
        };
        found.doubts = doubts(reader, query, stream, &found, walk);
        let guessed = spec.offload_chunk.is_none() && owners.iter().any(|owner| owner.chunk > 1);
        if guessed {
            owners.iter_mut().for_each(|owner| owner.chunk = 1);
            let mut alone = found.clone();
            self.match_groups(reader, query, &stream.groups.shapes(&spec.groups), &owners, &mut alone);
            found.doubts.add(Doubt::GuessedChunk, alone.matched_tokens > found.matched_tokens);
        }
        found
    }

    /// One group that needs every block. Answers the walk that found most, if one found anything.
    fn match_simple(
        &self,
        reader: &IndexReader<'_>,
        query: &Query<'_>,
        held: &[Held<'_>],
        found: &mut WorkerMatch,
    ) -> Option<&Walk> {
        if let Prompt::EngineHashes(hashes) = query.prompt {
            if query.block_size == Some(found.block_size) {
                found.fill(by_engine_hashes(reader, hashes, held), found.block_size);
            }
            return None;
        }
        let mut best = None;
        for walk in &self.walks {
            let (blocks, tiers) = match held {
                [only] => {
                    let blocks = walk.depths.of(only.slot);
                    let tier = only.tier.clone();
                    (blocks, vec![TierMatch { tier, blocks, prefix_blocks: blocks }])
                }
                several => by_path(reader, &walk.path, several),
            };
            if blocks * walk.block_size as usize > found.matched_tokens {
                found.fill((blocks, tiers), walk.block_size);
                best = Some(walk);
            }
        }
        best
    }

    /// Groups that must all serve the match. Their chains count in the stream's hash units.
    fn match_groups(
        &self,
        reader: &IndexReader<'_>,
        query: &Query<'_>,
        shapes: &[Shape],
        owners: &[GroupHeld<'_>],
        found: &mut WorkerMatch,
    ) -> Option<&Walk> {
        let unit = found.block_size;
        if let Prompt::EngineHashes(hashes) = query.prompt {
            if query.block_size == Some(unit) {
                found.fill(longest_hit(reader, Units::Engine(hashes), shapes, owners), unit);
            }
            return None;
        }
        let mut best = None;
        for walk in self.walks.iter().filter(|walk| walk.block_size == unit) {
            let units = Units::Path(&walk.path);
            let (blocks, tiers) = longest_hit(reader, units, shapes, owners);
            if blocks * unit as usize > found.matched_tokens {
                found.fill((blocks, tiers), unit);
                best = Some(walk);
            }
        }
        best
    }
}

/// A stream's owners on the tiers asked for, the fastest first.
pub(crate) fn owners_of<'a>(
    reader: &IndexReader<'a>,
    stream: &Stream,
    on_tier: impl Fn(&Tier) -> bool,
) -> Vec<GroupHeld<'a>> {
    let registry = reader.registry();
    let owners = stream.slots.iter().filter_map(|slot| Some((*slot, registry.owner(*slot)?)));
    let owners = owners.filter(|(_, owner)| on_tier(&owner.tier));
    // The registry keeps a stream's owners in order of tier and group.
    owners.map(|(slot, owner)| GroupHeld::of(slot, owner, &stream.spec)).collect()
}

/// What the engine's events leave open about an answer that `walk` found.
fn doubts(
    reader: &IndexReader<'_>,
    query: &Query<'_>,
    stream: &Stream,
    found: &WorkerMatch,
    walk: Option<&Walk>,
) -> Doubts {
    let spec = &*stream.spec;
    let simple = stream.groups.is_simple(&spec.groups);
    let owners = || stream.slots.iter().filter_map(|slot| reader.registry().owner(*slot));
    let mut doubts = Doubts::default();
    doubts.add(Doubt::RepeatedReports, stream.reports.seen());
    let unclear = !simple && stream.groups.shapes(&spec.groups).iter().any(|shape| !shape.known);
    doubts.add(Doubt::UnknownGroups, unclear);
    // Whether the tiers behind the device make the match longer, and whether they could.
    let on_device = found.tiers.iter().find(|t| t.tier == Tier::Device).map_or(0, |t| t.prefix_blocks);
    let lengthened = found.matched_blocks > on_device;
    let beyond = query.filter.tier.is_none_or(|name| name != Tier::Device.name());
    let open = if spec.cleared == ClearPolicy::AllTiers { beyond } else { lengthened };
    doubts.add(Doubt::SilentClear, stream.silent_clear && open);
    if matches!(query.prompt, Prompt::EngineHashes(_)) {
        return doubts;
    }
    let possible = spec.hidden_identity == HiddenIdentity::Possible;
    let by_tokens = lengthened && owners().any(|owner| owner.by_tokens && !owner.blocks.is_empty());
    let hides =
        |walk: &Walk| stream.profile.hides_identity(query.lora.is_some()) || !walk.scheme.salt || by_tokens;
    let hidden = walk.is_some_and(|walk| walk.hidden || (possible && hides(walk)));
    doubts.add(Doubt::HiddenIdentity, hidden);
    let by_content = walk.map_or(stream.profile.hashes_content(), |walk| walk.scheme.content_only);
    doubts.add(Doubt::ContentHashes, by_content);
    // A block that waits for its parent is out of an ordinary model's reach, parent or not.
    let lost = |blocks: &OwnerBlocks| blocks.unplaced() > if simple { blocks.orphans() } else { 0 };
    doubts.add(Doubt::UnplacedBlocks, !by_content && owners().any(|owner| lost(&owner.blocks)));
    doubts
}

impl<'a> GroupHeld<'a> {
    fn of(slot: OwnerSlot, owner: &'a Owner, spec: &WorkerSpec) -> Self {
        let told = spec.offload_chunk.filter(|_| owner.tier != Tier::Device);
        let chunk = told.unwrap_or(owner.chunk) as usize;
        Self { group: owner.group, held: Held { slot, tier: &owner.tier }, chunk }
    }
}

impl Walk {
    /// Owners that hold some of the prefix, each with its blocks.
    pub(super) fn held(&self) -> impl Iterator<Item = (OwnerSlot, u32)> {
        self.depths.all()
    }

    /// Blocks of the longest prefix that one owner holds.
    pub(super) fn longest_held(&self) -> usize {
        self.held().map(|(_, depth)| depth as usize).max().unwrap_or(0)
    }

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
