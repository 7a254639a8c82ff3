//! What the writer does: commands of several workers on a few chains, drawn from a seed, each with the single-block
//! steps that it stands for.

use std::collections::BTreeSet;

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, BlockRemoved, BlockStored, Command, EngineBlockHash, EngineProfile,
    EventBatch, Generation, KvEvent, Registration, SequenceHash, StreamEvents,
};

use crate::history::Dice;
use crate::rig::{engine_hash, spec, stored, stream, tokens};

/// Two share their names of blocks, the others have names of their own. The last one holds every chain of the first
/// family from the start, so that those lie in many runs for as long as it goes on.
pub(super) const WORKERS: [&str; 5] = ["a", "b", "c", "d", "anchor"];
const SALTS: [&str; 5] = ["fleet", "fleet", "c", "d", "fleet"];
const ANCHOR: usize = WORKERS.len() - 1;
/// Chains of a family, each of which leaves the one before it a little further down.
pub(super) const CHAINS: usize = 6;

/// A block, by the whole path up to it.
pub(super) type Block = Vec<u8>;

/// The least that a reader may see happen to one worker.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Stored(Block),
    Removed(Block),
    /// All that it holds goes, in whatever order.
    Cleared,
}

/// One command.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) worker: usize,
    pub(super) command: Command,
    pub(super) steps: Vec<Step>,
}

/// Everything that follows from a seed.
#[derive(Debug)]
pub(super) struct Plan {
    /// What the workers begin with.
    pub(super) before: Vec<Move>,
    pub(super) moves: Vec<Move>,
    /// What is asked for.
    pub(super) paths: Vec<Vec<u8>>,
}

/// One worker's engine, as it stands when all commands so far are applied.
#[derive(Debug, Default)]
struct Engine {
    held: BTreeSet<Block>,
    generation: u64,
    next: u64,
}

struct Generator {
    dice: Dice,
    chains: Vec<Vec<u8>>,
    engines: Vec<Engine>,
}

/// The plan of a seed, with so many commands.
pub(super) fn plan(seed: u64, commands: usize) -> Plan {
    let mut dice = Dice::new(seed);
    let chains: Vec<Vec<u8>> = [b'a', b'A'].iter().flat_map(|first| family(&mut dice, *first)).collect();
    let engines = WORKERS.map(|_| Engine::default()).into();
    let mut generator = Generator { dice, chains, engines };
    let mut before = Vec::new();
    for number in 0..CHAINS {
        let chain = generator.chains[number].clone();
        before.push(generator.finish(ANCHOR, |it, batches| it.store(ANCHOR, &chain, batches)));
    }
    for worker in 0..ANCHOR {
        before.push(generator.finish(worker, |it, batches| it.store_some(worker, batches)));
    }
    let moves = (0..commands).map(|_| {
        let worker = generator.dice.below(ANCHOR);
        generator.next(worker)
    });
    let moves = moves.collect();
    let mut paths = generator.chains.clone();
    // Others go on where nobody ever was.
    paths.extend(generator.chains.iter().step_by(3).map(|chain| [&chain[..chain.len() / 2], b"??"].concat()));
    Plan { before, moves, paths }
}

/// Chains with a common start. Each has its own letter from where it leaves the one before.
fn family(dice: &mut Dice, first: u8) -> Vec<Vec<u8>> {
    let mut chains: Vec<Vec<u8>> = Vec::new();
    let mut left_at = 0;
    for letter in (first..).take(CHAINS) {
        let mut chain = match chains.last() {
            Some(last) => {
                left_at += 1 + dice.below(last.len() - left_at - 1);
                last[..left_at].to_vec()
            }
            None => Vec::new(),
        };
        chain.extend(std::iter::repeat_n(letter, 4 + dice.below(9)));
        chains.push(chain);
    }
    chains
}

/// The sequence hashes of a path.
pub(super) fn chain(path: &[u8]) -> Vec<SequenceHash> {
    let (mut hasher, mut before) = (BlockHasher::new(), None);
    let chained = path.iter().map(|letter| {
        let hash = SequenceHash::chain(before, hasher.local(&tokens(&[*letter]), &[]));
        before = Some(hash);
        hash
    });
    chained.collect()
}

/// The commands that make the workers known.
pub(super) fn registrations() -> impl Iterator<Item = Command> {
    WORKERS.iter().map(|worker| Command::Register(Box::new(spec(worker))))
}

/// Events of a command's batches, and what they come to.
#[derive(Default)]
struct Batches {
    events: Vec<Vec<KvEvent>>,
    steps: Vec<Step>,
}

