//! Prompts that were routed a moment ago and that their engines have not spoken of yet. Two requests with the same long
//! prefix that come within one prefill would otherwise go to two workers, and both would compute it.
//!
//! All of it is this client's: no node learns of it, and other routers do not see it.

mod chain;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvindex_proto::v1;

use crate::routing::Client;
use chain::Blocks;

/// The doubt that a match carries when it rests on a routed prompt and not on the engine's word.
pub const SPECULATIVE: &str = "speculative";

/// Prompts kept. A router that sends a thousand a second and a TTL of five seconds keep the last one's worth.
const MAX_PROMPTS: usize = 1_024;

/// Blocks of them, 8 bytes each: 2 MiB.
const MAX_BLOCKS: usize = 262_144;

/// Tokens a block where no engine has said how many: vLLM's default. A worker that never stored anything says 0.
const USUAL_BLOCK: u32 = 16;

/// The tier that a prefill fills.
const DEVICE: &str = "device";

/// A prompt that was routed, to be taken back if it did not get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Routed(u64);

/// What was routed lately.
#[derive(Debug)]
pub(crate) struct Speculations {
    ttl: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    entries: VecDeque<Entry>,
    blocks: usize,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    space: u64,
    block_size: u32,
    /// A hash of each prefix, block by block.
    chain: Vec<u64>,
    worker_id: String,
    dp_rank: u32,
    /// 0 before the engine was heard.
    generation: u64,
    until: Instant,
    /// So many blocks the engine has spoken of since: what it says of them counts, even that they are gone.
    confirmed: usize,
}

/// By worker and rank: so many blocks, of so many tokens.
type Deeper = HashMap<(String, u32), (u64, u32)>;

/// What a question needs when its answer comes.
#[derive(Debug)]
pub(crate) struct Speculated {
    space: u64,
    blocks: Blocks,
    /// Of what was routed in that space when the question was asked.
    block_sizes: Vec<u32>,
    top_k: Option<u32>,
    min_matched_blocks: u32,
}

