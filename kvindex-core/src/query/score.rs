//! `score`: the shortest answer there is, for routers that embed the index. Who holds how many blocks of a chain,
//! as numbers, without allocation: the walk goes only where somebody is still in the race, and streams that hold
//! nothing cost nothing.

use std::cmp::Reverse;

use super::found::Scratch;
use super::notes::Notes;
use super::prompt::{Filter, Prompt, Query, QueryError};
use crate::hash::SequenceHash;
use crate::ids::StreamId;
use crate::index::{Family, IndexReader, OwnerSet, Space, View, bits};
use crate::limits::{MAX_BLOCK_SIZE, MAX_PROMPT_TOKENS};
use crate::worker::DEFAULT_TENANT;

/// Words looked at in one go: one cache line.
const CHUNK: usize = 8;

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
    let (first, others) = race_all(reader.view(), query, scratch)?;
    if !others {
        return Ok(best(scratch, first, query));
    }
    scratch.scores.drain(..first);
    score_others(reader, query, scratch);
    keep_best(&mut scratch.scores);
    Ok(best(scratch, 0, query))
}

/// Scores the plain owners of all namespaces that the question may mean. Answers from where on the scores in
/// `scratch` are its answer, best first, and whether there may be others that cannot be scored so.
pub(super) fn race_all(
    view: &View,
    query: &ScoreQuery<'_>,
    scratch: &mut Scratch,
) -> Result<(usize, bool), QueryError> {
    if !(1..=MAX_BLOCK_SIZE).contains(&query.block_size) {
        return Err(QueryError::BlockSize(query.block_size));
    }
    let tokens = query.hashes.len().saturating_mul(query.block_size as usize);
    if tokens > MAX_PROMPT_TOKENS {
        return Err(QueryError::TooLong(tokens));
    }
    let family = Family { tenant: query.tenant, model: query.model, lora: query.lora };
    let (mut others, mut races) = (false, 0);
    let mut first = scratch.scores.len();
    for space in view.spaces.family_again(family, &mut scratch.family) {
        if view.spaces.get(*space).is_some_and(|namespace| namespace.block_size == query.block_size) {
            let Scratch { alive, scores, .. } = &mut *scratch;
            alive.clear();
            let notes = Notes { scores, first, streams: view.slots.plain_owners().1 };
            let mut race = Race { view, query, alive, base: 0, notes, last: first };
            others |= race.run(*space);
            first = race.notes.first;
            // Where chains have holes, a stream may match without the first block.
            others |= view.spaces.has_holes(*space);
            races += 1;
        }
    }
    if races > 1 && !others {
        scratch.scores.drain(..first);
        first = 0;
        keep_best(&mut scratch.scores);
    }
    Ok((first, others))
}

/// As many of the scores from `first` on as the question wants.
pub(super) fn best<'s>(scratch: &'s Scratch, first: usize, query: &ScoreQuery<'_>) -> &'s [Score] {
    let scores = scratch.scores.get(first..).unwrap_or_default();
    &scores[..scores.len().min(query.top_k)]
}

