//! What a router knows that asks kvindex: a real index in this process. Engines' announcements become msgpack
//! payloads as vLLM writes them, arrive after a delay, and go through the decoder of a node, sealing and
//! `Index::apply`; a prompt is asked for by its tokens, as routers do. Sockets and the sequencer are left out: nothing
//! is lost here, and both are measured elsewhere.

use std::collections::{HashMap, VecDeque};

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, Command, DpRank, EngineProfile, Generation, Index, Query, Registration,
    Scratch, StreamEvents, StreamId, WorkerId, WorkerSpec, find_matches,
};
use kvindex_recording::splitmix64;
use kvindex_server::ingest::decode::decode;
use rmp::encode::{ValueWriteError, write_array_len, write_f64, write_nil, write_str, write_uint};

const MODEL: &str = "trace";
/// Token ids that stand for a block on the wire and in a question, instead of the trace's 512: what the index does
/// with a block does not depend on their number, and what decoding and hashing the rest would take is measured
/// elsewhere.
const TOKENS: u64 = 16;

/// Token ids are drawn below this, the vocabulary of Llama 3.
const VOCABULARY: u64 = 128_256;

/// A real index, fed by simulated engines.
pub(super) struct IndexFeed {
    index: Index,
    workers: Vec<Worker>,
    numbers: HashMap<WorkerId, usize>,
    /// Payloads on their way: when they arrive, and from whom. The delay is the same for all, so they stay in order.
    coming: VecDeque<(f64, usize, Vec<u8>)>,
    delay_s: f64,
    hasher: BlockHasher,
    scratch: Scratch,
    tokens: Vec<u32>,
    /// Blocks stored and removed that reached the index.
    pub(super) applied: u64,
}

struct Worker {
    stream: StreamId,
    profile: EngineProfile,
    next: u64,
}

impl IndexFeed {
    pub(super) fn new(engines: usize, delay_s: f64) -> anyhow::Result<Self> {
        let mut index = Index::default();
        let (mut workers, mut numbers) = (Vec::new(), HashMap::new());
        for number in 0..engines {
            let id = WorkerId::new(format!("engine-{number}"))?;
            let spec = WorkerSpec::new(id.clone(), MODEL);
            let profile = spec.profile();
            index.apply(&Command::Register(Box::new(spec)));
            numbers.insert(id.clone(), number);
            workers.push(Worker { stream: StreamId { worker: id, dp_rank: DpRank(0) }, profile, next: 0 });
        }
        Ok(Self {
            index,
            workers,
            numbers,
            coming: VecDeque::new(),
            delay_s,
            hasher: BlockHasher::new(),
            scratch: Scratch::default(),
            tokens: Vec::new(),
            applied: 0,
        })
    }

    /// An engine announces blocks that it stored.
    pub(super) fn stored(&mut self, now: f64, engine: usize, blocks: &[u64], parent: Option<u64>) {
        self.tokens.clear();
        self.tokens.extend(blocks.iter().flat_map(|block| tokens_of(*block)));
        let mut payload = Vec::with_capacity(64 + self.tokens.len() * 5);
        // Writing to memory cannot fail.
        let _ = write_stored(&mut payload, now, blocks, parent, &self.tokens);
        self.coming.push_back((now + self.delay_s, engine, payload));
    }

    /// An engine announces blocks that it removed.
    pub(super) fn removed(&mut self, now: f64, engine: usize, blocks: &[u64]) {
        let mut payload = Vec::new();
        let _ = write_removed(&mut payload, now, blocks);
        self.coming.push_back((now + self.delay_s, engine, payload));
    }

    /// Blocks of the prompt that each worker holds, by what has arrived by now.
    pub(super) fn matched(&mut self, now: f64, blocks: &[u64], into: &mut [usize]) -> anyhow::Result<()> {
        self.apply_until(now)?;
        self.tokens.clear();
        self.tokens.extend(blocks.iter().flat_map(|block| tokens_of(*block)));
        into.fill(0);
        let query = Query::tokens(MODEL, &self.tokens);
        let found = find_matches(&self.index.reader(), &query, &mut self.scratch)?;
        for worker in found.workers {
            let place = self.numbers.get(&worker.worker.id).and_then(|number| into.get_mut(*number));
            if let Some(place) = place {
                *place = worker.matched_blocks;
            }
        }
        Ok(())
    }

