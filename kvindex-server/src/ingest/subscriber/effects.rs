//! What a stream's sequencer decided, as commands: decoded, checked and sealed on the way.

use kvindex_core::{Batch, BatchSeq, DpRank, EventBatch, GapPolicy, Generation};

use super::stream::{Stream, Turn};
use crate::ingest::counters::IngestCounters;
use crate::ingest::decode::{blocks_of, decode};
use crate::ingest::profile_check::HashCheck;

impl Stream {
    pub(super) fn apply(
        &mut self,
        generation: Generation,
        (seq, digest): (BatchSeq, u64),
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) {
        self.deciding = true;
        let decoded = match decode(payload) {
            Ok(decoded) => decoded,
            Err(error) => {
                turn.counters.count_decode_error(&error);
                tracing::warn!(stream = %self.source.stream, %seq, %error, "undecodable event batch");
                // Its number is used up, and what it said is lost.
                return self.gap(generation, (seq, seq), turn);
            }
        };
        turn.counters.count_decoded(&decoded);
        turn.counters.applied.add(1);
        self.check_rank(decoded.batch.dp_rank, turn.counters);
        self.check_hashes(&decoded.batch);
        let changes = decoded.seal(&self.source.profile, turn.hasher);
        let blocks = blocks_of(&decoded.batch);
        let batch = (Batch { seq, changes }, digest);
        turn.batcher.batch(self.source.followed(), generation, batch, blocks, turn.unix_ms);
    }

    /// A batch of another rank shows that the stream's endpoint is that rank's: a wrong port, most often.
    fn check_rank(&self, named: Option<DpRank>, counters: &IngestCounters) {
        let Some(named) = named.filter(|rank| *rank != self.source.stream.dp_rank) else {
            return;
        };
        counters.another_rank.add(1);
        if self.status.note_another_rank() {
            let (stream, endpoint) = (&self.source.stream, &self.source.endpoint);
            tracing::warn!(%stream, endpoint, rank = named.0, "the engine's batches name another dp rank");
        }
    }

    /// Before the tokens are gone.
    fn check_hashes(&mut self, batch: &EventBatch) {
        if let Some(verdict) = self.check.as_mut().and_then(|check| check.look(batch)) {
            self.status.set_hash_check(verdict.state);
            verdict.tell(&self.source.stream);
        }
    }

    pub(super) fn new_generation(&mut self, generation: Generation, turn: &mut Turn<'_>) {
        self.deciding = true;
        if let Some(check) = &mut self.check {
            check.restart();
            self.status.set_hash_check(HashCheck::Unchecked);
        }
        turn.counters.new_generations.add(1);
        tracing::info!(stream = %self.source.stream, %generation, "new generation");
        turn.batcher.new_generation(self.source.followed(), generation, turn.unix_ms);
    }

    pub(super) fn gap(
        &mut self,
        generation: Generation,
        (first, last): (BatchSeq, BatchSeq),
        turn: &mut Turn<'_>,
    ) {
        self.deciding = true;
        turn.counters.gaps.add(1);
        turn.counters.gap_batches.add((last.0 - first.0).saturating_add(1));
        self.status.count_gap();
        tracing::warn!(stream = %self.source.stream, %generation, %first, %last, "event batches are lost");
        // A life joined late has nothing yet that could be kept.
        let policy = if first == BatchSeq(0) { GapPolicy::Purge } else { self.source.gap_policy };
        turn.batcher.gap(self.source.followed(), generation, (first, last), policy, turn.unix_ms);
    }
}
