//! The workers that the configuration file lists. One task makes them known and forgets them, at the start and whenever
//! the list changes, so that an old list never meets a new one half way. What cannot be done stops nothing else, and is
//! tried again until it is done or the file says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kvindex_core::WorkerId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::node::{Node, Origin};
use crate::roll::{Leaving, Roll, Turnover, Undone};
use crate::workers::WorkerDefinition;

/// First and longest pause before what was not done is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Workers that one log line names.
const NAMED: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    change: &'static str,
}

/// Makes the file's list true.
#[derive(Debug)]
pub(crate) struct StaticWorkers {
    roll: Roll,
    config: watch::Receiver<Config>,
    /// The list that was taken last; `None` before the first.
    listed: Option<Vec<WorkerDefinition>>,
    /// Of it, what is not registered yet.
    enter: Vec<WorkerDefinition>,
    /// Who left it and is not forgotten yet.
    leave: BTreeMap<WorkerId, Leaving>,
    /// Known workers whose engines cannot be followed.
    unfollowed: Vec<Undone>,
    pause: Duration,
    /// Who was said to wait.
    told: BTreeSet<WorkerId>,
    waiting: Family<WaitLabels, Gauge>,
}

impl StaticWorkers {
    pub(crate) fn new(
        node: &Arc<Node>,
        cluster: Option<Arc<Cluster>>,
        config: watch::Receiver<Config>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let waiting = Family::default();
        node.metrics().describe_room(|registry| {
            let help = "Workers of the configuration file that are not registered (enter) or not forgotten (leave) \
                        yet, and known ones whose engines cannot be followed (follow): all are tried again";
            registry.register("workers_waiting", help, waiting.clone());
        });
        Self {
            roll: Roll::new(Arc::clone(node), cluster, stopping),
            config,
            listed: None,
            enter: Vec::new(),
            leave: BTreeMap::new(),
            unfollowed: Vec::new(),
            pause: PAUSE.0,
            told: BTreeSet::new(),
            waiting,
        }
    }

    /// Takes the list as it is now and tries once. A node alone does that before it follows engines: who left the file
    /// while it was down is not followed at all.
    pub(crate) async fn begin(&mut self) {
        self.take_list();
        self.round().await;
    }

    /// Goes on until the node stops.
    pub(crate) fn keep(mut self, mut stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let roll = self.roll.clone();
            tokio::select! {
                () = self.run() => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            roll.settled().await;
        })
    }

    async fn run(&mut self) {
        if let Some(cluster) = self.roll.cluster() {
            cluster.until_joined().await;
        }
        loop {
            self.take_list();
            self.round().await;
            tokio::select! {
                changed = self.config.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(self.pause) => {}
            }
        }
    }

    /// Notes what another list asks for. All of it enters: who is known already does so without effect, and who was
    /// unregistered by hand is back.
    fn take_list(&mut self) {
        let now = self.config.borrow_and_update().workers.clone();
        if self.listed.as_ref() == Some(&now) {
            return;
        }
        let before = self.listed.replace(now.clone()).unwrap_or_default();
        self.leave.extend(before.iter().map(leaving));
        if self.roll.cluster().is_none() {
            // Also from before the start, which a snapshot tells. In a cluster the files of other nodes may list them.
            let known = self.roll.known();
            let of_files = known.iter().filter(|known| known.origin == Origin::Static);
            self.leave.extend(of_files.map(|known| leaving(&known.definition)));
        }
        for worker in &now {
            self.leave.remove(&worker.spec.id);
        }
        self.enter = now;
        self.pause = PAUSE.0;
    }

    /// Tries all that waits.
    async fn round(&mut self) {
        // Who was registered otherwise since is not the file's any more, here or through another node.
        let others = self.roll.known().into_iter().filter(|known| known.origin != Origin::Static);
        for known in others {
            self.leave.remove(&known.definition.spec.id);
        }
        let (leave, enter) = (self.leave.values().cloned().collect(), self.enter.clone());
        let rolled = self.roll.carry_out(Turnover { leave, enter, origin: Origin::Static }).await;
        let failed: BTreeSet<&WorkerId> = rolled.failed.iter().map(|undone| &undone.worker).collect();
        self.leave.retain(|worker, _| failed.contains(worker));
        self.enter.retain(|definition| failed.contains(&definition.spec.id));
        self.unfollowed = self.follow_missing().await;
        self.pause = if rolled.failed.is_empty() && self.unfollowed.is_empty() {
            PAUSE.1
        } else {
            (self.pause * 2).min(PAUSE.1)
        };
        self.tell(&rolled.failed);
    }

    /// Another attempt at engines that could not be followed; in a cluster steering makes it.
    async fn follow_missing(&self) -> Vec<Undone> {
        if self.roll.cluster().is_some() {
            return Vec::new();
        }
        let node = Arc::clone(self.roll.node());
        let missing = tokio::task::spawn_blocking(move || node.follow_missing()).await.unwrap_or_default();
        let undone = |(worker, error): (WorkerId, crate::ingest::IngestError)| Undone {
            worker,
            why: error.to_string(),
        };
        missing.into_iter().map(undone).collect()
    }

    /// One line when it changes who waits.
    fn tell(&mut self, failed: &[Undone]) {
        let counts =
            [("enter", self.enter.len()), ("leave", self.leave.len()), ("follow", self.unfollowed.len())];
        for (change, count) in counts {
            let gauge = self.waiting.get_or_create(&WaitLabels { change });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let undone: Vec<&Undone> = failed.iter().chain(&self.unfollowed).collect();
        let waiting = undone.iter().map(|undone| undone.worker.clone()).collect();
        if self.told == waiting {
            return;
        }
        self.told = waiting;
        if undone.is_empty() {
            tracing::info!("no static worker waits any more");
            return;
        }
        let named: Vec<String> = undone.iter().take(NAMED).map(ToString::to_string).collect();
        let waiting = self.told.len();
        tracing::warn!(waiting, "workers wait and are tried again; the first: {}", named.join("; "));
    }
}

fn leaving(definition: &WorkerDefinition) -> (WorkerId, Leaving) {
    (definition.spec.id.clone(), Leaving::of(definition))
}
