//! The loop that keeps the workers that are known equal to the engines that there are.
//!
//! In a cluster only the leader of shard 0 looks, and it begins with a complete list that the API server reads from
//! its quorum: so it never acts on less than the leader before it had seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvindex_core::{GapPolicy, StreamId, WorkerId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::condition::{Condition, Conditions};
use super::definition::FoundEngine;
use super::engines::{Found, judge};
use super::gauges::Gauges;
use super::kubernetes::{self, Connection, Watching};
use super::plan::plan;
use super::states::States;
use super::survey;
use super::view::Failure;
use crate::cluster::Cluster;
use crate::config::{Config, DiscoveryConfig};
use crate::node::{Node, Origin};
use crate::roll::{Roll, Rolled, Turnover};

/// Changes that come within this time are taken together.
const SETTLE: Duration = Duration::from_millis(50);
/// A look at everything even if nothing was told: somebody may have unregistered a worker, or leadership has moved.
const LOOK: Duration = Duration::from_secs(2);
/// How long the search for the nearest labels may take.
const SURVEY: Duration = Duration::from_secs(10);
/// Failed changes that one log line names.
const NAMED: usize = 3;

/// Looks for engines until the node stops.
#[derive(Debug)]
pub(crate) struct Discovery {
    config: DiscoveryConfig,
    gap_policy: GapPolicy,
    /// The settings as they change.
    live: watch::Receiver<Config>,
    roll: Roll,
    gauges: Gauges,
    conditions: Conditions,
    states: States,
    /// Workers of others whose names stand in the way, as far as that was told.
    foreign: BTreeSet<WorkerId>,
    /// Settings by which engines were found on this node, and since when it sees everything by the present ones: a
    /// selector with a slip in it shall not forget a fleet at once.
    tried: Option<DiscoveryConfig>,
    since: Option<Instant>,
}

/// Looks for engines whenever the settings ask for it.
pub(crate) fn start(
    node: &Arc<Node>,
    cluster: Option<Arc<Cluster>>,
    live: watch::Receiver<Config>,
    mut stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let (config, gap_policy) = {
        let config = live.borrow();
        (config.discovery.clone(), config.ingest.gap_policy)
    };
    let mut discovery = Discovery {
        config,
        gap_policy,
        live,
        roll: Roll::new(Arc::clone(node), cluster, stopping.clone()),
        gauges: Gauges::default(),
        conditions: Conditions::default(),
        states: States::default(),
        foreign: BTreeSet::new(),
        tried: None,
        since: None,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = discovery.run() => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        discovery.roll.settled().await;
    })
}

