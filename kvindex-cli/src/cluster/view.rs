//! The cluster as all its nodes see it: only a shard's leader knows how far the others are, and only a node that
//! answers counts for a quorum.

use kvindex_client::{Client, ClientConfig, v1};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;

use crate::args::ServerArgs;
use crate::{connect, failure};

/// How long another node may take to answer.
const OTHERS: Duration = Duration::from_secs(2);

/// What the nodes say.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The asked node's word.
    pub(super) asked: v1::ClusterStatusResponse,
    /// Nodes that answered, the asked one among them.
    pub(super) answering: BTreeSet<u64>,
    /// Each shard as its leader sees it, or else as the asked node does.
    pub(super) shards: BTreeMap<u32, v1::ShardState>,
}

impl View {
    /// Asks the node of `server`, and through it everyone else.
    pub(super) async fn of(client: &Client, server: &ServerArgs) -> anyhow::Result<Self> {
        let asked = client.cluster_status(false).await;
        let asked = asked.map_err(|error| failure::of_call(&server.server, error))?;
        if asked.cluster_id.is_empty() {
            anyhow::bail!("the node at {} has not joined a cluster yet: {}", server.server, asked.waits_for);
        }
        let others = asked.nodes.iter().filter(|node| node.node_id != asked.node_id).cloned();
        let config = connect::config(server)?.admin_timeout(OTHERS);
        let scheme = if server.server.starts_with("https:") { "https" } else { "http" };
        let status_of = |node: v1::ClusterNode| {
            let at = format!("{scheme}://{}", node.address);
            status_of(node, config.clone().with_server(at))
        };
        let statuses = others.map(status_of).collect::<JoinSet<_>>().join_all().await;
        Ok(Self::new(asked, statuses.into_iter().flatten()))
    }

    /// From what nodes answered.
    pub(super) fn new(
        asked: v1::ClusterStatusResponse,
        others: impl IntoIterator<Item = v1::ClusterStatusResponse>,
    ) -> Self {
        let mut view = Self {
            answering: BTreeSet::from([asked.node_id]),
            shards: asked.shards.iter().map(|shard| (shard.shard, shard.clone())).collect(),
            asked,
        };
        for other in others.into_iter().filter(|other| other.cluster_id == view.asked.cluster_id) {
            view.answering.insert(other.node_id);
            let led = other.shards.into_iter().filter(|shard| shard.leader == other.node_id);
            for shard in led {
                let known = view.shards.entry(shard.shard).or_default();
                if shard.term >= known.term {
                    *known = shard;
                }
            }
        }
        view
    }

    /// The node as the directory has it.
    pub(super) fn node(&self, node: u64) -> Option<&v1::ClusterNode> {
        self.asked.nodes.iter().find(|known| known.node_id == node)
    }
}

/// What another node says; nothing if it cannot be reached from here.
async fn status_of(node: v1::ClusterNode, config: ClientConfig) -> Option<v1::ClusterStatusResponse> {
    let answer = Client::connect(config).ok()?.cluster_status(false).await;
    // Whoever listens there now must be this node, or its silence would not be seen.
    answer.ok().filter(|answer| answer.node_id == node.node_id)
}