impl Speculations {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, kept: Mutex::default() }
    }

    pub(crate) fn len(&self) -> usize {
        let mut kept = self.kept();
        kept.expire(Instant::now());
        kept.entries.len()
    }

    fn insert(&self, prompt: &v1::Prompt, worker: &v1::WorkerMatch) -> Routed {
        let said = [worker.block_size, prompt.block_size].into_iter().find(|tokens| *tokens > 0);
        let block_size = said.unwrap_or(USUAL_BLOCK);
        // All that takes as long as the prompt is done before the lock is taken: every call of the client needs it.
        let mut entry = Entry {
            id: 0,
            space: chain::space(prompt),
            block_size,
            chain: Blocks::of(prompt).chain(block_size),
            worker_id: worker.worker_id.clone(),
            dp_rank: worker.dp_rank,
            generation: generation(worker),
            until: Instant::now(),
            confirmed: 0,
        };
        let mut kept = self.kept();
        let id = kept.next_id;
        kept.next_id += 1;
        // Too short for a block, or too long to be kept.
        if entry.chain.is_empty() || entry.chain.len() > MAX_BLOCKS {
            return Routed(id);
        }
        // The end is set under the lock: the oldest is the first to go.
        let now = Instant::now();
        kept.expire(now);
        kept.blocks += entry.chain.len();
        (entry.id, entry.until) = (id, now + self.ttl);
        kept.entries.push_back(entry);
        while kept.entries.len() > MAX_PROMPTS || kept.blocks > MAX_BLOCKS {
            kept.drop_oldest();
        }
        Routed(id)
    }

    fn remove(&self, routed: Routed) {
        self.kept().retain(|entry| entry.id != routed.0);
    }

    /// Looks whether anything routed could matter to this question. If so the node is asked for every worker, because
    /// which are the best is not known before what was routed is added.
    pub(crate) fn prepare(&self, request: &mut v1::MatchRequest) -> Option<Speculated> {
        let prompt = request.prompt.as_ref()?;
        if request.tier.as_ref().is_some_and(|tier| tier != DEVICE) {
            return None;
        }
        if self.kept().entries.is_empty() {
            return None;
        }
        let space = chain::space(prompt);
        let block_sizes = self.kept().block_sizes(space);
        if block_sizes.is_empty() {
            return None;
        }
        let speculated = Speculated {
            space,
            blocks: Blocks::of(prompt),
            block_sizes,
            top_k: request.top_k.take(),
            min_matched_blocks: std::mem::take(&mut request.min_matched_blocks),
        };
        Some(speculated)
    }

    /// Adds what was routed to what the node says, and drops what the engine has spoken of.
    pub(crate) fn complete(&self, speculated: Option<Speculated>, answer: &mut v1::MatchResponse) {
        let Some(speculated) = speculated else { return };
        // Before the lock is taken: a prompt may be long, and every call of the client needs the lock.
        let chain = |block_size: &u32| (*block_size, speculated.blocks.chain(*block_size));
        let chains: HashMap<u32, Vec<u64>> = speculated.block_sizes.iter().map(chain).collect();
        let said: HashMap<(&str, u32), &v1::WorkerMatch> =
            answer.workers.iter().map(|worker| ((&*worker.worker_id, worker.dp_rank), worker)).collect();
        let mut deeper: Deeper = HashMap::new();
        self.kept().retain(|entry| {
            if entry.space != speculated.space {
                return true;
            }
            let worker = said.get(&(entry.worker_id.as_str(), entry.dp_rank)).copied();
            // What came after the question may be of another block size, and waits for the next one.
            let (Some(worker), Some(chain)) = (worker, chains.get(&entry.block_size)) else { return true };
            if !entry.may_be_held_by(worker) {
                return false;
            }
            let common = chain::common(chain, &entry.chain);
            if worker.matched_blocks >= common as u64 {
                entry.confirmed = entry.confirmed.max(common);
                return entry.confirmed < entry.chain.len();
            }
            if common > entry.confirmed {
                let stream = (entry.worker_id.clone(), entry.dp_rank);
                let deepest = deeper.entry(stream).or_insert((0, entry.block_size));
                deepest.0 = deepest.0.max(common as u64);
            }
            true
        });
        speculated.apply(&deeper, answer);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Speculated {
    fn apply(&self, deeper: &Deeper, answer: &mut v1::MatchResponse) {
        for worker in &mut answer.workers {
            let stream = (worker.worker_id.clone(), worker.dp_rank);
            let Some((blocks, block_size)) = deeper.get(&stream) else { continue };
            worker.matched_blocks = *blocks;
            worker.block_size = *block_size;
            worker.matched_tokens = blocks * u64::from(worker.block_size);
            worker.uncached_tokens = answer.prompt_tokens.saturating_sub(worker.matched_tokens);
            worker.ambiguous = true;
            worker.doubts.push(SPECULATIVE.to_owned());
        }
        if !deeper.is_empty() {
            // As nodes sort.
            answer.workers.sort_by(|one, other| {
                let by_tokens = other.matched_tokens.cmp(&one.matched_tokens);
                by_tokens
                    .then_with(|| one.worker_id.cmp(&other.worker_id))
                    .then(one.dp_rank.cmp(&other.dp_rank))
            });
        }
        answer.workers.retain(|worker| worker.matched_blocks >= u64::from(self.min_matched_blocks));
        if let Some(most) = self.top_k.filter(|most| *most > 0) {
            answer.workers.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        }
    }
}

impl Entry {
    /// Not by another life of the engine, which does not have it, nor by one that turned out to have other blocks. What
    /// nobody has said yet becomes known with the first event.
    fn may_be_held_by(&mut self, worker: &v1::WorkerMatch) -> bool {
        let lives_on = self.generation == 0 || self.generation == generation(worker);
        self.generation = generation(worker);
        lives_on && (worker.block_size == 0 || worker.block_size == self.block_size)
    }
}

impl Kept {
    /// Of everything in a space; none where there is nothing.
    fn block_sizes(&mut self, space: u64) -> Vec<u32> {
        self.expire(Instant::now());
        let mut sizes: Vec<u32> =
            self.entries.iter().filter(|entry| entry.space == space).map(|entry| entry.block_size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn expire(&mut self, now: Instant) {
        // All live equally long, so the oldest is the first to go.
        while self.entries.front().is_some_and(|oldest| oldest.until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.entries.pop_front() {
            self.blocks -= oldest.chain.len();
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        let mut gone = 0;
        self.entries.retain_mut(|entry| {
            let keeps = keep(entry);
            gone += if keeps { 0 } else { entry.chain.len() };
            keeps
        });
        self.blocks -= gone;
    }
}

fn generation(worker: &v1::WorkerMatch) -> u64 {
    worker.trust.as_ref().map_or(0, |trust| trust.generation)
}

impl Client {
    /// Says that a prompt was routed to a worker of an answer. Until its engine says itself what it holds, or
    /// [`ClientConfig::speculative_ttl`](crate::ClientConfig::speculative_ttl) is over, matches by this client and its
    /// clones count the prompt's blocks as held there, and carry the doubt [`SPECULATIVE`].
    ///
    /// - It ends for what the engine has spoken of: once an answer shows the blocks as held, the node's word counts again,
    ///   also that they are gone. It ends at once when the engine restarts or the worker leaves.
    /// - Prompts meet only in one form: tokens with tokens, hashes with hashes of the same kind; and only with the same
    ///   model, tenant, adapter, salt and items.
    /// - At most 1,024 prompts with 262,144 blocks are kept; then the oldest go.
    /// - `tiers` and `groups` of an answer stay as the node said them.
    ///
    /// ```no_run
    /// use kvindex_client::{Answer, Client, PromptTokens};
    ///
    /// # async fn route(client: Client) {
    /// let prompt = PromptTokens::new("llama", &[101, 102, 103]);
    /// if let Answer::Known(answer) = client.match_tokens(&prompt).await {
    ///     if let Some(worker) = answer.workers.first() {
    ///         let routed = client.routed(prompt.message(), worker);
    ///         # let sent = true;
    ///         // … send the request to the worker …
    ///         if !sent {
    ///             client.not_routed(routed);
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    pub fn routed(&self, prompt: &v1::Prompt, worker: &v1::WorkerMatch) -> Routed {
        self.pool().speculations.insert(prompt, worker)
    }

    /// Takes back that a prompt was routed: the worker never got it.
    pub fn not_routed(&self, routed: Routed) {
        self.pool().speculations.remove(routed);
    }
}

#[cfg(test)]
mod tests;
