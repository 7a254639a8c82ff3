//! Random histories, consistent and hostile: whatever comes, the index keeps its own rules, a restored copy goes
//! on exactly like the original, and answers by tokens never exceed the engine's own word.
//!
//! `KVINDEX_SOAK=100` runs a hundred times as many; `KVINDEX_SEED=17` runs the one that failed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kvindex_core::{
    Command, Doubt, EngineBlockHash, Group, Index, IndexLimits, Namespace, Notice, Outcome, Prompt, Query,
    Scratch, SequenceHash, StreamId, Tier, WorkerMatch, explain, find_matches,
};

use crate::history::{ADAPTER, Plan, Step, WORKERS, history, local, registration};
use crate::rig::{BLOCK, MODEL, engine_hash, stream};

/// Histories of each plan.
const HISTORIES: u64 = 40;
/// So few orphans that the limit is met.
pub(crate) fn limits() -> IndexLimits {
    IndexLimits { max_orphans_per_owner: 6, ..IndexLimits::default() }
}

/// A block as a follower knows it.
type Seen = (StreamId, Tier, Group, Namespace, SequenceHash);

/// What is compared beyond what holds of every history.
#[derive(Debug, Clone, Copy, Default)]
struct Claims {
    /// Names stand for prefixes, so that tokens and names must agree.
    names_are_prefixes: bool,
    /// Names stand for one place, so that followers see what is held.
    followed: bool,
}

struct World {
    index: Index,
    twin: Option<Index>,
    followed: BTreeSet<Seen>,
}

