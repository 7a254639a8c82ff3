//! The `zipf` load: system prompts shared by conversations that requests draw by Zipf's law, spread over workers
//! that mostly, not always, see the same conversation again; then evictions, least recently used first.

use std::collections::HashMap;

use super::random::{Rng, Zipf, mix};
use super::stream::{Block, Stream, chain_of, local_hash, parent_of};
use super::{Credit, Question, Scale};

/// Blocks of a system prompt.
const SYSTEM: usize = 64;
/// Conversations below each.
const CONVERSATIONS: usize = 32;
/// Most blocks of a conversation beyond its system prompt.
const LONGEST: usize = 512;
/// Blocks appended one event each after a prefill.
const DECODED: usize = 8;

type Chains = HashMap<(usize, usize), Vec<Block>>;

/// The events, and what each worker holds after `fill`.
pub(crate) struct ZipfLoad {
    workers: usize,
    prompts: usize,
    seed: u64,
    pub(crate) fill: Stream,
    /// Evictions that halve the index, one hash an event.
    pub(crate) evict_single: Stream,
    /// Evictions that empty it, up to 32 hashes an event.
    pub(crate) evict_batch: Stream,
    held_system: Vec<u16>,
    held_conversation: Vec<u16>,
}

impl ZipfLoad {
    pub(crate) fn new(scale: &Scale) -> Self {
        let (workers, prompts) = (scale.workers, scale.prompts);
        let mut load = ZipfLoad {
            workers,
            prompts,
            seed: scale.seed,
            fill: Stream::default(),
            evict_single: Stream::default(),
            evict_batch: Stream::default(),
            held_system: vec![0; workers * prompts],
            held_conversation: vec![0; workers * prompts * CONVERSATIONS],
        };
        let (chains, last_use) = load.fill_to(scale.entries);
        let orders: Vec<Vec<u64>> =
            (0..workers).map(|worker| load.eviction_order(worker, &chains, &last_use)).collect();
        let halves: Vec<usize> = orders.iter().map(|order| order.len() / 2).collect();
        load.evict_single = evictions(&orders, &vec![0; workers], &halves, 64, 1);
        let ends: Vec<usize> = orders.iter().map(Vec::len).collect();
        load.evict_batch = evictions(&orders, &halves, &ends, 32, 32);
        load
    }

    fn suffix_len(&self, prompt: usize, conversation: usize) -> usize {
        let at = (prompt * CONVERSATIONS + conversation) as u64;
        32 + (mix(self.seed ^ 0x51 ^ at) % (LONGEST as u64 - 31)) as usize
    }

    /// The worker that routing prefers for a conversation.
    fn home(&self, prompt: usize, conversation: usize) -> usize {
        let at = (prompt * CONVERSATIONS + conversation) as u64;
        (mix(self.seed ^ 0xA7 ^ at) % self.workers as u64) as usize
    }

    fn chain(&self, prompt: usize, conversation: usize) -> Vec<Block> {
        let local = |i: usize| {
            let branch = if i < SYSTEM { u64::MAX } else { conversation as u64 };
            local_hash(self.seed, prompt as u64, branch, i as u64)
        };
        chain_of(None, (0..SYSTEM + self.suffix_len(prompt, conversation)).map(local))
    }

    fn system_at(&self, worker: usize, prompt: usize) -> usize {
        worker * self.prompts + prompt
    }

    fn conversation_at(&self, worker: usize, prompt: usize, conversation: usize) -> usize {
        self.system_at(worker, prompt) * CONVERSATIONS + conversation
    }

    /// Draws requests until that many entries are stored; answers all chains, and when each was last used.
    fn fill_to(&mut self, entries: usize) -> (Chains, Vec<u32>) {
        let by_prompt = Zipf::new(self.prompts, 1.0);
        let by_conversation = Zipf::new(CONVERSATIONS, 0.8);
        let mut rng = Rng(self.seed);
        let mut last_use = vec![0u32; self.held_conversation.len()];
        let mut chains = Chains::new();
        let mut requests = 0u32;
        while self.fill.stored() < entries {
            let prompt = by_prompt.draw(&mut rng);
            let conversation = by_conversation.draw(&mut rng);
            let turn = 1 + rng.below(self.suffix_len(prompt, conversation) as u64) as usize;
            let stays = rng.unit() < 0.7;
            let worker =
                if stays { self.home(prompt, conversation) } else { rng.below(self.workers as u64) as usize };
            requests += 1;
            last_use[self.conversation_at(worker, prompt, conversation)] = requests;
            let chain =
                chains.entry((prompt, conversation)).or_insert_with(|| self.chain(prompt, conversation));
            self.serve(worker, prompt, conversation, chain, turn);
        }
        (chains, last_use)
    }

