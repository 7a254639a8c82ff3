//! Who carries lists of changes out, discovery's and the configuration file's: the node alone, or its cluster. One
//! worker that cannot be changed stops no other.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use kvindex_core::WorkerId;
use kvindex_core::replication::{Role, ShardId};
use tokio::sync::{Mutex, watch};

use crate::cluster::{Cluster, ClusterError, WorkerError};
use crate::node::{KnownWorker, Node, Origin};
use crate::workers::WorkerDefinition;

/// Changes that are under way at one time in a cluster: each waits for a quorum, and they share its round trips.
const AT_ONCE: usize = 64;
/// The shard whose leader looks for engines.
const LEADER_OF: ShardId = ShardId(0);
/// Why a worker does not enter where another one's stream still is.
const NOT_FREE: &str = "put off: who leaves its address is not forgotten yet";
/// Why a change is not tried where another one has just failed.
const PUT_OFF: &str = "put off: the worker's shard does not take changes";

/// Where workers are registered.
#[derive(Debug, Clone)]
pub(crate) struct Roll {
    node: Arc<Node>,
    cluster: Option<Arc<Cluster>>,
    stopping: watch::Receiver<bool>,
    /// Held while a node alone changes workers, which goes on although nobody waits for it any more.
    under_way: Arc<Mutex<()>>,
}

/// Workers that shall leave, and those that shall enter after them.
#[derive(Debug, Clone)]
pub(crate) struct Turnover {
    pub(crate) leave: Vec<Leaving>,
    pub(crate) enter: Vec<WorkerDefinition>,
    /// Who says so.
    pub(crate) origin: Origin,
}

/// A worker to be forgotten, with where it publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaving {
    pub(crate) worker: WorkerId,
    pub(crate) endpoints: BTreeSet<String>,
}

impl Leaving {
    pub(crate) fn of(definition: &WorkerDefinition) -> Self {
        Self {
            worker: definition.spec.id.clone(),
            endpoints: definition.streams.iter().map(|stream| stream.endpoint.clone()).collect(),
        }
    }
}

/// What became of a turnover.
#[derive(Debug, Default)]
pub(crate) struct Rolled {
    pub(crate) left: usize,
    pub(crate) entered: usize,
    /// What was not done, and why.
    pub(crate) failed: Vec<Undone>,
}

/// A change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undone {
    pub(crate) worker: WorkerId,
    pub(crate) why: String,
}

impl std::fmt::Display for Undone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.worker, self.why)
    }
}

impl Roll {
    pub(crate) fn new(
        node: Arc<Node>,
        cluster: Option<Arc<Cluster>>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { node, cluster, stopping, under_way: Arc::default() }
    }

    /// Whether looking for engines is this node's work.
    pub(crate) fn is_ours(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let status = cluster.replica().and_then(|replica| replica.shard_status(LEADER_OF));
        status.is_some_and(|status| status.role == Role::Leader)
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    pub(crate) fn known(&self) -> Vec<KnownWorker> {
        self.node.known_workers()
    }

    /// Carries a turnover out: first whoever leaves, then whoever enters. An address whose holder could not leave is
    /// not entered: two workers would hear one engine.
    pub(crate) async fn carry_out(&self, turnover: Turnover) -> Rolled {
        if turnover.leave.is_empty() && turnover.enter.is_empty() {
            return Rolled::default();
        }
        match &self.cluster {
            Some(cluster) => in_cluster(&self.node, cluster, turnover).await,
            None => {
                let (node, stopping) = (Arc::clone(&self.node), self.stopping.clone());
                let under_way = Arc::clone(&self.under_way).lock_owned().await;
                let workers = turnover.leave.iter().map(|leaving| leaving.worker.clone());
                let entering = turnover.enter.iter().map(|definition| definition.spec.id.clone());
                let all: Vec<WorkerId> = workers.chain(entering).collect();
                // It waits for sockets. It panics only where the node does, and then nothing was done that is known.
                let done = tokio::task::spawn_blocking(move || {
                    let _under_way = under_way;
                    alone(&node, turnover, &stopping)
                });
                done.await.unwrap_or_else(|error| {
                    let undone = |worker| Undone { worker, why: error.to_string() };
                    Rolled { failed: all.into_iter().map(undone).collect(), ..Rolled::default() }
                })
            }
        }
    }

    /// Resolves once nothing is under way. Ingest must not stop before: what is registered then would count as
    /// impossible to follow, and be forgotten with its blocks.
    pub(crate) async fn settled(&self) {
        drop(self.under_way.lock().await);
    }
}

fn alone(node: &Node, turnover: Turnover, stopping: &watch::Receiver<bool>) -> Rolled {
    let mut rolled = Rolled::default();
    for leaving in turnover.leave {
        rolled.left += usize::from(node.unregister(&leaving.worker));
    }
    for definition in turnover.enter {
        let worker = definition.spec.id.clone();
        if *stopping.borrow() {
            rolled.failed.push(Undone { worker, why: "put off: the node stops".into() });
            continue;
        }
        match node.register(&definition, turnover.origin, true) {
            Ok(_) => rolled.entered += 1,
            Err(error) => rolled.failed.push(Undone { worker, why: error.to_string() }),
        }
    }
    rolled
}

/// Shards in which a change has failed for want of a quorum: each further one would wait its time out.
struct Hopeless<'a> {
    cluster: &'a Cluster,
    shards: parking_lot::Mutex<BTreeSet<Option<ShardId>>>,
}

