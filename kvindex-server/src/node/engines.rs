//! The node's side of ingest: which streams are followed, and how each link stands.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kvindex_core::{BatchSeq, Generation, StreamId};

use super::Node;
use crate::config::IngestConfig;
use crate::ingest::sequencer::Phase;
use crate::ingest::{Handle, IngestCounters, IngestError, Sink, Subscription, start};
use crate::trust::Link;
use crate::workers::WorkerDefinition;

/// Steers ingest, once it runs: ingest needs the node to write to, the node needs ingest to steer.
#[derive(Default)]
pub(super) struct Engines {
    handle: OnceLock<Handle>,
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").field("running", &self.handle.get().is_some()).finish()
    }
}

impl Engines {
    /// Follows every stream of a worker; `resume` tells what the index holds of a stream already. Before ingest
    /// runs this does nothing: it follows all known workers when it starts.
    pub(super) fn follow(
        &self,
        definition: &WorkerDefinition,
        resume: impl Fn(&StreamId) -> Option<(Generation, BatchSeq)>,
    ) -> Result<(), IngestError> {
        let Some(handle) = self.handle.get() else {
            return Ok(());
        };
        for subscription in subscriptions(definition) {
            let resume = resume(&subscription.stream);
            if let Err(error) = handle.subscribe(subscription, resume) {
                self.leave(definition);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stops following a worker. When this returns, none of its events can come any more. The caller must not
    /// hold the index's lock: an event on its way may need it.
    pub(super) fn leave(&self, definition: &WorkerDefinition) {
        if let Some(handle) = self.handle.get() {
            for subscription in subscriptions(definition) {
                handle.unsubscribe(&subscription.stream);
            }
        }
    }

    /// How a followed stream stands; `None` when it is not followed.
    pub(super) fn link(&self, stream: &StreamId) -> Option<Link> {
        let status = self.handle.get()?.status(stream)?;
        Some(Link {
            connected: status.connected,
            heard: status.phase != Phase::Pending,
            behind: status.phase == Phase::CatchingUp || status.behind_ms.is_some(),
            lag_ms: status.behind_ms.unwrap_or(0),
            binds: status.binds,
            crowded: status.publishers > 1,
            another_rank: status.another_rank,
            hash_check: status.hash_check,
        })
    }

    pub(super) fn counters(&self) -> Option<&IngestCounters> {
        self.handle.get().map(Handle::counters)
    }
}

fn subscriptions(definition: &WorkerDefinition) -> impl Iterator<Item = Subscription> + '_ {
    definition.streams.iter().map(|source| Subscription {
        stream: StreamId { worker: definition.spec.id.clone(), dp_rank: source.dp_rank },
        profile: definition.spec.profile(),
        endpoint: source.endpoint.clone(),
        replay_endpoint: source.replay_endpoint.clone(),
        topic: source.topic.clone(),
        gap_policy: definition.gap_policy,
        // Checked when the worker was defined, so it can be read.
        hash_profile: definition.hash_profile.as_ref().and_then(|profile| profile.of(&definition.spec).ok()),
    })
}

impl Node {
    /// Starts ingest and follows the streams of every known worker.
    ///
    /// # Errors
    /// When the threads cannot be started or an endpoint cannot be read.
    pub fn start_ingest(self: &Arc<Self>, config: IngestConfig) -> Result<(), IngestError> {
        let _one_at_a_time = self.steering.lock();
        // Weak: the node owns the threads, not the other way round.
        let node = Arc::downgrade(self);
        let sink: Sink = Arc::new(move |commands| {
            if let Some(node) = node.upgrade() {
                node.apply(&commands);
            }
        });
        let settings = crate::ingest::IngestConfig {
            threads: config.threads,
            idle_poll: config.idle_poll,
            replay_timeout: config.replay_timeout,
        };
        if self.engines.handle.set(start(settings, &sink)?).is_err() {
            return Ok(()); // it runs already
        }
        for known in self.known_workers() {
            self.follow(&known.definition)?;
        }
        Ok(())
    }

    /// Ends ingest: what it has decided on is applied when this returns, and nothing comes after.
    pub fn stop_ingest(&self) {
        if let Some(handle) = self.engines.handle.get() {
            handle.shutdown();
        }
    }

    /// Follows a worker's streams from where the index stands.
    pub(super) fn follow(&self, definition: &WorkerDefinition) -> Result<(), IngestError> {
        self.engines.follow(definition, |stream| {
            let stamp = self.stream_stamp(stream)?;
            // A generation in which nothing was applied yet counts too: in an older one all would be stale.
            let heard = stamp.applied.is_some() || stamp.generation > Generation(0);
            heard.then(|| (stamp.generation, stamp.applied.unwrap_or_default()))
        })
    }
}