impl Generator {
    fn next(&mut self, worker: usize) -> Move {
        match self.dice.below(100) {
            0..=2 => self.restart(worker),
            3..=5 => {
                self.engine(worker).generation += 1;
                self.engine(worker).next = 0;
                self.finish(worker, |it, batches| {
                    it.forget(worker, batches);
                    it.store_some(worker, batches);
                })
            }
            6..=13 => self.finish(worker, |it, batches| {
                batches.events.push(vec![KvEvent::AllBlocksCleared]);
                it.forget(worker, batches);
                if it.dice.chance(60) {
                    it.store_some(worker, batches);
                }
            }),
            14..=44 => self.finish(worker, |it, batches| it.remove_some(worker, batches)),
            45..=59 => self.finish(worker, |it, batches| {
                it.remove_some(worker, batches);
                it.store_some(worker, batches);
                it.remove_some(worker, batches);
            }),
            _ => self.finish(worker, |it, batches| it.store_some(worker, batches)),
        }
    }

    fn engine(&mut self, worker: usize) -> &mut Engine {
        &mut self.engines[worker]
    }

    fn restart(&mut self, worker: usize) -> Move {
        let mut batches = Batches::default();
        self.forget(worker, &mut batches);
        let engine = self.engine(worker);
        engine.generation += 1;
        engine.next = 0;
        let generation = Generation(engine.generation);
        let command = Command::NewGeneration {
            stream: stream(WORKERS[worker]),
            generation,
            at_ms: 5,
            registration: Registration::default(),
        };
        Move { worker, command, steps: batches.steps }
    }

    /// The command of all batches that `fill` makes.
    fn finish(&mut self, worker: usize, fill: impl FnOnce(&mut Self, &mut Batches)) -> Move {
        let mut batches = Batches::default();
        fill(self, &mut batches);
        let engine = self.engine(worker);
        let mut seal = |events| {
            engine.next += 1;
            let changes = EventBatch { events, ..EventBatch::default() };
            let changes = changes.seal(&EngineProfile::default(), &mut BlockHasher::new());
            Batch { seq: BatchSeq(engine.next - 1), changes }
        };
        let sealed = batches.events.into_iter().map(&mut seal).collect();
        let (stream, generation) = (stream(WORKERS[worker]), Generation(engine.generation));
        let command = Command::Events(StreamEvents {
            stream,
            generation,
            at_ms: 5,
            payload_digest: None,
            registration: Registration::default(),
            batches: sealed,
        });
        Move { worker, command, steps: batches.steps }
    }

    fn forget(&mut self, worker: usize, batches: &mut Batches) {
        self.engine(worker).held.clear();
        batches.steps.push(Step::Cleared);
    }

    fn store_some(&mut self, worker: usize, batches: &mut Batches) {
        let chain = self.dice.pick(&self.chains);
        let end = if self.dice.chance(60) { chain.len() } else { 1 + self.dice.below(chain.len()) };
        self.store(worker, &chain[..end], batches);
    }

    /// Stores what the worker does not hold of a path, every gap of it in an event. No block is stored twice, so that
    /// one removal takes it away.
    fn store(&mut self, worker: usize, path: &[u8], batches: &mut Batches) {
        let salt = SALTS[worker];
        let held = &mut self.engine(worker).held;
        let missing: Vec<usize> = (1..=path.len()).filter(|end| held.insert(path[..*end].to_vec())).collect();
        batches.steps.extend(missing.iter().map(|end| Step::Stored(path[..*end].to_vec())));
        let gaps = missing.chunk_by(|end, next| end + 1 == *next);
        let events = gaps.map(|gap| {
            let (from, end) = (gap[0] - 1, gap[gap.len() - 1]);
            KvEvent::BlockStored(BlockStored { carries_extra_keys: true, ..stored(salt, &path[..end], from) })
        });
        let events: Vec<KvEvent> = events.collect();
        if self.dice.chance(50) {
            batches.events.extend(events.into_iter().map(|event| vec![event]));
        } else {
            batches.events.push(events);
        }
    }

    /// Removes blocks of one chain from its end, as engines do, or from its start, or any blocks at all.
    fn remove_some(&mut self, worker: usize, batches: &mut Batches) {
        let (chain, order) = (self.dice.pick(&self.chains), self.dice.below(3));
        let held: Vec<Block> = self.engine(worker).held.iter().cloned().collect();
        let mut gone: Vec<Block> = (1..=chain.len()).map(|end| chain[..end].to_vec()).collect();
        match order {
            0 => gone.reverse(),
            1 => drop(gone.drain(..self.dice.below(chain.len()))),
            _ if held.is_empty() => {}
            _ => gone = (0..chain.len()).map(|_| self.dice.pick(&held)).collect(),
        }
        gone.truncate(1 + self.dice.below(16));
        let known = &mut self.engine(worker).held;
        gone.retain(|block| known.remove(block));
        let name = |block: &Block| engine_hash(SALTS[worker], block);
        let block_hashes: Vec<EngineBlockHash> = gone.iter().map(name).collect();
        batches.steps.extend(gone.into_iter().map(Step::Removed));
        batches
            .events
            .push(vec![KvEvent::BlockRemoved(BlockRemoved { block_hashes, ..BlockRemoved::default() })]);
    }
}
