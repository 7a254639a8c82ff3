//! What goes into a sequencer and what comes out of it.

use kvindex_core::{BatchSeq, Generation};

use crate::ingest::limits::{MAX_BUFFERED_BATCHES, MAX_BUFFERED_BYTES};

/// One received batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival<B> {
    /// Its number on the wire.
    pub seq: u64,
    /// XXH3-64 of its payload.
    pub digest: u64,
    /// Its payload's length, for bounding what is held back.
    pub bytes: usize,
    /// Its content.
    pub batch: B,
}

/// What the index holds of a stream already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The stream's generation.
    pub generation: Generation,
    /// The last batch applied in it.
    pub applied: Option<BatchSeq>,
    /// XXH3-64 of that batch's payload, where it is known: the only proof of a life.
    pub payload_digest: Option<u64>,
}

impl Resume {
    /// Number and digest of the last applied batch, where both are known.
    pub(in crate::ingest) fn last(&self) -> Option<(u64, u64)> {
        Some((self.applied?.0, self.payload_digest?))
    }
}

/// What happened on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<B> {
    /// A batch came from the publisher.
    Live(Arrival<B>),
    /// A batch came from the replay that was asked for last.
    Replayed(Arrival<B>),
    /// That replay sent its end marker.
    ReplayEnd,
    /// That replay never answered, died midway or sent garbage.
    ReplayFailed,
    /// The subscription is connected, for the first time or again.
    Connected,
    /// The subscription lost its connection.
    Disconnected,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<B> {
    /// Apply this batch.
    Apply {
        /// The stream's generation.
        generation: Generation,
        /// The batch's number.
        seq: BatchSeq,
        /// XXH3-64 of its payload.
        digest: u64,
        /// Its content.
        batch: B,
    },
    /// The engine's cache is another one from now on; numbers start again.
    NewGeneration(Generation),
    /// These batches are lost for good.
    Gap {
        /// The stream's generation.
        generation: Generation,
        /// First lost one.
        first: BatchSeq,
        /// Last lost one.
        last: BatchSeq,
    },
    /// Ask the engine for its batches from this number on. Replaces a replay that is still running: nothing
    /// more of that one may be put in.
    RequestReplay {
        /// First number to ask for.
        from: BatchSeq,
    },
    /// A batch came again.
    Duplicate,
}

/// How far a stream is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was heard of the engine yet.
    Pending,
    /// Batches are known or suspected to be missing, and being fetched.
    CatchingUp,
    /// Everything that is known to exist was applied or declared lost.
    Live,
}

/// Settings of a sequencer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencerConfig {
    /// Whether the engine has a replay socket.
    pub has_replay: bool,
    /// Silence after which the last batch is asked for again, to find a lost tail or an unnoticed restart.
    pub idle_poll_ms: u64,
    /// Most batches held back while a replay runs.
    pub max_buffered_batches: usize,
    /// Most payload bytes held back while a replay runs.
    pub max_buffered_bytes: usize,
}

impl Default for SequencerConfig {
    fn default() -> Self {
        Self {
            has_replay: true,
            idle_poll_ms: 5_000,
            max_buffered_batches: MAX_BUFFERED_BATCHES,
            max_buffered_bytes: MAX_BUFFERED_BYTES,
        }
    }
}
