//! One node as this client knows it: its connection, how it did lately, and whether it is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::breaker::Breaker;
use super::latency::PeakMean;
use crate::error::Verdict;
use crate::stats::{EndpointState, EndpointStats, Outcome};
use crate::token::Bearer;

/// The connection, with the token on every call.
pub(crate) type Tokened = InterceptedService<Channel, Bearer>;

/// Probes without an answer after which an endpoint is left out. One may be lost on a busy machine.
const SILENT_PROBES: u32 = 2;

/// Probes in a row after which an endpoint that may be tried is asked again though nobody tried it: a client may make
/// no calls that try.
const GOOD_PROBES: u32 = 4;

/// For how long an endpoint that was behind is not asked: then one call looks again.
const BEHIND: Duration = Duration::from_secs(1);

/// How far from usable an endpoint is. In this order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Good,
    /// Its answers were older than asked for.
    Behind,
    /// It says that it is not ready, or says nothing.
    NotReady,
    /// Its breaker waits for one call that tries whether it is back.
    Due,
    /// Its breaker is open, and nobody waits for it.
    Open,
}

/// One node, or one address of several that a name stands for.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// As configured, for people.
    pub(crate) server: String,
    /// Which of the name's addresses, where each is an endpoint.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) channel: Channel,
    bearer: Bearer,
    outstanding: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    mean: PeakMean,
    /// Why it is not ready, as its last probe says.
    not_ready: Option<String>,
    silent_probes: u32,
    /// In a row, while it might be tried.
    good_probes: u32,
    behind_until: Option<Instant>,
    last_failure: String,
    counts: EndpointStats,
}

impl Endpoint {
    pub(crate) fn new(server: &str, address: Option<SocketAddr>, channel: Channel, bearer: Bearer) -> Self {
        let server = server.to_owned();
        let counts = EndpointStats { server: server.clone(), address, ..EndpointStats::default() };
        let state = State {
            breaker: Breaker::new(Instant::now()),
            mean: PeakMean::default(),
            not_ready: None,
            silent_probes: 0,
            good_probes: 0,
            behind_until: None,
            last_failure: String::new(),
            counts,
        };
        Self { server, address, channel, bearer, outstanding: AtomicU32::new(0), state: Mutex::new(state) }
    }

    pub(crate) fn tokened(&self) -> Tokened {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn rank(&self, now: Instant) -> Rank {
        self.state().rank(now)
    }

    /// What asking it is expected to cost: calls that wait there, times how long each takes.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        let waiting = self.outstanding.load(Ordering::Relaxed);
        (f64::from(waiting) + 1.0) * self.state().mean.expected(now)
    }

    /// Why it is not asked, for people; `None` when it is.
    pub(crate) fn left_out(&self, now: Instant) -> Option<String> {
        self.state().left_out(now)
    }

    /// A call begins. Its end must be told, else it counts as overtaken.
    pub(crate) fn begin(self: &Arc<Self>, routing: bool) -> Attempt {
        let now = Instant::now();
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.state().breaker.begin(now);
        Attempt { endpoint: Arc::clone(self), began: now, routing, ended: false }
    }

    /// How a call ended. Routing calls' times tell endpoints apart; of others only the outcome counts.
    pub(crate) fn note(&self, verdict: &Verdict, took: Duration, routing: bool) {
        let now = Instant::now();
        let mut state = self.state();
        state.counts.count(verdict.outcome, took);
        match verdict.outcome {
            Outcome::Overtaken if routing => state.mean.observe_at_least(took, now),
            Outcome::Overtaken | Outcome::Opened => {}
            // It came before whatever failed since.
            Outcome::ReadLate if !state.breaker.is_closed() => {}
            Outcome::TimedOut | Outcome::Unavailable => {
                state.last_failure.clone_from(&verdict.text);
                if state.breaker.failed(now) {
                    tracing::info!(
                        server = self.server,
                        failure = verdict.text,
                        "a node is left out: calls to it fail"
                    );
                }
                if routing {
                    state.mean.observe_at_least(took, now);
                }
            }
            Outcome::Answered
            | Outcome::ReadLate
            | Outcome::Stale
            | Outcome::Refused
            | Outcome::Overloaded => {
                if state.breaker.answered(now) {
                    tracing::info!(server = self.server, "a node is asked again");
                    // What it was like before it failed says nothing.
                    state.mean.forget();
                }
                // A node that refuses in no time because it has too much to do must not look like the fastest one.
                let penalty =
                    if verdict.outcome == Outcome::Overloaded { verdict.penalty } else { Duration::ZERO };
                if routing {
                    state.mean.observe(took.max(penalty), now);
                }
            }
        }
        if verdict.outcome == Outcome::Stale {
            state.behind_until = Some(now + BEHIND);
        }
    }

