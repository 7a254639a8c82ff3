//! What a shard's log says beside changes of the index: workers that become known or are forgotten, and pushed
//! batches. A change is decided when it is applied, from what is known then, so every node decides alike.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use kvindex_core::{Batch, BatchSeq, Command, Generation, Registration, StreamEvents, WorkerId};

use super::publish::{PublishError, Published};
use super::registry::{KnownWorker, Origin, Registered};
use super::{Node, RegisterError};
use crate::workers::WorkerDefinition;

/// One change, as a log entry carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum WorkerChange {
    /// A worker becomes known, or known differently.
    Register {
        /// Its definition.
        definition: Box<WorkerDefinition>,
        /// Who says so.
        origin: Origin,
        /// Whether a different definition is replaced.
        replace: bool,
    },
    /// A worker is forgotten with all its blocks.
    Unregister {
        /// Which.
        worker: WorkerId,
    },
    /// A pushed batch, if it is the next one.
    Publish {
        /// The batch.
        events: Box<StreamEvents>,
    },
}

/// What became of it; told to whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeAnswer {
    /// To [`WorkerChange::Register`].
    Registered(Registered),
    /// The worker is known by another definition; one sentence a field.
    Differs(Vec<String>),
    /// To [`WorkerChange::Unregister`]: whether it was known.
    Unregistered(bool),
    /// To [`WorkerChange::Publish`].
    Published {
        /// Last applied batch.
        applied: BatchSeq,
        /// It was there before.
        duplicate: bool,
    },
    /// Batches are missing before the pushed one.
    PublishGap {
        /// The number that must come next.
        expected: BatchSeq,
    },
    /// A later life of the cache has begun.
    OldGeneration {
        /// The stream's.
        current: Generation,
    },
    /// Nobody knows the worker.
    UnknownWorker,
    /// The worker was registered anew after the batch was pushed, or just before by way of another node.
    OtherRegistration,
}

impl WorkerChange {
    /// The worker that it is about: its shard's log carries it.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        match self {
            Self::Register { definition, .. } => &definition.spec.id,
            Self::Unregister { worker } => worker,
            Self::Publish { events } => &events.stream.worker,
        }
    }
}

impl ChangeAnswer {
    pub(crate) fn to_bytes(&self) -> Bytes {
        rmp_serde::to_vec(self).unwrap_or_default().into()
    }

    /// The answer to a registration.
    pub(crate) fn registered(self, worker: &WorkerId) -> Result<Registered, RegisterError> {
        match self {
            Self::Registered(registered) => Ok(registered),
            Self::Differs(differences) => Err(RegisterError::Differs { worker: worker.clone(), differences }),
            other => {
                let message = format!("an answer of another kind came: {other:?}");
                Err(RegisterError::NotFollowed { field: "", message })
            }
        }
    }

    /// The answer to a pushed batch.
    pub(crate) fn published(self, events: &StreamEvents) -> Result<Published, PublishError> {
        let (generation, seq) =
            (events.generation, events.batches.last().map_or(BatchSeq(0), |b: &Batch| b.seq));
        match self {
            Self::Published { applied, duplicate } => Ok(Published { applied, duplicate }),
            Self::PublishGap { expected } => Err(PublishError::Gap { seq, expected, generation }),
            Self::OldGeneration { current } => Err(PublishError::OldGeneration { generation, current }),
            Self::OtherRegistration => Err(PublishError::OtherRegistration(events.stream.worker.clone())),
            _ => Err(PublishError::UnknownWorker(events.stream.worker.clone())),
        }
    }
}

impl Node {
    /// Applies a change at the entry `at` of its shard's log. Equal nodes give equal answers.
    pub(crate) fn apply_change(&self, change: WorkerChange, at: u64) -> ChangeAnswer {
        match change {
            WorkerChange::Register { definition, origin, replace } => {
                self.apply_register(*definition, origin, replace, at)
            }
            WorkerChange::Unregister { worker } => {
                let known = self.registry.write().remove(&worker);
                self.apply(&[Command::Unregister { worker }]);
                ChangeAnswer::Unregistered(known)
            }
            WorkerChange::Publish { events } => self.apply_published(*events),
        }
    }

    fn apply_register(
        &self,
        definition: WorkerDefinition,
        origin: Origin,
        replace: bool,
        at: u64,
    ) -> ChangeAnswer {
        let id = definition.spec.id.clone();
        let known = self.registry.read().get(&id).cloned();
        let mut since = at;
        if let Some(known) = &known {
            if known.definition == definition {
                return ChangeAnswer::Registered(Registered::Unchanged);
            }
            if !replace {
                return ChangeAnswer::Differs(known.definition.differences(&definition));
            }
            if known.is_followed_like(&definition) {
                since = known.since;
            } else if !known.definition.keeps_blocks_of(&definition) {
                self.apply(&[Command::Unregister { worker: id.clone() }]);
            }
        }
        let registration = self.make_known(&definition, Registration(at));
        self.registry.write().insert(KnownWorker { definition, origin, since, registration });
        ChangeAnswer::Registered(if known.is_some() { Registered::Replaced } else { Registered::Created })
    }

