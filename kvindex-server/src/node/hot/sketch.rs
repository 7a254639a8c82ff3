//! Which prefixes one tenant's questions ask for most: so many counters and no more (Space-Saving), which forget by
//! half every minute. It keeps lengths and sequence hashes, never a prompt's tokens, and has no clock: time is told.

use std::sync::Arc;
use std::time::Duration;

use kvindex_core::{HeldPrefix, SequenceHash};

/// Counters of a tenant. Whatever more than one question in so many asks for has one.
const COUNTERS: usize = 256;

/// Prefixes that one question may bring in anew: a chain parts from others in few places, and a question's own end is
/// mostly nobody else's.
const NEW_OF_ONE: usize = 4;

/// After so long a question counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Questions looked at in a second. Beyond, one in so many is, and counts for all of them: what counting costs does
/// not grow with what is asked.
const LOOKS_PER_S: u64 = 256;

/// Half-lives after which weights are made small again, long before numbers end.
const RESCALE_AFTER: f64 = 64.0;

/// What is asked for less than this, as of now, was hot long ago.
const COLD: f64 = 0.05;

/// A prefix of which so much is asked for with its continuation is not told beside it.
const SAME: f64 = 0.9;

/// A question that was looked at.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) model: &'a str,
    pub(super) lora: Option<&'a str>,
    pub(super) held: HeldPrefix<'a>,
}

#[derive(Debug)]
struct Counter {
    model: Arc<str>,
    lora: Option<Arc<str>>,
    block_size: u32,
    blocks: usize,
    hash: SequenceHash,
    /// Questions that began with it, those weighing more that came later.
    count: f64,
    /// How much of that may be another prefix's, whose counter it took.
    error: f64,
    held_by: usize,
    /// The counted prefix that it goes on from.
    after: Option<SequenceHash>,
}

/// A prefix that is asked for, as of now.
#[derive(Debug, Clone, PartialEq)]
pub struct HotPrefix {
    /// Its model.
    pub model: Arc<str>,
    /// Its LoRA adapter.
    pub lora: Option<Arc<str>>,
    /// Tokens a block.
    pub block_size: u32,
    /// Its length.
    pub blocks: usize,
    /// The sequence hash of its last block.
    pub hash: SequenceHash,
    /// Share of the tenant's questions of about the last minute that begin with it, no more than there were.
    pub share: f64,
    /// How many those are in a second.
    pub per_s: f64,
    /// Streams that held all of it when it was last asked for.
    pub held_by: usize,
}

#[derive(Debug)]
pub(super) struct Sketch {
    counters: Vec<Counter>,
    total: f64,
    began: Duration,
    /// Weights are told from here: a question that comes a half-life later weighs twice as much.
    origin: Duration,
    second: Duration,
    looked_at: u64,
    asked: u64,
    step: u64,
}

