//! Who carries a plan out: the node alone, or its cluster, where the leader of shard 0 does it for all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use kvindex_core::replication::{Role, ShardId};

use super::plan::{Leaving, Plan};
use crate::cluster::{Cluster, WorkerError};
use crate::node::{KnownWorker, Node, Origin};
use crate::workers::WorkerDefinition;

/// Changes that are under way at one time in a cluster: each waits for a quorum, and they share its round trips.
const AT_ONCE: usize = 64;
/// The shard whose leader looks for engines.
const LEADER_OF: ShardId = ShardId(0);

/// Where workers are registered.
#[derive(Debug, Clone)]
pub(crate) struct Roll {
    node: Arc<Node>,
    cluster: Option<Arc<Cluster>>,
}

/// What became of a plan.
#[derive(Debug, Default)]
pub(crate) struct Rolled {
    pub(crate) left: usize,
    pub(crate) entered: usize,
    /// What was not done, and why.
    pub(crate) failed: Vec<String>,
}

impl Roll {
    pub(crate) fn new(node: Arc<Node>, cluster: Option<Arc<Cluster>>) -> Self {
        Self { node, cluster }
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

    pub(crate) fn known(&self) -> Vec<KnownWorker> {
        self.node.known_workers()
    }

    /// Carries a plan out: first whoever leaves, then whoever enters. An address whose holder could not leave is not
    /// entered: two workers would hear one engine.
    pub(crate) async fn carry_out(&self, plan: Plan) -> Rolled {
        match &self.cluster {
            Some(cluster) => in_cluster(cluster, plan).await,
            None => {
                let node = Arc::clone(&self.node);
                // It waits for sockets.
                let done = tokio::task::spawn_blocking(move || alone(&node, plan)).await;
                done.unwrap_or_else(|error| Rolled { failed: vec![error.to_string()], ..Rolled::default() })
            }
        }
    }
}

fn alone(node: &Node, plan: Plan) -> Rolled {
    let mut rolled = Rolled::default();
    for leaving in plan.leave {
        rolled.left += usize::from(node.unregister(&leaving.worker));
    }
    for definition in plan.enter {
        match node.register(&definition, Origin::Discovered, true) {
            Ok(_) => rolled.entered += 1,
            Err(error) => rolled.failed.push(format!("{}: {error}", definition.spec.id)),
        }
    }
    rolled
}

async fn in_cluster(cluster: &Cluster, plan: Plan) -> Rolled {
    let mut rolled = Rolled::default();
    // Without a quorum each change would wait its time out.
    let hopeless = AtomicBool::new(false);
    let mut taken = BTreeSet::new();
    let leaving = plan.leave.into_iter().map(|leaving| leave(cluster, &hopeless, leaving));
    let mut left = stream::iter(leaving).buffer_unordered(AT_ONCE);
    while let Some(result) = left.next().await {
        match result {
            Ok(was_known) => rolled.left += usize::from(was_known),
            Err((leaving, error)) => {
                rolled.failed.push(format!("{}: {error}", leaving.worker));
                taken.extend(leaving.endpoints);
            }
        }
    }
    let is_free = |definition: &WorkerDefinition| {
        definition.streams.iter().all(|stream| !taken.contains(&stream.endpoint))
    };
    let entering = plan.enter.into_iter().filter(is_free);
    let entering = entering.map(|definition| enter(cluster, &hopeless, definition));
    let mut entered = stream::iter(entering).buffer_unordered(AT_ONCE);
    while let Some(result) = entered.next().await {
        match result {
            Ok(()) => rolled.entered += 1,
            Err(error) => rolled.failed.push(error),
        }
    }
    rolled
}

async fn leave(
    cluster: &Cluster,
    hopeless: &AtomicBool,
    leaving: Leaving,
) -> Result<bool, (Leaving, String)> {
    if hopeless.load(Ordering::Relaxed) {
        return Err((leaving, "put off".into()));
    }
    cluster.unregister(leaving.worker.clone()).await.map_err(|error| {
        hopeless.store(true, Ordering::Relaxed);
        (leaving, error.to_string())
    })
}

async fn enter(cluster: &Cluster, hopeless: &AtomicBool, definition: WorkerDefinition) -> Result<(), String> {
    let id = definition.spec.id.clone();
    if hopeless.load(Ordering::Relaxed) {
        return Err(format!("{id}: put off"));
    }
    match cluster.register(definition, Origin::Discovered, true).await {
        Ok(_) => Ok(()),
        Err(error) => {
            if matches!(error, WorkerError::Cluster(_)) {
                hopeless.store(true, Ordering::Relaxed);
            }
            Err(format!("{id}: {error}"))
        }
    }
}