/// A stream may have blocks in several namespaces; its best answer counts.
#[cold]
fn keep_best(scores: &mut Vec<Score>) {
    scores.sort_unstable_by_key(|score| (score.stream, Reverse(score.blocks)));
    scores.dedup_by_key(|score| score.stream);
    scores.sort_unstable_by_key(|score| Reverse(score.blocks));
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
            if !wanted || stream.slots.iter().all(|slot| reader.view().slots.is_plain(*slot)) {
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
    view: &'a View,
    query: &'a ScoreQuery<'a>,
    /// Owners that hold all blocks so far, as words of bits, and the number of the first word.
    alive: &'a mut Vec<u64>,
    base: usize,
    notes: Notes<'a>,
    /// Notes from here on are another race's.
    last: usize,
}

impl Race<'_> {
    /// Scores the plain owners; answers whether others hold the first block too.
    fn run(&mut self, space: Space) -> bool {
        let (tree, hashes) = (&self.view.tree, self.query.hashes);
        let (mut at, mut others, mut reached) = (0, false, 0);
        'chain: while let Some((run, shared)) = tree.follow(space, &hashes[at..]) {
            let end = at + shared;
            for segment in run.holders.segments() {
                if reached == 0 {
                    others = self.start(&segment.owners);
                } else if !self.keep(&segment.owners, reached) {
                    break 'chain;
                }
                reached = (at + segment.end as usize).min(end);
                if reached == end {
                    break;
                }
            }
            if reached < end {
                // Blocks that somebody is about to hold.
                break;
            }
            at = end;
        }
        self.keep(&OwnerSet::Empty, reached);
        others
    }

    /// Lines up the plain owners of the first block; answers whether there are others.
    fn start(&mut self, owners: &OwnerSet) -> bool {
        let slots = &self.view.slots;
        let (base, words) = owners.words();
        self.base = base;
        let plain = slots.plain_owners().0.get(base..).unwrap_or_default();
        self.alive.extend(words.iter().zip(plain).map(|(all, plain)| all & plain));
        let others = self.alive != words;
        if let Some(candidates) = self.query.candidates {
            for (i, word) in self.alive.iter_mut().enumerate() {
                for slot in bits(base + i, *word) {
                    if !candidates.contains(slots.stream_number(slot)) {
                        *word &= !(1 << (slot.0 % 64));
                    }
                }
            }
        }
        self.notes.reserve(self.alive.len() * 64);
        self.last = self.notes.first;
        others
    }

    /// Ends at `depth` who is not in `owners`; answers whether anybody is left.
    fn keep(&mut self, owners: &OwnerSet, depth: usize) -> bool {
        let blocks = u32::try_from(depth).unwrap_or(u32::MAX);
        let left = match self.alive.as_mut_slice() {
            [alive] => {
                let gone = *alive & !owners.word(self.base);
                *alive &= !gone;
                let left = *alive != 0;
                if gone != 0 {
                    self.notes.add(self.base, gone, blocks);
                }
                left
            }
            _ => self.keep_wide(owners, blocks),
        };
        if self.query.top_k < self.last - self.notes.first {
            let members = self.alive.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            if members >= self.query.top_k {
                // So many go further than everyone noted so far.
                self.notes.first = self.last;
            }
        }
        left
    }

    /// [`Self::keep`] where many words are in play. Apart, so that a small fleet does not pay for it.
    #[inline(never)]
    fn keep_wide(&mut self, owners: &OwnerSet, blocks: u32) -> bool {
        let (first, words) = owners.words();
        let Some(words) = self.base.checked_sub(first).and_then(|i| words.get(i..i + self.alive.len()))
        else {
            return self.narrow(owners, blocks);
        };
        let (chunks, rest) = self.alive.as_chunks_mut::<CHUNK>();
        let (stay_chunks, stay_rest) = words.as_chunks::<CHUNK>();
        let (mut left, mut i) = (0, self.base);
        for (alive, stay) in chunks.iter_mut().zip(stay_chunks) {
            let gone = (0..CHUNK).fold(0, |gone, i| gone | alive[i] & !stay[i]);
            if gone != 0 {
                self.notes.end(i, alive, stay, blocks);
            }
            left |= alive.iter().fold(0, |left, alive| left | alive);
            i += CHUNK;
        }
        self.notes.end(i, rest, stay_rest, blocks);
        left |= rest.iter().fold(0, |left, alive| left | alive);
        left != 0
    }

    /// [`Self::keep`] where the sets lie differently among the words, as where few of many go on: what follows
    /// looks at those words only that still have a member.
    fn narrow(&mut self, owners: &OwnerSet, blocks: u32) -> bool {
        for (i, alive) in (self.base..).zip(self.alive.iter_mut()) {
            let gone = *alive & !owners.word(i);
            *alive &= !gone;
            if gone != 0 {
                self.notes.add(i, gone, blocks);
            }
        }
        while self.alive.pop_if(|word| *word == 0).is_some() {}
        let empty = self.alive.iter().take_while(|word| **word == 0).count();
        self.alive.drain(..empty);
        self.base += empty;
        !self.alive.is_empty()
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
