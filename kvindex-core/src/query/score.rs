//! `score`: the shortest answer there is, for routers that embed the index. Who holds how many blocks of a chain,
//! as numbers, without allocation: the walk goes only where somebody is still in the race, and streams that hold
//! nothing cost nothing.

use std::cmp::Reverse;

use super::found::Scratch;
use super::prompt::{Filter, Prompt, Query, QueryError};
use crate::hash::SequenceHash;
use crate::ids::StreamId;
use crate::index::{Family, IndexReader, OwnerSet, OwnerSlot, Place, Space, bits};
use crate::limits::{MAX_BLOCK_SIZE, MAX_PROMPT_TOKENS};
use crate::worker::DEFAULT_TENANT;

/// A question for [`score`]: a chain of sequence hashes in one block size.
#[derive(Debug, Clone, Copy)]
pub struct ScoreQuery<'a> {
    /// Tenant.
    pub tenant: &'a str,
    /// Model.
    pub model: &'a str,
    /// LoRA adapter.
    pub lora: Option<&'a str>,
    /// Tokens a block.
    pub block_size: u32,
    /// Sequence hashes of the prompt's blocks, first to last; see [`SequenceHash::chain`].
    pub hashes: &'a [SequenceHash],
    /// Only these streams; `None` for all.
    pub candidates: Option<&'a Candidates>,
    /// Only the best so many. The search stops noting others as soon as so many are known to be better.
    pub top_k: usize,
}

impl<'a> ScoreQuery<'a> {
    /// A question to every stream of a model, without adapter, in the default tenant.
    #[must_use]
    pub fn new(model: &'a str, block_size: u32, hashes: &'a [SequenceHash]) -> Self {
        Self {
            tenant: DEFAULT_TENANT,
            model,
            lora: None,
            block_size,
            hashes,
            candidates: None,
            top_k: usize::MAX,
        }
    }
}

/// One stream's share of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// Which stream: [`IndexReader::stream_of`] says its name.
    pub stream: StreamSlot,
    /// Longest prefix that it can serve, in blocks.
    pub blocks: u32,
}

/// Number of a stream inside one index. It stays the same for as long as the stream's worker is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSlot(pub(crate) u32);

impl StreamSlot {
    /// The number itself: small, so that a router can keep what it knows of a stream in a table beside the index.
    /// Numbers of workers that left are given again.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// A set of streams to choose among, by number; see [`IndexReader::candidates`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    streams: Vec<u64>,
}

impl Candidates {
    pub(crate) fn insert(&mut self, stream: u32) {
        let word = stream as usize / 64;
        if self.streams.len() <= word {
            self.streams.resize(word + 1, 0);
        }
        self.streams[word] |= 1 << (stream % 64);
    }

    fn contains(&self, stream: u32) -> bool {
        self.streams.get(stream as usize / 64).is_some_and(|word| word >> (stream % 64) & 1 == 1)
    }
}

/// Scores every stream that can serve a prefix of the chain, the longest first, equals in no particular order. Says the same as
/// [`find_matches`](super::find_matches) with these sequence hashes, and no more: no tiers, stamps or doubts.
///
/// # Errors
/// When the block size is 0 or too large, or the chain is longer than any prompt.
///
/// ```
/// use kvindex_core::{Index, ScoreQuery, Scratch, score};
/// let index = Index::default();
/// let query = ScoreQuery::new("llama", 16, &[]);
/// assert!(score(&index.reader(), &query, &mut Scratch::default())?.is_empty());
/// # Ok::<(), kvindex_core::QueryError>(())
/// ```
pub fn score<'s>(
    reader: &IndexReader<'_>,
    query: &ScoreQuery<'_>,
    scratch: &'s mut Scratch,
) -> Result<&'s [Score], QueryError> {
    if !(1..=MAX_BLOCK_SIZE).contains(&query.block_size) {
        return Err(QueryError::BlockSize(query.block_size));
    }
    let tokens = query.hashes.len().saturating_mul(query.block_size as usize);
    if tokens > MAX_PROMPT_TOKENS {
        return Err(QueryError::TooLong(tokens));
    }
    scratch.scores.clear();
    let family = Family { tenant: query.tenant, model: query.model, lora: query.lora };
    let (mut others, mut races) = (false, 0);
    for space in reader.spaces().family(family) {
        if reader.spaces().get(*space).is_some_and(|namespace| namespace.block_size == query.block_size) {
            let race = Race { reader, query, from: scratch.scores.len() };
            others |= race.run(*space, &mut scratch.alive, &mut scratch.scores);
            // Where chains have holes, a stream may match without the first block.
            others |= reader.spaces().has_holes(*space);
            races += 1;
        }
    }
    if others {
        score_others(reader, query, scratch);
        races += 1;
    }
    let scores = &mut scratch.scores;
    if races == 1 {
        scores.reverse();
    } else {
        // A stream may have blocks in several namespaces; its best answer counts.
        scores.sort_unstable_by_key(|score| (score.stream, Reverse(score.blocks)));
        scores.dedup_by_key(|score| score.stream);
        scores.sort_unstable_by_key(|score| Reverse(score.blocks));
    }
    scores.truncate(query.top_k);
    Ok(scores)
}

