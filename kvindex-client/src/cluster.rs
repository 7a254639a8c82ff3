//! Admin calls of a cluster: how it stands, and changes of its nodes. Any node takes them; what has to be decided is
//! passed on to the node that may.

use kvindex_proto::v1;
use kvindex_proto::v1::cluster_service_client::ClusterServiceClient;

use crate::calls::Repeat;
use crate::error::CallError;
use crate::routing::Client;

impl Client {
    /// The cluster as the asked node sees it: everyone who belongs to it, and every shard with its part here. With
    /// `digests`, also a digest of each shard's part of the index, for which the node walks all of it.
    ///
    /// ```no_run
    /// use kvindex_client::{CallError, Client};
    ///
    /// # async fn look(client: Client) -> Result<(), CallError> {
    /// let status = client.cluster_status(false).await?;
    /// let led = status.shards.iter().filter(|shard| shard.leader == status.node_id).count();
    /// println!("node {} leads {led} of {} shards", status.node_id, status.shards.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, or belongs to no cluster.
    pub async fn cluster_status(&self, digests: bool) -> Result<v1::ClusterStatusResponse, CallError> {
        let request = v1::ClusterStatusRequest { digests };
        let call = |channel| async move { ClusterServiceClient::new(channel).cluster_status(request).await };
        self.admin(Repeat::Always, call).await
    }

    /// Removes a node for good; its id is never used again. The shards follow within seconds.
    ///
    /// ```no_run
    /// use kvindex_client::{CallError, Client};
    ///
    /// # async fn shrink(client: Client) -> Result<(), CallError> {
    /// // Refused if too few of the others answer to go on without it.
    /// client.remove_node(3, false).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, nobody can decide, or the removal is refused: there is no such node,
    /// it is the last voter, or, without `force`, too few of the others answer.
    pub async fn remove_node(&self, node_id: u64, force: bool) -> Result<(), CallError> {
        let request = v1::RemoveNodeRequest { node_id, force };
        let call = |channel| async move { ClusterServiceClient::new(channel).remove_node(request).await };
        self.admin(Repeat::IfUnsent, call).await.map(|_| ())
    }

    /// Gives a node a vote, or takes it away; without one it follows and answers. The same call twice is no error.
    ///
    /// ```no_run
    /// use kvindex_client::{CallError, Client};
    ///
    /// # async fn grow(client: Client) -> Result<(), CallError> {
    /// client.set_voter(4, true).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, nobody can decide, or the change is refused: there is no such node, or
    /// it is the last voter.
    pub async fn set_voter(&self, node_id: u64, voter: bool) -> Result<(), CallError> {
        let request = v1::SetVoterRequest { node_id, voter };
        let call = |channel| async move { ClusterServiceClient::new(channel).set_voter(request).await };
        self.admin(Repeat::Always, call).await.map(|_| ())
    }

    /// Lets another node lead a shard. It takes over once it has everything; the status shows when.
    ///
    /// ```no_run
    /// use kvindex_client::{CallError, Client};
    ///
    /// # async fn relieve(client: Client) -> Result<(), CallError> {
    /// client.hand_over(0, 2).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, the shard has no leader, or the node has no vote in it.
    pub async fn hand_over(&self, shard: u32, node_id: u64) -> Result<(), CallError> {
        let request = v1::HandOverRequest { shard, node_id };
        let call = |channel| async move { ClusterServiceClient::new(channel).hand_over(request).await };
        self.admin(Repeat::Always, call).await.map(|_| ())
    }
}
