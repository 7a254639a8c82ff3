//! The `full` and `stagger` loads: long chains that many workers hold, all of each or each a different length.

use super::random::mix;
use super::stream::{Block, Stream, chain_of, local_hash, parent_of};
use super::{Credit, Question, Scale};

/// One of the four long loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LongShape {
    pub(crate) name: &'static str,
    workers: usize,
    chains: usize,
    staggered: bool,
}

/// All four. `full1000` and `stagger1000` are the peers' worst cases.
pub(crate) const LONG_SHAPES: [LongShape; 4] = [
    LongShape { name: "full64", workers: 64, chains: 16, staggered: false },
    LongShape { name: "full1000", workers: 1000, chains: 1, staggered: false },
    LongShape { name: "stagger64", workers: 64, chains: 16, staggered: true },
    LongShape { name: "stagger1000", workers: 1000, chains: 1, staggered: true },
];

/// Blocks of each worker's own end of a staggered chain: "same context, own answer".
const PRIVATE_TAIL: u64 = 8;

/// Chains held by many workers.
pub(crate) struct LongLoad {
    chains: Vec<Vec<Block>>,
    /// Depth that each worker holds of each chain.
    held: Vec<Vec<usize>>,
    pub(crate) fill: Stream,
}

impl LongLoad {
    pub(crate) fn new(shape: LongShape, scale: &Scale) -> Self {
        let (seed, depth) = (scale.seed, scale.depth);
        let workers = shape.workers.min(scale.most_workers);
        let mut load = LongLoad { chains: Vec::new(), held: Vec::new(), fill: Stream::default() };
        for k in 0..shape.chains.min(scale.most_chains) as u64 {
            let chain = chain_of(None, (0..depth as u64).map(|i| local_hash(seed ^ 0x10C6, k, 7, i)));
            let mut held = Vec::new();
            for worker in 0..workers as u64 {
                let spread = depth as u64 - 63;
                let stop = 64 + (mix(seed ^ 0x57A6 ^ ((k << 32) | worker)) % spread) as usize;
                let end = if shape.staggered { stop } else { depth };
                load.fill.prefill(worker as u32, &chain, 0, end);
                if shape.staggered {
                    let parent = parent_of(&chain, end);
                    let own = (0..PRIVATE_TAIL).map(|i| local_hash(seed ^ 0x7A11, k, worker, i));
                    load.fill.store(worker as u32, parent, &chain_of(parent, own));
                }
                held.push(end);
            }
            load.chains.push(chain);
            load.held.push(held);
        }
        load
    }

    /// One question of `len` blocks a chain, with its answer.
    pub(crate) fn questions(&self, len: usize) -> Vec<Question> {
        let question = |(chain, held): (&Vec<Block>, &Vec<usize>)| Question {
            locals: chain.iter().take(len).map(|block| block.local).collect(),
            right: held.iter().enumerate().map(|(w, depth)| credit(w, (*depth).min(len))).collect(),
        };
        self.chains.iter().zip(&self.held).map(question).collect()
    }
}

fn credit(worker: usize, depth: usize) -> Credit {
    (worker as u32, depth as u32)
}