    fn apply_until(&mut self, now: f64) -> anyhow::Result<()> {
        while self.coming.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((at, engine, payload)) = self.coming.pop_front() else { break };
            let Some(worker) = self.workers.get_mut(engine) else { continue };
            let decoded = decode(&payload)?;
            let changes = decoded.seal(&worker.profile, &mut self.hasher);
            let outcome = self.index.apply(&Command::Events(StreamEvents {
                stream: worker.stream.clone(),
                generation: Generation(0),
                at_ms: (at * 1e3) as u64,
                payload_digest: None,
                registration: Registration::default(),
                batches: vec![Batch { seq: BatchSeq(worker.next), changes }].into(),
            }));
            worker.next += 1;
            let lost = outcome.orphaned + outcome.refused + outcome.removed_unknown + outcome.copies;
            anyhow::ensure!(lost == 0, "the index did not follow engine {engine}: {outcome:?}");
            self.applied += outcome.stored + outcome.removed;
        }
        Ok(())
    }
}

/// A block's tokens, from its name: the trace has none of its own.
fn tokens_of(block: u64) -> impl Iterator<Item = u32> {
    let first = splitmix64(block);
    (0..TOKENS).map(move |at| (splitmix64(first ^ at) % VOCABULARY) as u32)
}

/// An engine's own hash of a block. All engines name a block alike, as with equal seeds.
fn engine_hash(block: u64) -> u64 {
    splitmix64(!block)
}

/// A batch of one `BlockStored`, as vLLM writes it.
fn write_stored(
    out: &mut Vec<u8>,
    time_s: f64,
    blocks: &[u64],
    parent: Option<u64>,
    tokens: &[u32],
) -> Result<(), ValueWriteError> {
    write_array_len(out, 2)?;
    write_f64(out, time_s)?;
    write_array_len(out, 1)?;
    write_array_len(out, 9)?;
    write_str(out, "BlockStored")?;
    write_array_len(out, blocks.len() as u32)?;
    for block in blocks {
        write_uint(out, engine_hash(*block))?;
    }
    match parent {
        Some(parent) => write_uint(out, engine_hash(parent)).map(drop)?,
        None => nil(out)?,
    }
    write_array_len(out, tokens.len() as u32)?;
    for token in tokens {
        write_uint(out, u64::from(*token))?;
    }
    write_uint(out, TOKENS)?;
    nil(out)?; // The adapter's number.
    write_str(out, "GPU")?;
    nil(out)?; // The adapter's name.
    nil(out) // Extra keys.
}

/// A batch with a `BlockRemoved` for each block, as vLLM writes it.
fn write_removed(out: &mut Vec<u8>, time_s: f64, blocks: &[u64]) -> Result<(), ValueWriteError> {
    write_array_len(out, 2)?;
    write_f64(out, time_s)?;
    write_array_len(out, blocks.len() as u32)?;
    for block in blocks {
        write_array_len(out, 3)?;
        write_str(out, "BlockRemoved")?;
        write_array_len(out, 1)?;
        write_uint(out, engine_hash(*block))?;
        write_str(out, "GPU")?;
    }
    Ok(())
}

fn nil(out: &mut Vec<u8>) -> Result<(), ValueWriteError> {
    write_nil(out).map_err(ValueWriteError::InvalidMarkerWrite)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn announcements_count_once_they_have_arrived() {
        let mut feed = IndexFeed::new(2, 0.5).unwrap();
        let mut matched = [0; 2];
        feed.stored(1.0, 1, &[7, 8], None);
        feed.stored(1.1, 1, &[9], Some(8));
        feed.stored(1.2, 0, &[7], None);
        feed.removed(1.3, 1, &[9, 8]);
        for (now, expected) in [(1.49, [0, 0]), (1.5, [0, 2]), (1.6, [0, 3]), (1.75, [1, 3]), (1.9, [1, 1])] {
            feed.matched(now, &[7, 8, 9], &mut matched).unwrap();
            assert_eq!(matched, expected, "at {now}");
        }
        assert_eq!(feed.applied, 6);
    }
}