impl World {
    fn new() -> Self {
        let mut index = Index::new(limits());
        for worker in WORKERS {
            index.apply(&registration(worker));
        }
        Self { index, twin: None, followed: BTreeSet::new() }
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        let seen = &mut self.followed;
        self.index.apply_noticed(command, &mut |notice| match notice {
            Notice::Stored { stream, tier, group, namespace, blocks, .. } => {
                let block =
                    |hash: &SequenceHash| (stream.clone(), tier.clone(), group, namespace.clone(), *hash);
                seen.extend(blocks.iter().map(block));
            }
            Notice::Removed { stream, tier, group, namespace, block, .. } => {
                seen.remove(&(stream.clone(), tier.clone(), group, namespace.clone(), block));
            }
            Notice::Cleared { stream, tier, .. } => {
                seen.retain(|block| block.0 != *stream || tier.is_some_and(|tier| block.1 != *tier));
            }
            _ => {}
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let Some(command) = step.command(&self.index) else {
            let bytes = self.index.snapshot();
            let twin = Index::restore(&bytes, limits()).map_err(|error| format!("restore: {error}"))?;
            hold(twin.snapshot() == bytes, "a restored snapshot has other bytes")?;
            self.twin = Some(twin);
            return Ok(());
        };
        let outcome = self.apply(&command);
        self.index.check_invariants()?;
        if let Some(twin) = &mut self.twin {
            let same = twin.apply(&command);
            twin.check_invariants().map_err(|error| format!("twin: {error}"))?;
            hold(same == outcome, &format!("outcomes differ: {outcome:?}, of the twin {same:?}"))?;
            hold(twin.digest() == self.index.digest(), "digests differ")?;
            hold(twin.snapshot() == self.index.snapshot(), "snapshots differ")?;
        }
        Ok(())
    }

    fn followers_see_what_is_held(&self) -> Result<(), String> {
        let reader = self.index.reader();
        let held = reader.entries().map(|(stream, tier, group, namespace, block, _)| {
            (stream.clone(), tier.clone(), group, namespace.clone(), block)
        });
        let held: BTreeSet<Seen> = held.collect();
        let wrong = held.symmetric_difference(&self.followed).next();
        wrong.map_or(Ok(()), |block| Err(format!("followers see it otherwise: {block:?}")))
    }

    /// The twin answers alike, and tokens and names agree.
    fn answer(&self, path: &[u8], plan: Plan, claims: Claims) -> Result<(), String> {
        let shown = String::from_utf8_lossy(path);
        let two_units = (plan.sizes || plan.hostile).then_some((2, None));
        let adapter = plan.adapters.then_some((1, Some(ADAPTER)));
        for (unit, lora) in [(1, None)].into_iter().chain(two_units).chain(adapter) {
            let answers = Answers::of(&self.index, path, unit, lora);
            if let Some(twin) = &self.twin {
                let same = Answers::of(twin, path, unit, lora);
                let differ = || format!("the twin answers otherwise on {shown}: {answers:?}, {same:?}");
                hold(same == answers, &differ())?;
            }
            if claims.names_are_prefixes && lora.is_none() {
                answers.agree(unit).map_err(|error| format!("{error} on {shown} by {unit}"))?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        for worker in WORKERS {
            self.index.apply(&Command::Unregister { worker: stream(worker).worker });
        }
        self.index.check_invariants()?;
        let left = self.index.stats();
        let nothing = (left.entries, left.blocks, left.runs, left.orphans) == (0, 0, 0, 0);
        hold(nothing, &format!("left when all are gone: {left:?}"))
    }
}

fn hold(rule: bool, otherwise: &str) -> Result<(), String> {
    if rule { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// What is said of one path, by its tokens and by every worker's own names.
#[derive(Debug, PartialEq)]
pub(crate) struct Answers {
    by_tokens: Vec<WorkerMatch>,
    by_names: Vec<WorkerMatch>,
}

impl Answers {
    pub(crate) fn of(index: &Index, path: &[u8], unit: usize, lora: Option<&str>) -> Self {
        let ask = |prompt: Prompt<'_>| {
            let size = BLOCK * unit as u32;
            let query = Query { prompt, lora, block_size: Some(size), ..Query::tokens(MODEL, &[]) };
            let (reader, mut scratch) = (index.reader(), Scratch::default());
            explain(&reader, &query, &mut scratch).unwrap();
            find_matches(&reader, &query, &mut scratch).unwrap().workers
        };
        let mut before = None;
        let chain = path.chunks_exact(unit).map(|block| {
            before = Some(SequenceHash::chain(before, local(block)));
            before.unwrap()
        });
        let chain: Vec<SequenceHash> = chain.collect();
        let by_names = WORKERS.iter().flat_map(|worker| {
            let ends = (1..=chain.len()).map(|end| engine_hash(worker, &path[..end * unit]));
            let names: Vec<EngineBlockHash> = ends.collect();
            let mut found = ask(Prompt::EngineHashes(&names));
            found.retain(|found| found.worker.id.as_str() == *worker);
            found
        });
        Self { by_tokens: ask(Prompt::SequenceHashes(&chain)), by_names: by_names.collect() }
    }

    /// By tokens never more than by names, and less only with the doubt that says so.
    fn agree(&self, unit: usize) -> Result<(), String> {
        for by_tokens in &self.by_tokens {
            let same = |found: &&WorkerMatch| found.worker.id == by_tokens.worker.id;
            let Some(by_names) = self.by_names.iter().find(same) else { continue };
            if by_names.block_size != BLOCK * unit as u32 {
                continue;
            }
            let (tokens, names) = (by_tokens.matched_tokens, by_names.matched_tokens);
            hold(tokens <= names, &format!("by tokens {tokens}, by names only {names}"))?;
            let marked = by_tokens.doubts.contains(Doubt::UnplacedBlocks);
            hold(tokens == names || marked, &format!("by tokens {tokens}, by names {names}, unmarked"))?;
        }
        Ok(())
    }
}

fn run(steps: &[Step], paths: &[Vec<u8>], plan: Plan, claims: Claims) -> Result<(), String> {
    let all = || {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
            if claims.followed {
                world.followers_see_what_is_held()?;
            }
            paths.iter().try_for_each(|path| world.answer(path, plan, claims))?;
        }
        world.end()
    };
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|_| Err("it panics, see above".into()))
}

/// Leaves out every step and change without which it still fails.
fn shrink(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut at = 0;
    while at < steps.len() {
        let step = steps.remove(at);
        if fails(&steps) {
            continue;
        }
        steps.insert(at, step);
        let mut change = 0;
        while let Step::Batch(worker, changes) = &steps[at]
            && change < changes.len()
        {
            let (mut fewer, whole) = (changes.clone(), steps[at].clone());
            fewer.remove(change);
            steps[at] = Step::Batch(*worker, fewer);
            if !fails(&steps) {
                steps[at] = whole;
                change += 1;
            }
        }
        at += 1;
    }
    steps
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn check(plan: Plan, claims: Claims) {
    let seeds = match variable("KVINDEX_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=HISTORIES * variable("KVINDEX_SOAK").unwrap_or(1),
    };
    for seed in seeds {
        let (steps, paths) = history(plan, seed);
        let Err(error) = run(&steps, &paths, plan, claims) else { continue };
        let steps = shrink(steps, |steps| run(steps, &paths, plan, claims).is_err());
        let last = run(&steps, &paths, plan, claims).unwrap_err();
        let shown: String = steps.iter().map(|step| format!("{step:?}\n")).collect();
        panic!("{error}\nagain with KVINDEX_SEED={seed}; in short: {last}, after\n{shown}");
    }
}

const EXACT: Claims = Claims { names_are_prefixes: true, followed: true };

#[test]
fn ordinary_models_agree_with_their_engines() {
    check(Plan { sparse: true, ..Plan::default() }, EXACT);
}

#[test]
fn tiers_agree_with_their_engines() {
    check(Plan { sparse: true, tiers: true, ..Plan::default() }, EXACT);
}

#[test]
fn hybrid_models_agree_with_their_engines() {
    check(Plan { sparse: true, tiers: true, groups: true, ..Plan::default() }, EXACT);
}

#[test]
fn blocks_of_several_sizes_agree_with_their_engines() {
    check(Plan { sparse: true, tiers: true, groups: true, sizes: true, ..Plan::default() }, EXACT);
}

#[test]
fn hits_announced_again_agree_with_their_engines() {
    check(Plan { sparse: true, tiers: true, repeated: true, ..Plan::default() }, EXACT);
}

#[test]
fn workers_described_anew_agree_with_their_engines() {
    check(Plan { sparse: true, tiers: true, groups: true, described_anew: true, ..Plan::default() }, EXACT);
}

#[test]
fn names_of_content_and_of_several_namespaces_keep_the_rules() {
    let plan =
        Plan { sparse: true, tiers: true, adapters: true, content: true, repeated: true, ..Plan::default() };
    check(plan, Claims::default());
    check(Plan { groups: true, sizes: true, described_anew: true, ..plan }, Claims::default());
}

#[test]
fn hostile_histories_keep_the_rules() {
    let plan =
        Plan { hostile: true, sparse: true, tiers: true, adapters: true, content: true, ..Plan::default() };
    check(plan, Claims::default());
    check(Plan { groups: true, described_anew: true, ..plan }, Claims::default());
}
