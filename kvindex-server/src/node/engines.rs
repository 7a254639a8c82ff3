//! The node's side of ingest: which streams are followed, and how each link stands.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kvindex_core::{Generation, StreamId, StreamStamp, WorkerId};

use super::Node;
use super::registry::KnownWorker;
use crate::config::IngestConfig;
use crate::ingest::sequencer::Phase;
use crate::ingest::{Begin, Handle, IngestCounters, IngestError, Resume, Subscription, Wiring, start};
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
        known: &KnownWorker,
        resume: impl Fn(&StreamId) -> Option<Resume>,
    ) -> Result<(), IngestError> {
        let Some(handle) = self.handle.get() else {
            return Ok(());
        };
        for subscription in subscriptions(known) {
            let begin = Begin::Led(resume(&subscription.stream));
            if let Err(error) = handle.subscribe(subscription, begin) {
                self.leave(&known.definition);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stops following a worker. When this returns, none of its events can come any more. The caller must not
    /// hold the index's lock: an event on its way may need it.
    pub(super) fn leave(&self, definition: &WorkerDefinition) {
        if let Some(handle) = self.handle.get() {
            for source in &definition.streams {
                let worker = definition.spec.id.clone();
                handle.unsubscribe(&StreamId { worker, dp_rank: source.dp_rank });
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
            cut_off: false,
        })
    }

    pub(super) fn counters(&self) -> Option<&IngestCounters> {
        self.handle.get().map(Handle::counters)
    }
}

fn subscriptions(known: &KnownWorker) -> impl Iterator<Item = Subscription> + '_ {
    let definition = &known.definition;
    definition.streams.iter().map(|source| Subscription {
        stream: StreamId { worker: definition.spec.id.clone(), dp_rank: source.dp_rank },
        registration: known.registration,
        profile: definition.spec.profile(),
        endpoint: source.endpoint.clone(),
        replay_endpoint: source.replay_endpoint.clone(),
        topic: source.topic.clone(),
        gap_policy: definition.gap_policy,
        // Checked when the worker was defined, so it can be read.
        hash_profile: definition.hash_profile.as_ref().and_then(|profile| profile.of(&definition.spec).ok()),
    })
}

impl From<IngestConfig> for crate::ingest::IngestConfig {
    fn from(config: IngestConfig) -> Self {
        let IngestConfig { threads, idle_poll, replay_timeout, .. } = config;
        Self { threads, idle_poll, replay_timeout }
    }
}

impl Node {
    /// Starts ingest for a cluster, which says what is followed and where commands go.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn start_ingest_for(&self, config: IngestConfig, wiring: &Wiring) -> Result<(), IngestError> {
        // It runs already: then it goes on.
        let _ = self.engines.handle.set(start(config.into(), wiring)?);
        Ok(())
    }

    /// Starts ingest and follows the streams of every known worker. Whoever cannot be followed stays known, and
    /// [`Node::follow_missing`] tries again.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn start_ingest(self: &Arc<Self>, config: IngestConfig) -> Result<(), IngestError> {
        // Weak: the node owns the threads, not the other way round.
        let node = Arc::downgrade(self);
        let wiring = Wiring::to(move |commands| {
            if let Some(node) = node.upgrade() {
                node.apply(&commands);
            }
        });
        {
            let _one_at_a_time = self.steering.lock();
            if self.engines.handle.set(start(config.into(), &wiring)?).is_err() {
                return Ok(()); // it runs already
            }
        }
        // One bad endpoint must not keep a node from serving what it knows of others.
        self.follow_missing();
        Ok(())
    }

    /// Tries to follow every known worker that is not followed; answers who still is not, and why. For a node alone:
    /// in a cluster its steering does that.
    pub fn follow_missing(&self) -> Vec<(WorkerId, IngestError)> {
        let _one_at_a_time = self.steering.lock();
        let Some(handle) = self.engines.handle.get() else {
            return Vec::new();
        };
        let is_followed = |known: &KnownWorker| {
            subscriptions(known).all(|subscription| handle.status(&subscription.stream).is_some())
        };
        let missing = self.known_workers().into_iter().filter(|known| !is_followed(known));
        let tried = missing.map(|known| {
            // Of several streams some may be followed.
            self.engines.leave(&known.definition);
            let followed = self.engines.follow(&known, |stream| self.resume(stream));
            followed.err().map(|error| (known.definition.spec.id, error))
        });
        tried.flatten().collect()
    }

    /// Ends ingest: what it has decided on is applied when this returns, and nothing comes after.
    pub fn stop_ingest(&self) {
        if let Some(handle) = self.engines.handle.get() {
            handle.shutdown();
        }
    }

    /// Follows the streams of a worker that is registered now, from where the index stands. To check a hash profile,
    /// what the engine said earlier is read again: without a proof of its life a stream begins anew.
    pub(super) fn follow(&self, known: &KnownWorker) -> Result<(), IngestError> {
        let reread = known.definition.hash_profile.is_some();
        self.engines.follow(known, |stream| {
            let resume = self.resume(stream)?;
            Some(Resume { payload_digest: resume.payload_digest.filter(|_| !reread), ..resume })
        })
    }

    /// What is to be subscribed to for a worker.
    pub(crate) fn subscriptions(known: &KnownWorker) -> Vec<Subscription> {
        subscriptions(known).collect()
    }

    /// Asks something of ingest; `None` when it does not run.
    pub(crate) fn with_ingest<T>(&self, ask: impl FnOnce(&Handle) -> T) -> Option<T> {
        self.engines.handle.get().map(ask)
    }

    /// What the index holds of a stream.
    pub(crate) fn resume(&self, stream: &StreamId) -> Option<Resume> {
        let StreamStamp { generation, applied, payload_digest, .. } = self.stream_stamp(stream)?;
        // A generation in which nothing was applied yet counts too: in an older one all would be stale.
        let heard = applied.is_some() || generation > Generation(0);
        heard.then_some(Resume { generation, applied, payload_digest })
    }
}