impl Sketch {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            counters: Vec::new(),
            total: 0.0,
            began: now,
            origin: now,
            second: now,
            looked_at: 0,
            asked: 0,
            step: 1,
        }
    }

    /// One question in how many is to be looked at.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Counts a question that stands for `weight` of them; `None` for one of whose prompt nobody holds anything.
    pub(super) fn note(&mut self, now: Duration, weight: u64, asked: Option<&Asked<'_>>) {
        self.pace(now, weight);
        let weight = weight as f64 * self.half_lives(now).exp2();
        self.total += weight;
        let Some(asked) = asked else { return };
        let mut known = self.count_known(asked, weight);
        let new = asked.held.partings().filter(|blocks| !known.iter().any(|(known, _)| known == blocks));
        let mut new: Vec<usize> = new.collect();
        // The question's own end says how much of it is held, whatever lies before.
        let last = new.pop();
        new.truncate(NEW_OF_ONE - 1);
        for blocks in new.into_iter().chain(last) {
            if let Some(hash) = asked.held.hashes.get(blocks.wrapping_sub(1)) {
                self.bring_in(asked, blocks, *hash, weight);
                known.push((blocks, *hash));
            }
        }
        self.link(asked, &mut known);
    }

    /// What is asked for most, most first, with how many questions there are in a second.
    pub(super) fn list(&mut self, now: Duration) -> (Vec<HotPrefix>, f64) {
        self.pace(now, 0);
        let unit = self.half_lives(now).exp2();
        let age = now.saturating_sub(self.began).max(Duration::from_secs(1));
        let lives = age.as_secs_f64() / HALF_LIFE.as_secs_f64();
        // What a steady stream of one question a second would have come to by now.
        let steady = HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2 * (1.0 - (-lives).exp2());
        let per_s = |weight: f64| weight / unit / steady;
        let told = self.counters.iter().filter(|counter| counter.sure() / unit >= COLD);
        let told = told.filter(|counter| !self.is_continued(counter)).map(|counter| HotPrefix {
            model: Arc::clone(&counter.model),
            lora: counter.lora.clone(),
            block_size: counter.block_size,
            blocks: counter.blocks,
            hash: counter.hash,
            share: (counter.sure() / self.total).min(1.0),
            per_s: per_s(counter.sure()),
            held_by: counter.held_by,
        });
        let mut told: Vec<HotPrefix> = told.collect();
        told.sort_by(|a, b| {
            b.share.total_cmp(&a.share).then(b.blocks.cmp(&a.blocks)).then(a.hash.cmp(&b.hash))
        });
        (told, per_s(self.total))
    }

    /// Half-lives since weights were made small.
    fn half_lives(&mut self, now: Duration) -> f64 {
        let lives = now.saturating_sub(self.origin).as_secs_f64() / HALF_LIFE.as_secs_f64();
        if lives < RESCALE_AFTER {
            return lives;
        }
        let smaller = (-lives).exp2();
        self.origin = now;
        self.total *= smaller;
        for counter in &mut self.counters {
            counter.count *= smaller;
            counter.error *= smaller;
        }
        0.0
    }

    /// Looks at fewer questions when there are many, within the second and from one to the next.
    fn pace(&mut self, now: Duration, weight: u64) {
        let passed = now.saturating_sub(self.second);
        if passed >= Duration::from_secs(1) {
            let seconds = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).div_ceil(1000).max(1);
            self.step = (self.asked / seconds / LOOKS_PER_S).max(1);
            (self.second, self.asked, self.looked_at) = (now, 0, 0);
        }
        self.asked = self.asked.saturating_add(weight);
        self.looked_at += u64::from(weight > 0);
        if self.looked_at >= LOOKS_PER_S {
            self.step = self.step.saturating_mul(2);
            self.looked_at = 0;
        }
    }

    /// Counts the question for every counted prefix that it begins with, and answers which those are.
    fn count_known(&mut self, asked: &Asked<'_>, weight: f64) -> Vec<(usize, SequenceHash)> {
        let mut known = Vec::new();
        for counter in &mut self.counters {
            let here = asked.held.hashes.get(counter.blocks.wrapping_sub(1));
            if here == Some(&counter.hash) && counter.is_of(asked) {
                counter.count += weight;
                counter.held_by = asked.held.held_by(counter.blocks);
                known.push((counter.blocks, counter.hash));
            }
        }
        known
    }

    fn bring_in(&mut self, asked: &Asked<'_>, blocks: usize, hash: SequenceHash, weight: f64) {
        let mut counter = Counter {
            model: asked.model.into(),
            lora: asked.lora.map(Into::into),
            block_size: asked.held.block_size,
            blocks,
            hash,
            count: weight,
            error: 0.0,
            held_by: asked.held.held_by(blocks),
            after: None,
        };
        if self.counters.len() < COUNTERS {
            self.counters.push(counter);
            return;
        }
        let least = self.counters.iter_mut().min_by(|a, b| a.count.total_cmp(&b.count));
        if let Some(least) = least {
            counter.error = least.count;
            counter.count += least.count;
            *least = counter;
        }
    }

    /// Notes of each counted prefix of a question which one it goes on from.
    fn link(&mut self, asked: &Asked<'_>, known: &mut [(usize, SequenceHash)]) {
        known.sort_unstable();
        for pair in known.windows(2) {
            let [(_, before), (blocks, hash)] = pair else { continue };
            let is_it = |c: &&mut Counter| c.hash == *hash && c.blocks == *blocks && c.is_of(asked);
            if let Some(counter) = self.counters.iter_mut().find(is_it) {
                counter.after = Some(*before);
            }
        }
    }

    /// Whether nearly every question that begins with it goes on as another one.
    fn is_continued(&self, shorter: &Counter) -> bool {
        self.counters.iter().any(|longer| {
            longer.after == Some(shorter.hash)
                && longer.blocks > shorter.blocks
                && longer.block_size == shorter.block_size
                && (&longer.model, &longer.lora) == (&shorter.model, &shorter.lora)
                && longer.sure() >= SAME * shorter.sure()
        })
    }
}

impl Counter {
    fn is_of(&self, asked: &Asked<'_>) -> bool {
        self.block_size == asked.held.block_size
            && *self.model == *asked.model
            && self.lora.as_deref() == asked.lora
    }

    /// What is surely its own.
    fn sure(&self) -> f64 {
        self.count - self.error
    }
}

#[cfg(test)]
#[path = "sketch_test.rs"]
mod sketch_test;