/// Streams whose answer is more than one owner's depth (tiers, groups, chunks) are matched in full.
#[cold]
fn score_others(reader: &IndexReader<'_>, query: &ScoreQuery<'_>, scratch: &mut Scratch) {
    let full = Query {
        tenant: query.tenant,
        model: query.model,
        lora: query.lora,
        prompt: Prompt::SequenceHashes(query.hashes),
        block_size: Some(query.block_size),
        filter: Filter::default(),
        top_k: None,
        min_blocks: 1,
    };
    scratch.hash_all(reader, &full);
    scratch.walk_all(reader);
    let registry = reader.registry();
    let asked = |spec: &crate::WorkerSpec| spec.model == query.model && spec.tenant == query.tenant;
    for worker in registry.workers().filter(|worker| asked(&worker.spec)) {
        for number in worker.streams.values().copied() {
            let Some(stream) = registry.stream(number) else { continue };
            let wanted = query.candidates.is_none_or(|candidates| candidates.contains(number));
            if !wanted || stream.slots.iter().all(|slot| registry.is_plain(*slot)) {
                continue;
            }
            let blocks = scratch.match_stream(reader, &full, stream, &worker.spec).matched_blocks;
            if let Some(blocks) = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0) {
                scratch.scores.push(Score { stream: StreamSlot(number), blocks });
            }
        }
    }
}

/// One namespace's owners running along the chain.
struct Race<'a> {
    reader: &'a IndexReader<'a>,
    query: &'a ScoreQuery<'a>,
    /// Scores before this one are another race's.
    from: usize,
}

impl Race<'_> {
    /// Scores the plain owners, the shortest first; answers whether others hold the first block too.
    fn run(&self, space: Space, alive: &mut Vec<u64>, scores: &mut Vec<Score>) -> bool {
        let (tree, hashes) = (self.reader.tree(), self.query.hashes);
        alive.clear();
        let (mut at, mut others, mut reached) = (0, false, 0);
        'chain: while let Some(head) = hashes.get(at) {
            let Some(number) = tree.head(space, *head) else { break };
            let Some(run) = tree.run(number) else { break };
            let end = at + tree.common(Place { run: number, offset: 0 }, &hashes[at..]);
            for segment in run.holders.segments() {
                if reached == 0 {
                    others = self.start(&segment.owners, alive);
                } else if !self.keep(alive, &segment.owners, reached, scores) {
                    break 'chain;
                }
                reached = (at + segment.end as usize).min(end);
                if reached == end {
                    break;
                }
            }
            at = end;
        }
        self.keep(alive, &OwnerSet::Empty, reached, scores);
        others
    }

    /// Lines up the plain owners of the first block; answers whether there are others.
    fn start(&self, owners: &OwnerSet, alive: &mut Vec<u64>) -> bool {
        let registry = self.reader.registry();
        let mut others = false;
        alive.extend((0..owners.word_count()).map(|i| {
            let (all, plain) = (owners.word(i), registry.plain_word(i));
            others |= all & !plain != 0;
            all & plain
        }));
        if let Some(candidates) = self.query.candidates {
            for (i, word) in alive.iter_mut().enumerate() {
                for slot in bits(i, *word) {
                    if !candidates.contains(registry.stream_number(slot)) {
                        *word &= !(1 << (slot.0 % 64));
                    }
                }
            }
        }
        others
    }

    /// Ends at `depth` who is not in `owners`; answers whether anybody is left.
    fn keep(&self, alive: &mut [u64], owners: &OwnerSet, depth: usize, scores: &mut Vec<Score>) -> bool {
        let mut left = 0;
        for (i, word) in alive.iter_mut().enumerate() {
            let gone = *word & !owners.word(i);
            *word &= !gone;
            left += word.count_ones() as usize;
            if gone != 0 {
                self.note(i, gone, depth, scores);
            }
        }
        if left >= self.query.top_k {
            // So many go further than everyone noted so far.
            scores.truncate(self.from);
        }
        left > 0
    }

    fn note(&self, i: usize, gone: u64, depth: usize, scores: &mut Vec<Score>) {
        let registry = self.reader.registry();
        let blocks = u32::try_from(depth).unwrap_or(u32::MAX);
        let score = |slot: OwnerSlot| Score { stream: StreamSlot(registry.stream_number(slot)), blocks };
        scores.extend(bits(i, gone).map(score).filter(|score| score.blocks > 0));
    }
}

impl<'a> IndexReader<'a> {
    /// The name of a stream; `None` when its worker is not registered any more.
    #[must_use]
    pub fn stream_of(&self, slot: StreamSlot) -> Option<&'a StreamId> {
        self.registry().stream(slot.0).map(|stream| &stream.id)
    }

    /// A set of candidates for [`ScoreQuery`]: the streams of these that the index has heard of. Made once for
    /// many questions, until workers come or go.
    pub fn candidates<'b>(&self, streams: impl IntoIterator<Item = &'b StreamId>) -> Candidates {
        let mut candidates = Candidates::default();
        for id in streams {
            if let Some(number) = self.registry().stream_number_of(id) {
                candidates.insert(number);
            }
        }
        candidates
    }
}
