//! Recorded engines play to both servers at once; both are asked what the engines themselves were asked.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use dynamo_kv_router::protocols::{BlockHashOptions, compute_block_hash_for_seq};
use kvindex_recording::{Checkpoint, Header, Publisher, PublisherOptions, Query, Recording, Truth};
use serde_json::json;

use super::answer::Answer;
use super::http::request;
use super::servers::{Pair, Place};

/// How long both may take to subscribe.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at answers that may not be the last yet.
const LOOK: Duration = Duration::from_millis(30);
/// Looks at which answers that agree have to be the same, and those that differ.
const SETTLED: [usize; 2] = [2, 12];
/// Longest that answers may go on changing.
const RESTLESS: Duration = Duration::from_secs(30);
/// Differences of a case that are told.
const TOLD: usize = 3;

/// Answers in which the peer alone is right, by case: how many at most, and why.
pub(super) const KNOWN: [(&str, usize, &str); 9] = [
    ("basic", 1, ADAPTER),
    ("basic-pyhashseed0", 1, ADAPTER),
    ("basic-v0.11.0", 101, SALTS),
    ("bytes-cbor", 1, ADAPTER),
    ("hybrid-swa-v0.20.2", 190, GROUPS),
    ("sglang-v0.5.14", 12, EXTRA_KEYS),
    ("sglang-v0.5.23", 5, EXTRA_KEYS),
    ("sglang-v0.5.4", 86, CONTENT),
    ("xxhash-cbor", 3, ADAPTER),
];
const ADAPTER: &str =
    "an adapter's name was pointed elsewhere, which events do not tell (doubt `hidden_identity`)";
const SALTS: &str = "before vLLM 0.17 events show no salts and no images (doubt `hidden_identity`)";
const GROUPS: &str = "before vLLM 0.22 events do not say what a hybrid model's cache groups are, and a registration of \
                      this dialect cannot: kvindex then answers too low; a native one can";
const EXTRA_KEYS: &str = "events do not carry a request's extra key (doubt `hidden_identity`)";
const CONTENT: &str = "before SGLang 0.5.6 pages are named by content alone (doubt `content_hashes`)";

/// What came of one case.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) case: String,
    /// Questions asked, and those to which both gave the same answer.
    pub(super) questions: usize,
    pub(super) same: usize,
    /// What the engines said themselves about their device, and how often each server said it too.
    pub(super) truths: usize,
    pub(super) ours: Score,
    pub(super) theirs: Score,
    /// Where the peer was right and kvindex was not.
    pub(super) only_theirs: usize,
    told: usize,
}

/// A server's answers beside the engines' own.
#[derive(Debug, Default)]
pub(super) struct Score {
    pub(super) right: usize,
    pub(super) too_high: usize,
    pub(super) too_low: usize,
}

impl Score {
    /// Whether the answer is right.
    fn add(&mut self, answer: u64, truth: u64) -> bool {
        let of = match answer.cmp(&truth) {
            Ordering::Equal => &mut self.right,
            Ordering::Greater => &mut self.too_high,
            Ordering::Less => &mut self.too_low,
        };
        *of += 1;
        answer == truth
    }
}

/// Engines of one block size: one model, because the peer has one size for each.
struct Pool {
    model: String,
    block_size: u32,
    /// Whether the engines' blocks cover tokens behind them (EAGLE, MTP).
    looks_ahead: bool,
    engines: Vec<Engine>,
}

struct Engine {
    index: usize,
    instance: u64,
    rank: u32,
}

struct Question<'a> {
    pool: &'a Pool,
    query: &'a Query,
    path: &'static str,
    request: Vec<u8>,
}

/// Plays one case to its end and asks at each of its checkpoints.
pub(super) fn compare(pair: &mut Pair, folder: &Path, case: &str) -> anyhow::Result<Compared> {
    let path = folder.join(case);
    let recording = Recording::open(&path)?;
    let pools = pools(&recording.header, case);
    let kind = recording.header.engine.to_string();
    let options = PublisherOptions { subscribers: 2, ..PublisherOptions::default() };
    let publisher = Publisher::start(recording, options)?;
    for (pool, engine) in pools.iter().flat_map(|pool| pool.engines.iter().map(move |engine| (pool, engine)))
    {
        let place = Place {
            instance: engine.instance,
            model: &pool.model,
            block_size: pool.block_size,
            engine: &kind,
        };
        pair.register(&publisher.endpoints()[engine.index], &place)?;
    }
    ensure!(publisher.wait_for_subscribers(PATIENCE), "{case}: not both have subscribed to every engine");
    let mut compared = Compared { case: case.to_owned(), ..Compared::default() };
    for checkpoint in Truth::open(&path)? {
        let checkpoint = checkpoint?;
        publisher.play_until(checkpoint.pos)?;
        let questions = questions(&pools, &checkpoint);
        for (question, answers) in questions.iter().zip(settled(pair, &questions)?) {
            compared.add(&checkpoint, question, &answers);
        }
    }
    let instances =
        pools.iter().flat_map(|pool| pool.engines.iter().map(move |engine| (engine.instance, pool)));
    for (instance, pool) in instances.collect::<BTreeMap<_, _>>() {
        pair.unregister(instance, &pool.model)?;
    }
    eprintln!("{case}: {} replays asked for", publisher.stats().replay_requests);
    Ok(compared)
}

