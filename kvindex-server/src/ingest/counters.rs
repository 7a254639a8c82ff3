//! What ingest has done since it started, for the metrics page: plain atomics, so that counting costs the
//! receive path nothing worth measuring.

use std::sync::atomic::{AtomicU64, Ordering};

use kvindex_core::Durations;

use super::decode::{DecodeError, DecodedBatch};

/// Totals over all streams of a process. Read them with [`Counter::get`].
#[derive(Debug, Default)]
pub struct IngestCounters {
    /// How long the sink took for each turn's commands.
    pub taken: Durations,
    /// Batches received live.
    pub received: Counter,
    /// Batches received by replay.
    pub replayed: Counter,
    /// Payload bytes received, live and by replay.
    pub bytes: Counter,
    /// Batches passed on for the index to apply.
    pub applied: Counter,
    /// Batches that came again and were ignored.
    pub duplicates: Counter,
    /// Gaps declared.
    pub gaps: Counter,
    /// Batches lost in them.
    pub gap_batches: Counter,
    /// Replays asked for.
    pub replays_requested: Counter,
    /// Replays that never answered, died midway or sent garbage.
    pub replays_failed: Counter,
    /// Batches that a full backlog dropped before anybody read them.
    pub backlog_dropped: Counter,
    /// Times commands were not taken, so that a stream fell back to standby.
    pub fallen_back: Counter,
    /// Times an engine was found to have started again.
    pub new_generations: Counter,
    /// Messages without three frames, or with a number that is not 8 bytes.
    pub bad_frames: Counter,
    /// Socket errors that left a stream waiting for its next chance.
    pub socket_errors: Counter,
    /// Times a further publisher came to an endpoint that kvindex binds for one engine.
    pub extra_publishers: Counter,
    /// Batches that name another data-parallel rank than their stream has.
    pub another_rank: Counter,
    /// Events with an unknown tag, passed over.
    pub unknown_events: Counter,
    /// Stored events kept by engine hash alone, their tokens or extra keys not being readable.
    pub events_without_tokens: Counter,
    /// Events left out for a block hash of unknown width.
    pub skipped_hash_width: Counter,
    /// Events left out for a block size over the limit.
    pub skipped_block_size: Counter,
    /// Events left out for a field of a wrong kind or range.
    pub skipped_malformed: Counter,
    decode_errors: [Counter; DecodeError::NAMES.len()],
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }
}

impl IngestCounters {
    /// Payloads that could not be decoded, by reason.
    pub fn decode_errors(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DecodeError::NAMES.iter().zip(&self.decode_errors).map(|(name, counter)| (*name, counter.get()))
    }

    pub(super) fn count_decode_error(&self, error: &DecodeError) {
        let reasons = DecodeError::NAMES.iter().zip(&self.decode_errors);
        reasons.filter(|(name, _)| **name == error.name()).for_each(|(_, counter)| counter.add(1));
    }

    pub(super) fn count_decoded(&self, decoded: &DecodedBatch) {
        self.unknown_events.add(decoded.unknown_events.into());
        self.events_without_tokens.add(decoded.events_without_tokens.into());
        self.skipped_hash_width.add(decoded.skipped.hash_width.into());
        self.skipped_block_size.add(decoded.skipped.block_size.into());
        self.skipped_malformed.add(decoded.skipped.malformed.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_errors_are_counted_by_name() {
        let counters = IngestCounters::default();
        counters.count_decode_error(&DecodeError::TrailingBytes { len: 1 });
        counters.count_decode_error(&DecodeError::TrailingBytes { len: 2 });
        let counted: Vec<_> = counters.decode_errors().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("trailing_bytes", 2)]);
    }
}
