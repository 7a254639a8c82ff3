//! Turns what a sequencer decides into as few commands as possible: consecutive batches of one stream share
//! one command, because each command costs the index's lock once.

use kvindex_core::{Batch, BatchSeq, Command, GapPolicy, Generation, Registration, StreamEvents, StreamId};

use super::limits::MAX_BLOCKS_PER_COMMAND;

/// A stream, and the registration of its worker for which it is followed.
pub type Followed<'a> = (&'a StreamId, Registration);

/// Commands of one turn, in order.
#[derive(Debug, Default)]
pub struct Batcher {
    commands: Vec<Command>,
    /// Blocks in the last command, when that one still takes batches.
    open_blocks: Option<usize>,
    blocks: usize,
}

impl Batcher {
    /// Adds one sealed batch that touches `blocks` blocks, with the digest of its payload.
    pub fn batch(
        &mut self,
        (stream, registration): Followed<'_>,
        generation: Generation,
        (batch, digest): (Batch, u64),
        blocks: usize,
        at_ms: u64,
    ) {
        self.blocks += blocks;
        if let Some(open) = self.open_blocks
            && open + blocks <= MAX_BLOCKS_PER_COMMAND
            && let Some(Command::Events(events)) = self.commands.last_mut()
            && events.stream == *stream
            && events.registration == registration
            && events.generation == generation
        {
            events.batches.push(batch);
            events.payload_digest = Some(digest);
            self.open_blocks = Some(open + blocks);
            return;
        }
        let events = StreamEvents {
            stream: stream.clone(),
            generation,
            at_ms,
            payload_digest: Some(digest),
            registration,
            batches: vec![batch].into(),
        };
        self.commands.push(Command::Events(events));
        self.open_blocks = Some(blocks);
    }

    /// Adds the beginning of a new generation.
    pub fn new_generation(
        &mut self,
        (stream, registration): Followed<'_>,
        generation: Generation,
        at_ms: u64,
    ) {
        self.open_blocks = None;
        let stream = stream.clone();
        self.commands.push(Command::NewGeneration { stream, generation, at_ms, registration });
    }

    /// Adds batches that are lost.
    pub fn gap(
        &mut self,
        (stream, registration): Followed<'_>,
        generation: Generation,
        (first, last): (BatchSeq, BatchSeq),
        policy: GapPolicy,
        at_ms: u64,
    ) {
        self.open_blocks = None;
        let stream = stream.clone();
        self.commands.push(Command::Gap { stream, generation, first, last, policy, at_ms, registration });
    }

    /// Blocks waiting: the measure of when to flush within a turn.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Takes all commands.
    pub fn take(&mut self) -> Vec<Command> {
        (self.open_blocks, self.blocks) = (None, 0);
        std::mem::take(&mut self.commands)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kvindex_core::{DpRank, WorkerId};

    fn stream(name: &str) -> StreamId {
        StreamId { worker: WorkerId::new(name).unwrap(), dp_rank: DpRank(0) }
    }

    fn add(batcher: &mut Batcher, name: &str, generation: u64, seq: u64, blocks: usize) {
        let batch = Batch { seq: BatchSeq(seq), changes: Vec::new().into() };
        let followed = (&stream(name), Registration(1));
        batcher.batch(followed, Generation(generation), (batch, 100 + seq), blocks, 1);
    }

    fn shape(commands: &[Command]) -> Vec<String> {
        let show = |command: &Command| match command {
            Command::Events(events) => {
                let seqs: Vec<_> = events.batches.iter().map(|batch| batch.seq.to_string()).collect();
                let last = events.batches.last().map(|batch| 100 + batch.seq.0);
                assert_eq!(events.payload_digest, last, "the digest is the last batch's");
                format!("{} {} {}", events.stream.worker, events.generation, seqs.join(","))
            }
            Command::Gap { first, last, .. } => format!("gap {first}-{last}"),
            other => format!("{other:?}"),
        };
        commands.iter().map(show).collect()
    }

    #[test]
    fn consecutive_batches_of_one_stream_and_generation_share_a_command() {
        let mut batcher = Batcher::default();
        add(&mut batcher, "a", 0, 0, 1);
        add(&mut batcher, "a", 0, 1, 1);
        add(&mut batcher, "b", 0, 5, 1);
        add(&mut batcher, "a", 0, 2, 1);
        add(&mut batcher, "a", 1, 0, 1);
        let followed = (&stream("a"), Registration(1));
        batcher.gap(followed, Generation(1), (BatchSeq(1), BatchSeq(3)), GapPolicy::Purge, 1);
        add(&mut batcher, "a", 1, 4, 1);
        let expected = ["a 0 0,1", "b 0 5", "a 0 2", "a 1 0", "gap 1-3", "a 1 4"];
        assert_eq!(shape(&batcher.take()), expected);
        assert!(batcher.take().is_empty());
    }

    #[test]
    fn batches_for_another_registration_do_not_share_a_command() {
        let mut batcher = Batcher::default();
        let (stream, generation) = (stream("a"), Generation(0));
        for (seq, registration) in [(0, 4), (0, 9), (1, 9)] {
            let batch = Batch { seq: BatchSeq(seq), changes: Vec::new().into() };
            batcher.batch((&stream, Registration(registration)), generation, (batch, 100 + seq), 1, 1);
        }
        assert_eq!(shape(&batcher.take()), ["a 0 0", "a 0 0,1"]);
    }

    #[test]
    fn a_full_command_is_closed() {
        let mut batcher = Batcher::default();
        add(&mut batcher, "a", 0, 0, MAX_BLOCKS_PER_COMMAND);
        add(&mut batcher, "a", 0, 1, 1);
        assert_eq!(shape(&batcher.take()), ["a 0 0", "a 0 1"]);
    }
}
