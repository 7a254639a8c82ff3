//! The endpoints of a client: which one is asked, and what extra calls may cost.

mod breaker;
mod budget;
mod endpoint;
mod latency;
mod probe;
mod resolve;

pub(crate) use endpoint::{Attempt, Endpoint, Rank, Tokened};

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::JoinSet;

use budget::Budget;
use latency::Recent;

use crate::config::{ClientConfig, ConnectError};
use crate::error::CallError;
use crate::speculative::Speculations;
use crate::stats::ClientStats;

/// Repeated calls for every hundred: what gRPC's and Finagle's clients allow.
const RETRY_PERCENT: u64 = 10;

/// Second calls for every hundred. After the 95th percentile five in a hundred are to be expected.
const HEDGE_PERCENT: u64 = 5;

/// A second call sooner than this would be made for nothing but noise.
const SHORTEST_HEDGE: Duration = Duration::from_millis(1);

/// The endpoints, and what is kept beside them.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    pub(crate) retries: Budget,
    pub(crate) hedges: Budget,
    pub(crate) counts: Counts,
    pub(crate) speculations: Speculations,
    recent: Mutex<Recent>,
}

/// What is counted of calls as a whole.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) routing_calls: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
}

/// A pool with the tasks that keep it up; they end with it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pool: Arc<Pool>,
    _upkeep: JoinSet<()>,
}

impl Running {
    pub(crate) fn start(config: &ClientConfig) -> Result<Self, ConnectError> {
        if config.servers().is_empty() {
            return Err(ConnectError::NoServer);
        }
        let bearer = config.bearer()?;
        let endpoint = |server: &String| {
            Ok(Arc::new(Endpoint::new(server, None, config.channel(server, None)?, bearer.clone())))
        };
        let endpoints = config.servers().iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let pool = Arc::new(Pool {
            endpoints: ArcSwap::from_pointee(endpoints),
            retries: Budget::percent(RETRY_PERCENT),
            hedges: Budget::percent(HEDGE_PERCENT),
            counts: Counts::default(),
            speculations: Speculations::new(config.speculative_ttl),
            recent: Mutex::default(),
        });
        let mut upkeep = JoinSet::new();
        upkeep.spawn(probe::run(Arc::clone(&pool), config.probe_interval));
        if config.every_address {
            upkeep.spawn(resolve::run(Arc::clone(&pool), config.clone(), bearer.clone()));
        }
        if let Some(path) = config.token_path() {
            upkeep.spawn(bearer.follow(path.to_owned()));
        }
        Ok(Self { pool, _upkeep: upkeep })
    }
}

impl Pool {
    pub(crate) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    fn replace(&self, endpoints: Vec<Arc<Endpoint>>) {
        self.endpoints.store(Arc::new(endpoints));
    }

    /// Where a routing call begins. One call tries whether a broken endpoint is back, and has the others left if not.
    pub(crate) fn first(&self) -> Option<Arc<Endpoint>> {
        let now = Instant::now();
        let due =
            self.endpoints.load().iter().find(|endpoint| endpoint.rank(now) == Rank::Due).map(Arc::clone);
        due.or_else(|| self.pick(Rank::NotReady, &[]))
    }

    /// Of those that rank best, and no worse than `worst`, the one that is expected to answer first; none of `tried`.
    ///
    /// Two are drawn and compared. The best of all would be the best to all clients at once, who would then ask nobody
    /// else until it is the worst.
    pub(crate) fn pick(&self, worst: Rank, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let now = Instant::now();
        let endpoints = self.endpoints.load();
        let untried = endpoints.iter().filter(|endpoint| !tried.iter().any(|one| Arc::ptr_eq(one, endpoint)));
        let mut ranked: Vec<(Rank, &Arc<Endpoint>)> = untried
            .map(|endpoint| (endpoint.rank(now), endpoint))
            .filter(|(rank, _)| *rank <= worst)
            .collect();
        let best = ranked.iter().map(|(rank, _)| *rank).min()?;
        ranked.retain(|(rank, _)| *rank == best);
        let one = fastrand::usize(..ranked.len());
        // Another one: as far on as there are others.
        let other = (one + 1 + fastrand::usize(..ranked.len().max(2) - 1)) % ranked.len();
        let (one, other) = (ranked.get(one)?.1, ranked.get(other)?.1);
        Some(Arc::clone(if other.cost(now) < one.cost(now) { other } else { one }))
    }

    /// Whether a call that began at `endpoint` would better be made elsewhere.
    pub(crate) fn is_better_elsewhere(&self, endpoint: &Arc<Endpoint>) -> bool {
        let now = Instant::now();
        let here = endpoint.rank(now);
        here >= Rank::NotReady && self.endpoints.load().iter().any(|other| other.rank(now) < here)
    }

    /// Why nobody is asked, endpoint by endpoint.
    pub(crate) fn nobody(&self) -> CallError {
        let now = Instant::now();
        let why = |endpoint: &Arc<Endpoint>| {
            format!("{}: {}", endpoint.server, endpoint.left_out(now).unwrap_or_default())
        };
        let reasons: Vec<String> = self.endpoints.load().iter().map(why).collect();
        CallError::Unreachable { reason: format!("no node is left to ask: {}", reasons.join("; ")) }
    }

    /// A routing call was answered in this time.
    pub(crate) fn answered_in(&self, took: Duration) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).observe(took);
    }

    /// After how long 95 of 100 answers were there, lately; `unknown` until that is known.
    pub(crate) fn usual(&self, unknown: Duration) -> Duration {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.p95().unwrap_or(unknown).max(SHORTEST_HEDGE)
    }

    pub(crate) fn stats(&self) -> ClientStats {
        let counted = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ClientStats {
            endpoints: self.endpoints.load().iter().map(|endpoint| endpoint.stats()).collect(),
            routing_calls: counted(&self.counts.routing_calls),
            unknown: counted(&self.counts.unknown),
            retries: self.retries.spent(),
            retries_refused: self.retries.refused(),
            hedges: self.hedges.spent(),
            hedges_won: counted(&self.counts.hedges_won),
            hedges_refused: self.hedges.refused(),
            speculative_prompts: self.speculations.len(),
        }
    }
}

/// The one that a name stands for, where each of its addresses is an endpoint.
fn same(endpoint: &Endpoint, server: &str, address: std::net::SocketAddr) -> bool {
    endpoint.server == server && endpoint.address == Some(address)
}

#[cfg(test)]
#[path = "pool_test.rs"]
mod tests;
