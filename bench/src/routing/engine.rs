//! One simulated engine: a queue served first come, first served, one prefill at a time, over a bounded prefix cache
//! whose changes it announces as vLLM would. Answers are either written elsewhere (the engine is one of a
//! prefill pool), or here, beside the prefills, and then each slows the other down.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::cache::BlockCache;
use super::trace::Request;

/// How fast an engine is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Tokens a second of a prefill that has the engine for itself.
    pub(super) prefill: f64,
    /// Where answers are written here: what that takes.
    pub(super) decode: Option<Decode>,
}

/// What writing answers takes, step by step. A step gives every running answer its next token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decode {
    /// Seconds of a step without a prefill in it.
    pub(super) step_s: f64,
    /// Seconds more for each answer in it.
    pub(super) each_s: f64,
    /// Prompt tokens in a step with a prefill in it.
    pub(super) chunk: f64,
}

/// What an engine does that others notice.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// A request's prefill is done, and so the first token of its answer; `saved` tokens of it were cached.
    FirstToken { request: usize, saved: u64 },
    /// A request has its whole answer.
    Finished { request: usize },
    /// Blocks are cached now; the chain goes on from `parent`.
    Stored { blocks: Vec<u64>, parent: Option<u64> },
    /// Blocks are not cached any more.
    Removed { blocks: Vec<u64> },
}

struct Prefill<'a> {
    request: &'a Request,
    /// Blocks that were cached when it began.
    held: usize,
    /// Tokens still to compute.
    left: f64,
}

struct Answer<'a> {
    request: &'a Request,
    /// The count of steps at which it is complete.
    until: f64,
}

/// One engine and its time. All times are seconds of the simulation.
pub(super) struct Engine<'a> {
    pace: Pace,
    cache: BlockCache,
    queue: VecDeque<&'a Request>,
    prefill: Option<Prefill<'a>>,
    answers: BinaryHeap<Answer<'a>>,
    /// Steps done, as a real number: all running answers grow by one token a step.
    steps: f64,
    now: f64,
}

/// Left over by adding and subtracting times; far below a token.
const NOTHING: f64 = 1e-6;

impl<'a> Engine<'a> {
    pub(super) fn new(pace: Pace, cache_blocks: usize) -> Self {
        Self {
            pace,
            cache: BlockCache::new(cache_blocks),
            queue: VecDeque::new(),
            prefill: None,
            answers: BinaryHeap::new(),
            steps: 0.0,
            now: 0.0,
        }
    }

    /// Blocks of a prompt's beginning that are cached now.
    #[cfg(test)]
    pub(super) fn prefix(&self, blocks: &[u64]) -> usize {
        self.cache.prefix(blocks)
    }

    /// Takes a request into the queue.
    pub(super) fn submit(&mut self, now: f64, request: &'a Request, out: &mut Vec<Happening>) {
        self.advance(now);
        self.queue.push_back(request);
        self.begin(out);
    }

    /// When something happens next, if nothing is submitted before.
    pub(super) fn next(&self) -> Option<f64> {
        let (prefill_rate, step_rate) = self.rates();
        let prefill = self.prefill.as_ref().map(|prefill| prefill.left.max(0.0) / prefill_rate);
        let answer = self.answers.peek().map(|answer| (answer.until - self.steps).max(0.0) / step_rate);
        let soonest = match (prefill, answer) {
            (Some(prefill), Some(answer)) => prefill.min(answer),
            (prefill, answer) => prefill.or(answer)?,
        };
        Some(self.now + soonest)
    }

    /// Lives until a time that is not after [`Engine::next`].
    pub(super) fn run_to(&mut self, time: f64, out: &mut Vec<Happening>) {
        self.advance(time);
        if self.prefill.as_ref().is_some_and(|prefill| prefill.left <= NOTHING)
            && let Some(done) = self.prefill.take()
        {
            self.end_prefill(&done, out);
        }
        while self.answers.peek().is_some_and(|answer| answer.until <= self.steps + NOTHING) {
            let Some(done) = self.answers.pop() else { break };
            self.finish(done.request, out);
        }
        self.begin(out);
    }

    /// Tokens of the prefill, and steps of the answers, each second.
    fn rates(&self) -> (f64, f64) {
        let Some(decode) = self.pace.decode else { return (self.pace.prefill, 0.0) };
        let answers = self.answers.len() as f64 * decode.each_s;
        if self.prefill.is_some() {
            let step = decode.chunk / self.pace.prefill + answers;
            (decode.chunk / step, 1.0 / step)
        } else {
            (self.pace.prefill, 1.0 / (decode.step_s + answers))
        }
    }

    fn advance(&mut self, time: f64) {
        let (prefill_rate, step_rate) = self.rates();
        let passed = time - self.now;
        if let Some(prefill) = &mut self.prefill {
            prefill.left -= passed * prefill_rate;
        }
        if !self.answers.is_empty() {
            self.steps += passed * step_rate;
        }
        self.now = time;
    }

    /// Begins the next prefill, if none runs and the cache has room for the request.
    fn begin(&mut self, out: &mut Vec<Happening>) {
        if self.prefill.is_some() {
            return;
        }
        let Some(request) = self.queue.front().copied() else { return };
        let held = self.cache.prefix(&request.blocks);
        let Some(blocks) = self.cache.take(&request.blocks, self.blocks_of(request)) else { return };
        if !blocks.is_empty() {
            out.push(Happening::Removed { blocks });
        }
        self.queue.pop_front();
        let left = (request.tokens - request.saved_by(held)) as f64;
        self.prefill = Some(Prefill { request, held, left });
    }

    /// Blocks that a request keeps while it is here: its prompt's, and its answer's where that is written here.
    fn blocks_of(&self, request: &Request) -> usize {
        if self.pace.decode.is_some() { request.all_blocks() } else { request.prompt_blocks() }
    }

    fn end_prefill(&mut self, done: &Prefill<'a>, out: &mut Vec<Happening>) {
        let request = done.request;
        out.push(Happening::FirstToken { request: request.number, saved: request.saved_by(done.held) });
        if self.cache.name(&request.blocks, done.held) > 0 {
            let blocks = request.blocks.get(done.held..).unwrap_or_default().to_vec();
            let parent = done.held.checked_sub(1).and_then(|last| request.blocks.get(last)).copied();
            out.push(Happening::Stored { blocks, parent });
        }
        if self.pace.decode.is_some() && request.output > 1 {
            self.answers.push(Answer { request, until: self.steps + (request.output - 1) as f64 });
        } else {
            self.finish(request, out);
        }
    }

    fn finish(&mut self, request: &Request, out: &mut Vec<Happening>) {
        self.cache.give_back(&request.blocks, self.blocks_of(request));
        out.push(Happening::Finished { request: request.number });
    }
}

/// The answer that is complete first is the greatest: a heap gives the greatest.
impl Ord for Answer<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.until.total_cmp(&self.until).then_with(|| other.request.number.cmp(&self.request.number))
    }
}

impl PartialOrd for Answer<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Answer<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Answer<'_> {}

#[cfg(test)]
#[path = "engine_test.rs"]
mod engine_test;
