//! Reads one event batch from the wire: one tolerant reader for every schema that vLLM and SGLang have
//! published, and for what Mooncake's store makes of these. It makes a single pass over the bytes, because
//! decoding every token of a fleet is the busiest loop of ingest, and keeps whatever it can understand: an
//! event it cannot use is skipped and counted, an unknown field or tag is passed over.

mod error;
mod event;
mod hashes;
mod identity;
mod reader;

#[cfg(test)]
mod decode_test;
#[cfg(test)]
mod mooncake_test;
#[cfg(test)]
mod vectors_test;

use kvindex_core::{BlockHasher, Change, Changes, DpRank, EngineProfile, EventBatch, KvEvent};

pub use error::{DecodeError, SkipReason};
use event::Decoded;
use reader::Reader;

use super::limits::MAX_PAYLOAD_BYTES;

/// A batch as read, with what had to be left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecodedBatch {
    /// The events that were understood, in order.
    pub batch: EventBatch,
    /// Events with a tag that this version does not know.
    pub unknown_events: u32,
    /// Events left out although their tag is known.
    pub skipped: SkippedEvents,
    /// Stored events kept by their engine hashes alone, because their tokens or extra keys cannot be read
    /// as such (token pairs of EAGLE, negative ids, unknown extra keys).
    pub events_without_tokens: u32,
}

/// How many events were left out, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkippedEvents {
    /// A block hash of unknown width.
    pub hash_width: u32,
    /// A block size over [`kvindex_core::limits::MAX_BLOCK_SIZE`].
    pub block_size: u32,
    /// A field of a wrong kind or range.
    pub malformed: u32,
}

impl DecodedBatch {
    /// The batch hashed, with a mark for the index when an event of it could not be read: what it would have
    /// changed is not known, and answers must say so.
    #[must_use]
    pub fn seal(&self, engine: &EngineProfile, hasher: &mut BlockHasher) -> Changes {
        let mut changes = self.batch.seal(engine, hasher);
        if self.skipped.total() > 0 {
            changes.push(Change::Unreadable);
        }
        changes
    }
}

impl SkippedEvents {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.hash_width + self.block_size + self.malformed
    }

    fn count(&mut self, reason: SkipReason) {
        match reason {
            SkipReason::HashWidth => self.hash_width += 1,
            SkipReason::BlockSize => self.block_size += 1,
            SkipReason::Malformed => self.malformed += 1,
        }
    }
}

/// Decodes the payload of one event batch.
///
/// # Errors
/// When the payload as a whole cannot be trusted: too large, cut short, claiming more than it holds, not a
/// batch, or with an event of more blocks than `MAX_BLOCKS_PER_EVENT`. Never panics, whatever the bytes.
pub fn decode(payload: &[u8]) -> Result<DecodedBatch, DecodeError> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(DecodeError::PayloadTooLarge { len: payload.len(), limit: MAX_PAYLOAD_BYTES });
    }
    let mut reader = Reader::new(payload);
    let Some(fields) = reader.array("batch")? else {
        return Err(reader.wrong_kind("batch", "an array"));
    };
    if fields < 2 {
        return Err(DecodeError::TooFew { field: "batch", len: fields, least: 2 });
    }
    let mut decoded = DecodedBatch::default();
    decoded.batch.engine_time_ms = engine_time_ms(&mut reader)?;
    read_events(&mut reader, &mut decoded)?;
    if fields > 2 {
        decoded.batch.dp_rank = rank(&mut reader)?;
    }
    for _ in 3..fields {
        reader.skip("batch")?;
    }
    match reader.remaining() {
        0 => Ok(decoded),
        len => Err(DecodeError::TrailingBytes { len }),
    }
}

/// The engine's clock: seconds as a float everywhere but in Mooncake's store, which sends integer
/// milliseconds. A wrong guess harms nothing: this time is shown, never ordered by.
fn engine_time_ms(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    const FIELD: &str = "ts";
    // Seconds since 1970 reach this in the year 5138, milliseconds did in 1973.
    const MILLISECONDS_FROM: f64 = 1e11;
    let time = match (reader.float(FIELD)?, reader.nil()) {
        (Some(time), _) => time,
        (None, true) => return Ok(0),
        (None, false) => match reader.int(FIELD)? {
            Some(time) => time as f64,
            None => {
                reader.skip(FIELD)?;
                return Ok(0);
            }
        },
    };
    let ms = if time < MILLISECONDS_FROM { time * 1000.0 } else { time };
    Ok(ms as u64) // saturates; NaN and negative times become 0, "unknown"
}

fn rank(reader: &mut Reader<'_>) -> Result<Option<DpRank>, DecodeError> {
    const FIELD: &str = "data_parallel_rank";
    match reader.int(FIELD)? {
        Some(rank) => Ok(u32::try_from(rank).ok().map(DpRank)),
        None => reader.skip(FIELD).map(|()| None),
    }
}

fn read_events(reader: &mut Reader<'_>, decoded: &mut DecodedBatch) -> Result<(), DecodeError> {
    let Some(count) = reader.array("events")? else {
        return Err(reader.wrong_kind("events", "an array"));
    };
    for _ in 0..count {
        let start = *reader;
        match event::read(reader) {
            Ok(Some(Decoded { event, tokens_known })) => {
                decoded.batch.events.push(event);
                decoded.events_without_tokens += u32::from(!tokens_known);
            }
            Ok(None) => decoded.unknown_events += 1,
            Err(error) => {
                let reason = error.skip_reason().ok_or(error)?;
                *reader = start;
                reader.skip("event")?;
                decoded.skipped.count(reason);
            }
        }
    }
    Ok(())
}

/// Blocks that a batch touches: what the batcher and the counters measure work by.
#[must_use]
pub fn blocks_of(batch: &EventBatch) -> usize {
    batch
        .events
        .iter()
        .map(|event| match event {
            KvEvent::BlockStored(stored) => stored.block_hashes.len(),
            KvEvent::BlockRemoved(removed) => removed.block_hashes.len(),
            KvEvent::AllBlocksCleared => 1,
        })
        .sum()
}
