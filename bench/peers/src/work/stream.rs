//! Events before they take any implementation's form, and the hashes of their blocks.

use std::ops::Range;

use super::random::mix;

/// One block: its content's hash, and the engine's hash of it and everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) local: u64,
    pub(crate) engine: u64,
}

/// What an event says; the ranges lie in its stream's columns.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Store { parent: Option<u64>, blocks: Range<usize> },
    Remove { hashes: Range<usize> },
}

/// One worker's event.
#[derive(Debug, Clone)]
pub(crate) struct RawEvent {
    pub(crate) worker: u32,
    pub(crate) op: Op,
}

/// Events in order.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) blocks: Vec<Block>,
    pub(crate) hashes: Vec<u64>,
    pub(crate) events: Vec<RawEvent>,
}

impl Stream {
    pub(crate) fn store(&mut self, worker: u32, parent: Option<u64>, blocks: &[Block]) {
        let start = self.blocks.len();
        self.blocks.extend_from_slice(blocks);
        let op = Op::Store { parent, blocks: start..self.blocks.len() };
        self.events.push(RawEvent { worker, op });
    }

    pub(crate) fn remove(&mut self, worker: u32, hashes: &[u64]) {
        let start = self.hashes.len();
        self.hashes.extend_from_slice(hashes);
        self.events.push(RawEvent { worker, op: Op::Remove { hashes: start..self.hashes.len() } });
    }

    /// Stores `chain[from..to]` as prefill events of at most [`PREFILL_BLOCKS`].
    pub(crate) fn prefill(&mut self, worker: u32, chain: &[Block], from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let end = (at + PREFILL_BLOCKS).min(to);
            self.store(worker, parent_of(chain, at), &chain[at..end]);
            at = end;
        }
    }

    pub(crate) fn stored(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn removed(&self) -> usize {
        self.hashes.len()
    }
}

/// Most blocks of one prefill event: 2048 tokens of 16-token blocks.
const PREFILL_BLOCKS: usize = 128;

/// The engine hash that a store of `chain[at..]` names as its parent.
pub(crate) fn parent_of(chain: &[Block], at: usize) -> Option<u64> {
    at.checked_sub(1).map(|before| chain[before].engine)
}

/// Content hash of one block: a pure function of where it sits.
pub(crate) fn local_hash(seed: u64, a: u64, b: u64, i: u64) -> u64 {
    mix(seed ^ mix(a ^ mix(b.wrapping_add(0x1000_0000) ^ mix(i))))
}

/// Engine-side rolling hash: `xxh3_64` with seed 1337 over the 16 little-endian bytes [parent, local]; the first
/// block's is its content hash. It is the chain that Dynamo's positional index recomputes.
pub(crate) fn chain_hash(parent: Option<u64>, local: u64) -> u64 {
    let Some(parent) = parent else { return local };
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&parent.to_le_bytes());
    bytes[8..].copy_from_slice(&local.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, 1337)
}

/// A chain of these contents, below `parent`.
pub(crate) fn chain_of(parent: Option<u64>, locals: impl Iterator<Item = u64>) -> Vec<Block> {
    let mut before = parent;
    let block = |local| {
        let engine = chain_hash(before, local);
        before = Some(engine);
        Block { local, engine }
    };
    locals.map(block).collect()
}