    /// It said that it is ready, or why not.
    pub(crate) fn probed(&self, said: Result<(), String>) {
        let now = Instant::now();
        let mut state = self.state();
        let was_out = state.not_ready.is_some();
        if state.silent_probes > 0 || was_out {
            state.breaker.revived(now);
        }
        state.silent_probes = 0;
        state.good_probes = if said.is_ok() && state.breaker.is_due(now) { state.good_probes + 1 } else { 0 };
        if state.good_probes >= GOOD_PROBES && state.breaker.answered(now) {
            tracing::info!(server = self.server, "a node is asked again: it answers probes");
            state.mean.forget();
        }
        state.not_ready = said.err();
        if state.not_ready.is_some() != was_out {
            let why = state.not_ready.as_deref().unwrap_or("ready");
            tracing::info!(server = self.server, why, "a node's readiness changed");
        }
    }

    /// A probe had no answer.
    pub(crate) fn silent(&self, reason: String) {
        let mut state = self.state();
        state.silent_probes = state.silent_probes.saturating_add(1);
        state.good_probes = 0;
        if state.silent_probes >= SILENT_PROBES {
            if state.not_ready.is_none() {
                tracing::info!(server = self.server, reason, "a node does not answer probes");
            }
            state.not_ready = Some(reason);
        }
    }

    /// Whether only a probe could find that it is back.
    pub(crate) fn is_failing(&self) -> bool {
        let state = self.state();
        !state.breaker.is_closed() || state.not_ready.is_some()
    }

    pub(crate) fn stats(&self) -> EndpointStats {
        let now = Instant::now();
        let state = self.state();
        let mut stats = state.counts.clone();
        stats.outstanding = self.outstanding.load(Ordering::Relaxed);
        stats.latency = state.mean.mean();
        stats.left_out = state.left_out(now);
        stats.state = match state.rank(now) {
            Rank::Good => EndpointState::Asked,
            Rank::Behind => EndpointState::Behind,
            Rank::NotReady => EndpointState::NotReady,
            Rank::Due | Rank::Open => EndpointState::Broken,
        };
        stats
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and numbers stay numbers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rank(&self, now: Instant) -> Rank {
        match (&self.not_ready, self.behind_until) {
            _ if self.breaker.pauses(now).is_some() => Rank::Open,
            (Some(_), _) => Rank::NotReady,
            // What it was like before it failed says nothing.
            _ if !self.breaker.is_closed() => Rank::Due,
            (None, Some(until)) if now < until => Rank::Behind,
            (None, _) => Rank::Good,
        }
    }

    fn left_out(&self, now: Instant) -> Option<String> {
        let reason = match self.rank(now) {
            Rank::Good => return None,
            Rank::Behind => "its answers were older than asked for".into(),
            Rank::NotReady => self.not_ready.clone().unwrap_or_default(),
            Rank::Due => format!("calls to it fail ({}), and the next one tries it again", self.last_failure),
            Rank::Open => {
                let left = self.breaker.pauses(now).unwrap_or_default().as_millis();
                format!("calls to it fail ({}), it is tried again in {left} ms", self.last_failure)
            }
        };
        Some(reason)
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) endpoint: Arc<Endpoint>,
    began: Instant,
    routing: bool,
    ended: bool,
}

impl Attempt {
    /// The call ended.
    pub(crate) fn end(mut self, verdict: &Verdict) -> Duration {
        let took = self.began.elapsed();
        self.ended = true;
        self.endpoint.note(verdict, took, self.routing);
        took
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.endpoint.outstanding.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.endpoint.note(&Verdict::overtaken(), self.began.elapsed(), self.routing);
        }
    }
}