impl Hopeless<'_> {
    fn shard_of(&self, worker: &WorkerId) -> Option<ShardId> {
        Some(self.cluster.replica()?.shard_of(worker))
    }

    fn has(&self, worker: &WorkerId) -> bool {
        self.shards.lock().contains(&self.shard_of(worker))
    }

    /// A worker that is refused itself says nothing about others.
    fn note(&self, worker: &WorkerId, error: &ClusterError) {
        if !matches!(error, ClusterError::Refused(_)) {
            self.shards.lock().insert(self.shard_of(worker));
        }
    }
}

async fn in_cluster(node: &Node, cluster: &Cluster, turnover: Turnover) -> Rolled {
    let mut rolled = Rolled::default();
    let hopeless = Hopeless { cluster, shards: parking_lot::Mutex::default() };
    let mut taken = BTreeSet::new();
    let leaving = turnover.leave.into_iter().map(|leaving| leave(cluster, &hopeless, leaving));
    let mut left = stream::iter(leaving).buffer_unordered(AT_ONCE);
    while let Some(result) = left.next().await {
        match result {
            Ok(was_known) => rolled.left += usize::from(was_known),
            Err((leaving, why)) => {
                rolled.failed.push(Undone { worker: leaving.worker, why });
                taken.extend(leaving.endpoints);
            }
        }
    }
    let mut entering = Vec::new();
    let mut coming = 0;
    for definition in turnover.enter {
        let worker = &definition.spec.id;
        let is_free = definition.streams.iter().all(|stream| !taken.contains(&stream.endpoint));
        // Side by side each of them would find the last free place.
        let refused = node.check_room(worker, coming).err().map(|error| error.to_string());
        let why = if is_free { refused } else { Some(NOT_FREE.into()) };
        match why {
            None => {
                coming += usize::from(!node.knows(worker));
                entering.push(enter(cluster, &hopeless, definition, turnover.origin));
            }
            Some(why) => rolled.failed.push(Undone { worker: worker.clone(), why }),
        }
    }
    let mut entered = stream::iter(entering).buffer_unordered(AT_ONCE);
    while let Some(result) = entered.next().await {
        match result {
            Ok(()) => rolled.entered += 1,
            Err(undone) => rolled.failed.push(undone),
        }
    }
    rolled
}

async fn leave(
    cluster: &Cluster,
    hopeless: &Hopeless<'_>,
    leaving: Leaving,
) -> Result<bool, (Leaving, String)> {
    if hopeless.has(&leaving.worker) {
        return Err((leaving, PUT_OFF.into()));
    }
    cluster.unregister(leaving.worker.clone()).await.map_err(|error| {
        hopeless.note(&leaving.worker, &error);
        (leaving, error.to_string())
    })
}

async fn enter(
    cluster: &Cluster,
    hopeless: &Hopeless<'_>,
    definition: WorkerDefinition,
    origin: Origin,
) -> Result<(), Undone> {
    let worker = definition.spec.id.clone();
    if hopeless.has(&worker) {
        return Err(Undone { worker, why: PUT_OFF.into() });
    }
    match cluster.register(definition, origin, true).await {
        Ok(_) => Ok(()),
        Err(error) => {
            if let WorkerError::Cluster(error) = &error {
                hopeless.note(&worker, error);
            }
            Err(Undone { worker, why: error.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::workers::RawWorker;
    use kvindex_core::GapPolicy;

    /// What is registered while ingest stops cannot be followed, and would be forgotten with its blocks.
    #[tokio::test]
    async fn nobody_enters_a_node_that_stops() {
        let node = Arc::new(Node::new(&Config::defaults(), Metrics::new()));
        let (stop, stopping) = watch::channel(false);
        let roll = Roll::new(Arc::clone(&node), None, stopping);
        let enter = |id: &str| {
            let raw = RawWorker { worker_id: id.into(), model: "m".into(), ..RawWorker::default() };
            let enter = vec![raw.check(GapPolicy::Purge).unwrap()];
            roll.carry_out(Turnover { leave: Vec::new(), enter, origin: Origin::Static })
        };
        assert_eq!(enter("a").await.entered, 1);
        stop.send_replace(true);
        let refused = enter("b").await;
        assert_eq!((refused.entered, refused.failed.len(), roll.known().len()), (0, 1, 1));
    }
}
