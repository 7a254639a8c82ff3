//! Pushed events: for engines without a ZeroMQ publisher. The caller numbers its batches, so the same
//! exactly-once rule holds as for subscribed streams, and a hole is answered instead of replayed.

use bytes::Bytes;
use kvindex_core::{Batch, BatchSeq, BlockHasher, EventBatch, Generation, StreamEvents, StreamId, WorkerId};

use super::{Node, unix_ms};
use crate::ingest::decode::decode;

/// One pushed batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// Whose.
    pub stream: StreamId,
    /// Which life of the engine's cache.
    pub generation: Generation,
    /// Its number in that life, from 0.
    pub seq: BatchSeq,
    /// The events.
    pub content: Content,
}

/// Events of a pushed batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// As the engine encodes them.
    Payload(Bytes),
    /// Already taken apart.
    Events(EventBatch),
}

/// What became of a pushed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Last applied batch of the stream.
    pub applied: BatchSeq,
    /// The batch had been applied before.
    pub duplicate: bool,
}

/// Why a pushed batch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Events of a worker nobody knows.
    #[error("worker {0} is not registered")]
    UnknownWorker(WorkerId),
    /// It was pushed for another registration of the worker than the present one.
    #[error("worker {0} was registered anew meanwhile; push the batch again if it is still meant")]
    OtherRegistration(WorkerId),
    /// The stream is subscribed to: two sources would number differently.
    #[error("{stream} is subscribed to at {endpoint}; its events cannot be pushed too")]
    HasPublisher {
        /// The stream.
        stream: StreamId,
        /// Where it publishes.
        endpoint: String,
    },
    /// Batches are missing before this one.
    #[error("is {seq}, expected {expected} in generation {generation}")]
    Gap {
        /// The batch's number.
        seq: BatchSeq,
        /// The number that must come next.
        expected: BatchSeq,
        /// Where.
        generation: Generation,
    },
    /// The batch is from an earlier life of the cache.
    #[error("is {generation}, generation {current} has begun")]
    OldGeneration {
        /// The batch's generation.
        generation: Generation,
        /// The stream's.
        current: Generation,
    },
    /// The payload is no event batch.
    #[error("{0}")]
    Undecodable(String),
}

impl Node {
    /// A pushed batch as the index takes it, if its stream may be pushed.
    ///
    /// # Errors
    /// When the worker is not known or publishes itself, or the payload cannot be read.
    pub fn seal(&self, publication: Publication) -> Result<StreamEvents, PublishError> {
        let Publication { stream, generation, seq, content } = publication;
        let (profile, registration) = {
            let registry = self.registry.read();
            let Some(known) = registry.get(&stream.worker) else {
                return Err(PublishError::UnknownWorker(stream.worker));
            };
            let mut sources = known.definition.streams.iter();
            if let Some(source) = sources.find(|source| source.dp_rank == stream.dp_rank) {
                return Err(PublishError::HasPublisher { stream, endpoint: source.endpoint.clone() });
            }
            (known.definition.spec.profile(), known.registration)
        };
        let mut hasher = BlockHasher::new();
        let changes = match content {
            Content::Events(batch) => batch.seal(&profile, &mut hasher),
            Content::Payload(payload) => {
                let decoded = decode(&payload);
                let decoded = decoded.map_err(|error| PublishError::Undecodable(error.to_string()))?;
                decoded.seal(&profile, &mut hasher)
            }
        };
        let batches = vec![Batch { seq, changes }].into();
        Ok(StreamEvents { stream, generation, at_ms: unix_ms(), batches, payload_digest: None, registration })
    }

    /// Applies one pushed batch.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing was changed then.
    pub fn publish(&self, publication: Publication) -> Result<Published, PublishError> {
        let events = self.seal(publication)?;
        let answer = self.apply_published(events.clone());
        self.keep_below_cap();
        answer.published(&events)
    }
}
