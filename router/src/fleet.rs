//! The engines there are, as the index lists them, and what this router has given each of them to do.

use kvindex_client::Client;
use kvindex_client::v1::{self, TrustState};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::choose::{Candidate, believed};

/// Whose engines they are: this router's questions are of no other tenant.
const TENANT: &str = "default";

/// How often the list is asked for.
const REFRESH: Duration = Duration::from_secs(1);

/// How long an engine that could not be reached is not asked again.
const ASIDE: Duration = Duration::from_secs(2);

/// An engine that serves.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its worker id.
    pub worker: String,
    /// Where it serves, `host:port`.
    pub address: String,
    /// The model that it serves.
    pub model: String,
    role: String,
    group: Option<String>,
    ranks: usize,
    load: Arc<Load>,
}

/// What an engine has been given by this router.
#[derive(Debug, Default)]
struct Load {
    queued: AtomicU64,
    running: AtomicU64,
    /// The fleet's turn in which it was chosen last.
    last: AtomicU64,
    turn: Arc<AtomicU64>,
    aside_until: Mutex<Option<Instant>>,
}

/// The engines, kept up to date.
#[derive(Debug)]
pub struct Fleet {
    client: Client,
    known: RwLock<Vec<Known>>,
    /// Requests that were given out.
    turn: Arc<AtomicU64>,
}

/// A request's place at an engine, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    load: Arc<Load>,
    queued: u64,
}

impl Place {
    /// The prompt is computed: the first byte of an answer came.
    pub(crate) fn is_computed(&mut self) {
        self.load.queued.fetch_sub(std::mem::take(&mut self.queued), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_computed();
        self.load.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Known {
    /// Takes a place for a prompt of which so many tokens are to be computed.
    pub(crate) fn enter(&self, tokens: u64) -> Place {
        self.load.queued.fetch_add(tokens, Ordering::Relaxed);
        self.load.running.fetch_add(1, Ordering::Relaxed);
        self.load.last.store(self.load.turn.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Place { load: Arc::clone(&self.load), queued: tokens }
    }

    /// The same behind another address.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// It could not be reached.
    pub(crate) fn put_aside(&self) {
        *self.load.aside_until.lock() = Some(Instant::now() + ASIDE);
    }

    fn is_aside(&self) -> bool {
        self.load.aside_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Whether requests must say which data-parallel rank they are for.
    pub(crate) fn has_ranks(&self) -> bool {
        self.ranks > 1
    }
}

/// What the index says about one prompt at one worker: the best of its data-parallel ranks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pub(crate) tokens: u64,
    pub(crate) row: v1::WorkerMatch,
}

/// The best rank of each worker.
pub(crate) fn held_by_worker(rows: Vec<v1::WorkerMatch>) -> HashMap<String, Held> {
    let mut best: HashMap<String, Held> = HashMap::new();
    for row in rows {
        let is_suspect = row.trust.as_ref().is_some_and(|trust| trust.state() == TrustState::Suspect);
        let tokens = believed(row.matched_tokens, is_suspect);
        let held = best.get(&row.worker_id);
        if held.is_none_or(|held| tokens > held.tokens) {
            best.insert(row.worker_id.clone(), Held { tokens, row });
        }
    }
    best
}

impl Fleet {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, known: RwLock::default(), turn: Arc::default() })
    }

    /// Keeps the list equal to the index's, for ever. One that cannot be had changes nothing.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            self.refresh().await;
            tokio::time::sleep(REFRESH).await;
        }
    }

    /// Takes the index's list, if it can be had.
    pub async fn refresh(&self) {
        let Ok(listed) = self
            .client
            .list_workers(v1::ListWorkersRequest { tenant: Some(TENANT.into()), model: None })
            .await
        else {
            return;
        };
        let mut known = self.known.write();
        let loads: HashMap<String, Arc<Load>> =
            known.iter().map(|engine| (engine.worker.clone(), Arc::clone(&engine.load))).collect();
        let serving = listed.workers.into_iter().filter_map(|worker| {
            let load = loads.get(&worker.worker_id).cloned();
            let new = || Arc::new(Load { turn: Arc::clone(&self.turn), ..Load::default() });
            Some(Known {
                address: worker.address?,
                model: worker.model,
                role: worker.role.unwrap_or_default(),
                group: worker.pd_group,
                ranks: worker.streams.len(),
                worker: worker.worker_id,
                load: load.unwrap_or_else(new),
            })
        });
        *known = serving.collect();
    }

    /// All engines there are.
    #[must_use]
    pub fn all(&self) -> Vec<Known> {
        self.known.read().clone()
    }

    /// Those that serve a model and could be reached, the one that was chosen longest ago first.
    pub(crate) fn of_model(&self, model: &str) -> Vec<Known> {
        let known = self.known.read();
        let mut engines: Vec<Known> = known.iter().filter(|engine| engine.model == model).cloned().collect();
        // With nobody left, whoever could not be reached is better than nobody.
        if engines.iter().any(|engine| !engine.is_aside()) {
            engines.retain(|engine| !engine.is_aside());
        }
        engines.sort_by_key(|engine| engine.load.last.load(Ordering::Relaxed));
        engines
    }
}

/// Engines as they are chosen among.
pub(crate) fn candidates(engines: &[Known], held: &HashMap<String, Held>) -> Vec<Candidate> {
    let candidate = |engine: &Known| Candidate {
        worker: engine.worker.clone(),
        role: engine.role.clone(),
        group: engine.group.clone(),
        held: held.get(&engine.worker).map_or(0, |held| held.tokens),
        queued: engine.load.queued.load(Ordering::Relaxed),
        running: engine.load.running.load(Ordering::Relaxed),
    };
    engines.iter().map(candidate).collect()
}
