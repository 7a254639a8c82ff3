//! Which workers are known, where their streams come from, and the order in which becoming known and being
//! forgotten happen: index first and engine last on the way in, engine first and index last on the way out.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use kvindex_core::{Command, Registration, StreamId, WorkerId};

use super::Node;
use super::block_sizes::BlockSizes;
use crate::ingest::IngestError;
use crate::workers::WorkerDefinition;

/// Who made a worker known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The configuration file: forgotten when it leaves the file, by a node alone also while that does not run. In a
    /// cluster each node's file may list others: who leaves one while its node is down stays.
    Static,
    /// A register call.
    Registered,
    /// Found by discovery: forgotten when it is not found any more.
    Discovered,
}

/// A known worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownWorker {
    /// Its definition.
    pub definition: WorkerDefinition,
    /// Who made it known.
    pub origin: Origin,
    /// The entry of its shard's log since which its streams are followed as they are now; 0 without a log.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since: u64,
    /// The number of its registration, as the index has it: with a log the entry that made the worker known, without
    /// one they are counted. What was made for another registration of the worker has no effect.
    #[serde(default)]
    pub registration: Registration,
}

impl KnownWorker {
    /// Whether its streams go on undisturbed under another definition: only words about the worker differ.
    pub(super) fn is_followed_like(&self, definition: &WorkerDefinition) -> bool {
        let known = &self.definition;
        known.keeps_blocks_of(definition)
            && known.gap_policy == definition.gap_policy
            && known.hash_profile == definition.hash_profile
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(since: &u64) -> bool {
    *since == 0
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registered {
    /// The worker is new.
    Created,
    /// It was known by the same definition.
    Unchanged,
    /// Its definition was replaced.
    Replaced,
}

/// Why a worker was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// It is known by another definition.
    #[error("{worker} is registered differently ({}); set replace to change it", .differences.join("; "))]
    Differs {
        /// The worker.
        worker: WorkerId,
        /// One sentence a field.
        differences: Vec<String>,
    },
    /// No more workers fit.
    #[error("{limit} workers are registered, which is the limit (max_workers)")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// One of its streams cannot be followed.
    #[error("{message}")]
    NotFollowed {
        /// The field that says where; empty when it is none's fault.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
}

fn not_followed(error: &IngestError) -> RegisterError {
    let field = match error {
        IngestError::BadEndpoint { field, .. }
        | IngestError::UnsupportedEndpoint { field, .. }
        | IngestError::NotBound { field, .. }
        | IngestError::TooLong { field, .. } => field,
        IngestError::AlreadyFollowed(_)
        | IngestError::Socket(_)
        | IngestError::NoThreads
        | IngestError::Thread(_)
        | IngestError::ShutDown => "",
    };
    RegisterError::NotFollowed { field, message: error.to_string() }
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    workers: BTreeMap<WorkerId, KnownWorker>,
    block_sizes: BlockSizes,
    /// The highest number of a registration that was given here.
    last: u64,
}

impl Registry {
    pub(super) fn new(workers: Vec<KnownWorker>) -> Self {
        let last = workers.iter().map(|worker| worker.registration.0).max().unwrap_or(0);
        let mut registry = Self { last, ..Self::default() };
        workers.into_iter().for_each(|worker| registry.insert(worker));
        registry
    }

    /// A number that no registration had before, on a node that numbers them itself.
    fn number(&mut self) -> Registration {
        self.last += 1;
        Registration(self.last)
    }

    pub(super) fn get(&self, worker: &WorkerId) -> Option<&KnownWorker> {
        self.workers.get(worker)
    }

    pub(super) fn insert(&mut self, worker: KnownWorker) {
        self.block_sizes.add(&worker.definition);
        if let Some(before) = self.workers.insert(worker.definition.spec.id.clone(), worker) {
            self.block_sizes.remove(&before.definition);
        }
    }

    /// Whether it was known.
    pub(super) fn remove(&mut self, worker: &WorkerId) -> bool {
        let known = self.workers.remove(worker);
        known.inspect(|known| self.block_sizes.remove(&known.definition)).is_some()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &KnownWorker> {
        self.workers.values()
    }

    /// Whether kvindex itself subscribes to this stream.
    pub(super) fn has_source(&self, stream: &StreamId) -> bool {
        let known = self.get(&stream.worker);
        known.is_some_and(|w| w.definition.streams.iter().any(|s| s.dp_rank == stream.dp_rank))
    }
}

impl Node {
    /// Makes a worker known and subscribes to its streams. The same definition twice changes nothing.
    ///
    /// # Errors
    /// When it is known by another definition and `replace` is not set, no more workers fit, or a stream cannot
    /// be followed. Then what was known before still is; without its blocks, if they would not have been the new one's.
    pub fn register(
        &self,
        definition: &WorkerDefinition,
        origin: Origin,
        replace: bool,
    ) -> Result<Registered, RegisterError> {
        let _one_at_a_time = self.steering.lock();
        let id = definition.spec.id.clone();
        let (known, count) = {
            let registry = self.registry.read();
            (registry.get(&id).cloned(), registry.workers.len())
        };
        if let Some(known) = &known {
            if known.definition == *definition {
                // The file's word is kept: the worker goes when it leaves the file.
                return Ok(Registered::Unchanged);
            }
            if !replace {
                let differences = known.definition.differences(definition);
                return Err(RegisterError::Differs { worker: id, differences });
            }
        } else if count >= self.max_workers {
            return Err(RegisterError::TooMany { limit: self.max_workers });
        }
        if known.as_ref().is_some_and(|known| known.is_followed_like(definition)) {
            self.describe(definition, origin);
            tracing::info!(worker = %id, "registered with a new description");
            return Ok(Registered::Replaced);
        }
        if let Some(known) = &known {
            self.engines.leave(&known.definition);
            if !known.definition.keeps_blocks_of(definition) {
                self.apply(&[Command::Unregister { worker: id.clone() }]);
            }
        }
        if let Err(error) = self.admit(definition, origin) {
            self.forget(definition);
            if let Some(known) = &known
                && let Err(error) = self.admit(&known.definition, known.origin)
            {
                tracing::warn!(worker = %id, %error, "the worker's former definition could not be restored");
            }
            return Err(not_followed(&error));
        }
        tracing::info!(worker = %id, streams = definition.streams.len(), replaced = known.is_some(), "registered");
        Ok(if known.is_some() { Registered::Replaced } else { Registered::Created })
    }

    /// Index first, engine last: no event comes before its worker is known.
    fn admit(&self, definition: &WorkerDefinition, origin: Origin) -> Result<(), IngestError> {
        let known = self.describe(definition, origin);
        self.follow(&known)
    }

    fn describe(&self, definition: &WorkerDefinition, origin: Origin) -> KnownWorker {
        let number = self.registry.write().number();
        let registration = self.make_known(definition, number);
        let known = KnownWorker { definition: definition.clone(), origin, since: 0, registration };
        self.registry.write().insert(known.clone());
        known
    }

    /// Registers a worker with the index, as `number` unless it is registered: then what is known of it changes.
    /// Answers its number.
    pub(super) fn make_known(&self, definition: &WorkerDefinition, number: Registration) -> Registration {
        let mut index = self.index.write();
        index.number_registrations(number);
        self.apply_locked(&mut index, &Command::Register(Box::new(definition.spec.clone())));
        index.reader().registration(&definition.spec.id).unwrap_or(number)
    }

    /// Whether a worker fits beside those that are known and `coming` others.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn check_room(&self, worker: &WorkerId, coming: usize) -> Result<(), RegisterError> {
        let registry = self.registry.read();
        if registry.get(worker).is_none() && registry.workers.len() + coming >= self.max_workers {
            return Err(RegisterError::TooMany { limit: self.max_workers });
        }
        Ok(())
    }

    /// Forgets a worker and all its blocks; answers whether it was known.
    pub fn unregister(&self, worker: &WorkerId) -> bool {
        let _one_at_a_time = self.steering.lock();
        let Some(known) = self.registry.read().get(worker).cloned() else {
            return false;
        };
        self.forget(&known.definition);
        tracing::info!(%worker, "unregistered");
        true
    }

    /// Stop, drain, purge, release: after this no event of the worker can arrive any more.
    fn forget(&self, definition: &WorkerDefinition) {
        self.engines.leave(definition);
        self.apply(&[Command::Unregister { worker: definition.spec.id.clone() }]);
        self.registry.write().remove(&definition.spec.id);
    }

    /// A known worker.
    #[must_use]
    pub fn known_worker(&self, worker: &WorkerId) -> Option<KnownWorker> {
        self.registry.read().get(worker).cloned()
    }

    /// Whether it is known.
    pub(crate) fn knows(&self, worker: &WorkerId) -> bool {
        self.registry.read().get(worker).is_some()
    }

    /// The tenant of a known worker.
    pub(crate) fn tenant_of(&self, worker: &WorkerId) -> Option<String> {
        self.registry.read().get(worker).map(|known| known.definition.spec.tenant.clone())
    }

    /// How many workers of a tenant are known.
    pub(crate) fn workers_of(&self, tenant: &str) -> usize {
        self.registry.read().all().filter(|known| known.definition.spec.tenant == tenant).count()
    }

    /// Looks at every known worker where it is kept. What looks must not ask the registry.
    pub(crate) fn each_worker(&self, mut look: impl FnMut(&WorkerDefinition)) {
        self.registry.read().all().for_each(|known| look(&known.definition));
    }

    /// The block sizes with which a tenant's workers of a model were registered, each once; `None` for those that were
    /// told none. Empty where there is no worker.
    pub(crate) fn block_sizes(&self, tenant: &str, model: &str) -> Vec<Option<u32>> {
        self.registry.read().block_sizes.of(tenant, model)
    }

    /// Every known worker, by id.
    #[must_use]
    pub fn known_workers(&self) -> Vec<KnownWorker> {
        self.registry.read().all().cloned().collect()
    }
}