    /// One request: prefill of what the worker lacks, then decoded blocks one by one.
    fn serve(&mut self, worker: usize, prompt: usize, conversation: usize, chain: &[Block], turn: usize) {
        let system = self.system_at(worker, prompt);
        let held = self.conversation_at(worker, prompt, conversation);
        let have_system = usize::from(self.held_system[system]);
        let have = if have_system < SYSTEM {
            have_system
        } else {
            SYSTEM + usize::from(self.held_conversation[held])
        };
        let prefill_end = SYSTEM + turn;
        let end = (prefill_end + DECODED).min(chain.len());
        self.fill.prefill(worker as u32, chain, have, prefill_end);
        for at in have.max(prefill_end)..end {
            self.fill.store(worker as u32, parent_of(chain, at), &chain[at..=at]);
        }
        self.held_system[system] = SYSTEM as u16;
        self.held_conversation[held] = self.held_conversation[held].max((end - SYSTEM) as u16);
    }

    /// A worker's evictions: the conversation unused for longest goes first, tail to head; a prompt's own blocks
    /// go after its last conversation there.
    fn eviction_order(&self, worker: usize, chains: &Chains, last_use: &[u32]) -> Vec<u64> {
        let mut conversations = Vec::new();
        let mut left = vec![0u16; self.prompts];
        for (prompt, left) in left.iter_mut().enumerate() {
            for conversation in 0..CONVERSATIONS {
                let at = self.conversation_at(worker, prompt, conversation);
                if self.held_conversation[at] > 0 {
                    conversations.push((last_use[at], prompt, conversation));
                    *left += 1;
                }
            }
        }
        conversations.sort_unstable();
        let mut order = Vec::new();
        for (_, prompt, conversation) in conversations {
            let chain = &chains[&(prompt, conversation)];
            let held = self.held_conversation[self.conversation_at(worker, prompt, conversation)];
            let tail = &chain[SYSTEM..SYSTEM + usize::from(held)];
            order.extend(tail.iter().rev().map(|block| block.engine));
            left[prompt] -= 1;
            if left[prompt] == 0 {
                order.extend(chain[..SYSTEM].iter().rev().map(|block| block.engine));
            }
        }
        order
    }

    /// `count` questions of exactly `len` blocks: the start of a conversation drawn as requests are, padded with
    /// blocks that were never stored; each with its answer from the generator's own books.
    pub(crate) fn questions(&self, len: usize, count: usize) -> Vec<Question> {
        let by_prompt = Zipf::new(self.prompts, 1.0);
        let by_conversation = Zipf::new(CONVERSATIONS, 0.8);
        let mut rng = Rng(self.seed ^ 0xBEEF ^ len as u64);
        let question = |_| {
            let prompt = by_prompt.draw(&mut rng);
            let conversation = by_conversation.draw(&mut rng);
            let chain = self.chain(prompt, conversation);
            let mut locals: Vec<u64> = chain.iter().take(len).map(|block| block.local).collect();
            locals.resize_with(len, || rng.next());
            Question { locals, right: self.right(prompt, conversation, len.min(chain.len())) }
        };
        (0..count).map(question).collect()
    }

    fn right(&self, prompt: usize, conversation: usize, len: usize) -> Vec<Credit> {
        let depth = |worker: usize| {
            let held = self.held_conversation[self.conversation_at(worker, prompt, conversation)];
            let any = self.held_system[self.system_at(worker, prompt)] > 0;
            any.then(|| (worker as u32, (SYSTEM + usize::from(held)).min(len) as u32))
        };
        (0..self.workers).filter_map(depth).collect()
    }
}

/// Round robin over workers, `burst` hashes each turn, `batch` hashes an event.
fn evictions(orders: &[Vec<u64>], from: &[usize], to: &[usize], burst: usize, batch: usize) -> Stream {
    let mut stream = Stream::default();
    let mut at = from.to_vec();
    while at.iter().zip(to).any(|(at, to)| at < to) {
        for (worker, order) in orders.iter().enumerate() {
            let end = (at[worker] + burst).min(to[worker]);
            for hashes in order[at[worker]..end].chunks(batch) {
                stream.remove(worker as u32, hashes);
            }
            at[worker] = end;
        }
    }
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts that the harness of the first published figures gave for this seed and size: as long as they stay,
    /// figures of different days are of the same work.
    #[test]
    fn the_work_is_that_of_the_first_figures() {
        let load = ZipfLoad::new(&Scale::smoke(42));
        assert_eq!((load.fill.stored(), load.fill.events.len()), (20_275, 975));
        assert_eq!(load.evict_single.removed(), 10_132);
        assert_eq!((load.evict_batch.removed(), load.evict_batch.events.len()), (10_143, 326));
        let questions = load.questions(128, 2000);
        let credited: usize = questions.iter().map(|question| question.right.len()).sum();
        let best = |question: &Question| question.right.iter().map(|credit| credit.1).max().unwrap_or(0);
        let deepest: u32 = questions.iter().map(best).sum();
        let means = (credited as f64 / 2000.0, f64::from(deepest) / 2000.0);
        assert_eq!(format!("{:.1} {:.1}", means.0, means.1), "4.5 72.7");
    }
}