impl Discovery {
    /// Ends with the node's settings, that is with the node.
    async fn run(&mut self) {
        if self.live.wait_for(|config| config.discovery.enabled).await.is_err() {
            return;
        }
        self.roll.node().metrics().describe_room(|registry| self.gauges.describe(registry));
        loop {
            if self.live.wait_for(|config| config.discovery.enabled).await.is_err() {
                return;
            }
            self.config = self.live.borrow_and_update().discovery.clone();
            if self.roll.is_ours() {
                self.gauges.active(true);
                self.look().await;
                self.stop_looking();
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Looks until that is another node's work, or to be done by other settings.
    async fn look(&mut self) {
        match kubernetes::connect(&self.config).await {
            Ok(connection) => self.follow(&connection).await,
            Err(failure) => {
                self.conditions.set(failure.condition, Some(failure.message));
                self.gauges.conditions(&self.conditions);
                while self.goes_on() {
                    tokio::time::sleep(LOOK).await;
                    if kubernetes::connect(&self.config).await.is_ok() {
                        return;
                    }
                }
            }
        }
    }

    fn goes_on(&self) -> bool {
        self.roll.is_ours() && self.live.borrow().discovery == self.config
    }

    /// What held is another node's to say, or a matter of other settings.
    fn stop_looking(&mut self) {
        tracing::info!("looking for engines ends here, or begins anew");
        self.conditions.clear();
        self.states.clear();
        self.foreign.clear();
        self.gauges.clear();
    }

    /// Keeps the roll.
    async fn follow(&mut self, connection: &Connection) {
        self.conditions.set(Condition::NotConfigured, None);
        let (server, namespace) = (&connection.server, connection.namespace());
        tracing::info!(server, namespace, "looking for engines in Kubernetes");
        let watching = kubernetes::watch(connection, &self.config);
        self.since = None;
        while self.goes_on() {
            self.pass(connection, &watching).await;
            tokio::select! {
                () = watching.changed() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn pass(&mut self, connection: &Connection, watching: &Watching) {
        let now = Instant::now();
        let (seen, current, failing) =
            watching.look(|view| (view.seen(), view.current(), view.failing_for(now)));
        self.tell_failures(&watching.failures());
        self.gauges.failing(failing);
        if let Some(seen) = seen {
            let found = judge(&seen, &self.config, self.gap_policy);
            drop(seen);
            if !found.engines.is_empty() {
                self.tried = Some(self.config.clone());
            }
            if current.pods && current.selection {
                self.since.get_or_insert(now);
            }
            let known = self.roll.known();
            let plan = plan(&found, &known, current, self.is_untried(now));
            self.tell_foreign(&plan.foreign);
            let kept = plan.kept;
            self.gauges.found(&found, plan.kept);
            let (leave, enter) = (plan.leave, plan.enter);
            let rolled = self.roll.carry_out(Turnover { leave, enter, origin: Origin::Discovered }).await;
            self.tell_rolled(&rolled);
            // It may ask the API server once more, and what has ended must not stay in answers for so long.
            if current.pods && current.selection {
                self.tell_selection(&found, kept, connection).await;
            }
            self.look_at_engines(&found, now);
        }
        self.gauges.conditions(&self.conditions);
    }

    fn tell_failures(&mut self, failures: &[Failure]) {
        for condition in [Condition::Unauthorized, Condition::Forbidden, Condition::Unreachable] {
            let of_it = failures.iter().filter(|failure| failure.condition == condition);
            let messages: Vec<&str> = of_it.map(|failure| failure.message.as_str()).collect();
            let message = format!("{}; known workers stay until it is over", messages.join("; "));
            self.conditions.set(condition, (!messages.is_empty()).then_some(message));
        }
    }

    async fn tell_selection(&mut self, found: &Found, kept: usize, connection: &Connection) {
        let why = found.selection.why_nothing();
        let condition = match found.selection.selected {
            0 => Condition::SelectsNothing,
            _ => Condition::FindsNoEngine,
        };
        for other in [Condition::SelectsNothing, Condition::FindsNoEngine] {
            if why.is_none() || other != condition {
                self.conditions.set(other, None);
            }
        }
        let Some(mut why) = why else { return };
        if !self.conditions.holds(condition) {
            let near =
                tokio::time::timeout(SURVEY, survey::survey_at(connection, &self.config, self.gap_policy));
            let near = near.await.ok().and_then(Result::ok).map(|survey| survey.nearest_text());
            why = format!("{why} in namespace {}{}", connection.namespace(), near.unwrap_or_default());
        }
        if kept > 0 {
            let until = self.config.resync.as_secs();
            why = format!("{why}; {kept} workers that are known stay until these settings are {until} s old");
        }
        self.conditions.set(condition, Some(why));
    }

    /// Whether the present settings have found nothing yet, and are younger than a resync.
    fn is_untried(&self, now: Instant) -> bool {
        let is_young =
            self.since.is_none_or(|since| now.saturating_duration_since(since) < self.config.resync);
        is_young && self.tried.as_ref() != Some(&self.config)
    }

    fn tell_foreign(&mut self, foreign: &[WorkerId]) {
        for worker in foreign.iter().filter(|worker| !self.foreign.contains(worker)) {
            tracing::warn!(%worker, "a worker of this name was registered by hand: it stays as it is");
        }
        self.foreign = foreign.iter().cloned().collect();
    }

    fn tell_rolled(&mut self, rolled: &Rolled) {
        self.gauges.rolled(rolled);
        let Rolled { left, entered, failed } = rolled;
        if left + entered > 0 {
            tracing::info!(entered, left, failed = failed.len(), "engines found in Kubernetes");
        }
        let named: Vec<String> = failed.iter().take(NAMED).map(ToString::to_string).collect();
        let message = format!("{} workers could not be changed: {}", failed.len(), named.join("; "));
        self.conditions.set(Condition::NotRegistered, (!failed.is_empty()).then_some(message));
    }

    fn look_at_engines(&mut self, found: &Found, now: Instant) {
        let node = self.roll.node();
        let is_heard = |engine: &FoundEngine| {
            let worker = &engine.definition.spec.id;
            let mut streams = engine.definition.streams.iter();
            streams.any(|source| {
                let stream = StreamId { worker: worker.clone(), dp_rank: source.dp_rank };
                node.stream_stamp(&stream).is_some_and(|stamp| stamp.applied.is_some())
            })
        };
        self.states.look(&found.engines, is_heard, now);
        self.gauges.states(&self.states);
    }
}