/// Ranks of one server are one instance, whose first rank's index says which.
fn pools(header: &Header, case: &str) -> Vec<Pool> {
    let mut pools: BTreeMap<u32, Pool> = BTreeMap::new();
    for (index, engine) in header.engines.iter().enumerate() {
        let block_size = engine.block_size;
        let (model, looks_ahead) = (format!("{case}/{block_size}"), engine.lookahead > 0);
        let new = || Pool { model, block_size, looks_ahead, engines: Vec::new() };
        let pool = pools.entry(block_size).or_insert_with(new);
        let first = index.saturating_sub(engine.dp_rank as usize) as u64;
        let instance = u64::from(block_size) * 1000 + first;
        pool.engines.push(Engine { index, instance, rank: engine.dp_rank });
    }
    pools.into_values().collect()
}

/// Each prompt by its tokens, and by its local hashes as the peer's own clients compute them. Hashes name no
/// adapter, no salt and no tokens behind a block, so where there is one the question is by tokens only.
fn questions<'a>(pools: &'a [Pool], checkpoint: &'a Checkpoint) -> Vec<Question<'a>> {
    let mut questions = Vec::new();
    for (pool, query) in
        pools.iter().flat_map(|pool| checkpoint.queries.iter().map(move |query| (pool, query)))
    {
        let mut add = |path, body| {
            questions.push(Question { pool, query, path, request: request(path, &body) });
        };
        let lora = query.lora.as_ref().map(|lora| &lora.name);
        add(
            "/query",
            json!({"model_name": pool.model, "token_ids": query.tokens, "lora_name": lora,
                "cache_salt": query.salt}),
        );
        if lora.is_none() && query.salt.is_none() && !pool.looks_ahead {
            let hashes = local_hashes(&query.tokens, pool.block_size);
            add("/query_by_hash", json!({"model_name": pool.model, "block_hashes": hashes}));
        }
    }
    questions
}

/// Local block hashes by the peer's own function, signed as its requests have them.
pub(super) fn local_hashes(tokens: &[u32], block_size: u32) -> Vec<i64> {
    let hashes = compute_block_hash_for_seq(tokens, block_size, BlockHashOptions::default());
    hashes.into_iter().map(|hash| hash.0.cast_signed()).collect()
}

/// What both answer once their answers have stopped changing: neither says which events it has applied.
fn settled(pair: &mut Pair, questions: &[Question<'_>]) -> anyhow::Result<Vec<[Answer; 2]>> {
    let started = Instant::now();
    let (mut last, mut looks) = (Vec::new(), 0);
    loop {
        let asked = questions.iter().map(|question| pair.ask(&question.request));
        let answers: Vec<[Answer; 2]> = asked.collect::<Result<_, _>>()?;
        looks = if answers == last { looks + 1 } else { 1 };
        let differ = answers.iter().any(|[ours, theirs]| ours != theirs);
        if looks >= SETTLED[usize::from(differ)] {
            return Ok(answers);
        }
        ensure!(started.elapsed() < RESTLESS, "answers go on changing while nothing is published");
        last = answers;
        std::thread::sleep(LOOK);
    }
}

impl Compared {
    /// How many answers may be right with the peer alone.
    pub(super) fn known(&self) -> usize {
        KNOWN.iter().find(|known| known.0 == self.case).map_or(0, |known| known.1)
    }

    fn add(&mut self, checkpoint: &Checkpoint, question: &Question<'_>, [ours, theirs]: &[Answer; 2]) {
        let query = question.query;
        self.questions += 1;
        self.same += usize::from(ours == theirs);
        let mut worse = false;
        // Images and extra keys have no place in a question of this dialect, so the engine was asked another one.
        if query.mm.is_empty() && query.extra_key.is_none() {
            for engine in &question.pool.engines {
                let Some(truth) = query.engines.get(engine.index) else { continue };
                let said = |answer: &Answer| answer.device(engine.instance, engine.rank);
                let truth = truth.expected_tokens();
                self.truths += 1;
                let (ours, theirs) = (self.ours.add(said(ours), truth), self.theirs.add(said(theirs), truth));
                self.only_theirs += usize::from(theirs && !ours);
                worse |= theirs && !ours;
            }
        }
        if (ours != theirs || worse) && self.told < TOLD {
            self.told += 1;
            let truth: Vec<u64> = query.engines.iter().map(|answer| answer.expected_tokens()).collect();
            eprintln!(
                "{}, checkpoint {} ({}), {} of {} tokens, lora {:?}, salt {:?}:\n  kvindex {ours:?}\n  Dynamo {theirs:?}\n  the engines themselves {truth:?}",
                self.case,
                checkpoint.checkpoint,
                checkpoint.label,
                question.path,
                query.tokens.len(),
                query.lora.as_ref().map(|lora| &lora.name),
                query.salt,
            );
        }
    }
}