    /// Applies a pushed batch if it is the next one.
    pub(super) fn apply_published(&self, events: StreamEvents) -> ChangeAnswer {
        let mut index = self.index.write();
        match index.reader().registration(&events.stream.worker) {
            None => return ChangeAnswer::UnknownWorker,
            Some(present) if ![present, Registration(0)].contains(&events.registration) => {
                return ChangeAnswer::OtherRegistration;
            }
            Some(_) => {}
        }
        let stamp = index.reader().stream(&events.stream).unwrap_or_default();
        if events.generation < stamp.generation {
            return ChangeAnswer::OldGeneration { current: stamp.generation };
        }
        let applied = stamp.applied.filter(|_| events.generation == stamp.generation);
        let expected = applied.map_or(BatchSeq(0), |last| BatchSeq(last.0.saturating_add(1)));
        let Some(seq) = events.batches.first().map(|batch| batch.seq) else {
            return ChangeAnswer::Published { applied: applied.unwrap_or_default(), duplicate: true };
        };
        match applied {
            Some(applied) if seq <= applied => return ChangeAnswer::Published { applied, duplicate: true },
            _ if seq != expected => return ChangeAnswer::PublishGap { expected },
            _ => {}
        }
        self.apply_locked(&mut index, &Command::Events(events));
        ChangeAnswer::Published { applied: seq, duplicate: false }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::node::{Content, Publication};
    use crate::workers::RawWorker;
    use kvindex_core::{DpRank, EventBatch, GapPolicy, StreamId};

    fn worker() -> WorkerId {
        WorkerId::new("a").unwrap()
    }

    fn definition(model: &str, role: &str) -> WorkerDefinition {
        let raw = RawWorker {
            worker_id: "a".into(),
            model: model.into(),
            role: Some(role.into()),
            ..RawWorker::default()
        };
        raw.check(GapPolicy::Purge).unwrap()
    }

    fn register(node: &Node, definition: WorkerDefinition, at: u64) -> Registration {
        let definition = Box::new(definition);
        let change = WorkerChange::Register { definition, origin: Origin::Registered, replace: true };
        assert!(matches!(node.apply_change(change, at), ChangeAnswer::Registered(_)));
        let known = node.known_worker(&worker()).unwrap().registration;
        assert_eq!(node.index.read().reader().registration(&worker()), Some(known));
        known
    }

    fn pushed(node: &Node, seq: u64) -> WorkerChange {
        let (worker, dp_rank, generation) = (worker(), DpRank(0), Generation(0));
        let (stream, content) = (
            StreamId { worker, dp_rank },
            Content::Events(EventBatch { events: Vec::new(), ..EventBatch::default() }),
        );
        let events = node.seal(Publication { stream, generation, seq: BatchSeq(seq), content }).unwrap();
        WorkerChange::Publish { events: Box::new(events) }
    }

    #[test]
    fn a_registration_is_numbered_by_its_entry_until_the_worker_is_another_one() {
        let node = Node::new(&Config::defaults(), Metrics::new());
        assert_eq!(register(&node, definition("m", "prefill"), 10), Registration(10));
        assert_eq!(register(&node, definition("m", "prefill"), 11), Registration(10), "nothing changed");
        assert_eq!(register(&node, definition("m", "decode"), 12), Registration(10), "it keeps its blocks");
        assert_eq!(register(&node, definition("n", "decode"), 13), Registration(13));
        node.apply_change(WorkerChange::Unregister { worker: worker() }, 14);
        assert_eq!(register(&node, definition("n", "decode"), 15), Registration(15));
    }

    #[test]
    fn a_batch_pushed_for_an_earlier_registration_is_refused() {
        let node = Node::new(&Config::defaults(), Metrics::new());
        register(&node, definition("m", "prefill"), 10);
        let (late, again) = (pushed(&node, 0), pushed(&node, 0));
        let first = ChangeAnswer::Published { applied: BatchSeq(0), duplicate: false };
        assert_eq!(node.apply_change(late.clone(), 11), first);
        node.apply_change(WorkerChange::Unregister { worker: worker() }, 12);
        assert_eq!(node.apply_change(again.clone(), 13), ChangeAnswer::UnknownWorker);
        register(&node, definition("m", "prefill"), 14);
        let refused = node.apply_change(again, 15);
        assert_eq!(refused, ChangeAnswer::OtherRegistration);
        let WorkerChange::Publish { events } = late else { unreachable!() };
        let error = refused.published(&events).unwrap_err().to_string();
        assert!(error.starts_with("worker a was registered anew meanwhile"), "{error}");
        assert_eq!(node.apply_change(pushed(&node, 0), 16), first);
    }

    #[test]
    fn a_node_without_a_log_counts_registrations() {
        let node = Node::new(&Config::defaults(), Metrics::new());
        let register = || {
            node.register(&definition("m", "prefill"), Origin::Registered, true).unwrap();
            node.known_worker(&worker()).unwrap().registration
        };
        let first = register();
        assert_eq!(register(), first, "nothing changed");
        node.unregister(&worker());
        assert!(register() > first);
    }
}
