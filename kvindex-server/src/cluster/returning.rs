//! Coming back with what is kept of an earlier run: as who the node was, or, where what is kept cannot be relied on, as
//! a new node.

use std::time::Duration;
use tokio::time::Instant;

use kvindex_core::replication::{Identity, StartError};

use super::formation::PAUSE;
use super::messages::Greeting;
use super::{Cluster, HomeError, JoinError};

/// How long a node whose log may have lost its end waits for a cluster that went on without it.
const DOUBT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Comes back as who it was, unless another process does so already or its cluster says otherwise.
    pub(super) async fn return_if_known(&self) -> Result<(), JoinError> {
        let Some(record) = self.home.load().map_err(HomeError::from)? else { return Ok(()) };
        let Identity { cluster: ours, node, shards } = record.identity;
        if !self.home.has_log() {
            let aside = self.home.put_aside()?;
            tracing::warn!(%node, aside, "the log is gone, so this node joins anew; what was left of it is put aside");
            return Ok(());
        }
        let me = Some((ours, node));
        let heard = self.greet(Greeting { member: me, shards, ..self.greeting() }).await;
        if let Some((address, _)) = heard.greetings.values().find(|(_, greeting)| greeting.member == me) {
            return Err(JoinError::Twice { node, address: address.clone() });
        }
        if let Some(address) = heard.dismissed_by {
            return Err(JoinError::Dismissed { node, address });
        }
        let clusters = heard.greetings.values().filter_map(|(at, greeting)| Some((at, greeting.member?.0)));
        let (own, others): (Vec<_>, Vec<_>) = clusters.partition(|(_, cluster)| *cluster == ours);
        if let (true, Some((address, theirs))) = (own.is_empty(), others.first()) {
            return Err(JoinError::OtherCluster { ours, theirs: *theirs, address: (*address).clone() });
        }
        let _one_at_a_time = self.forming.lock().await;
        match self.enter(&record).await {
            Err(error) if error.is_damage() => self.begin_anew(&error),
            entered => entered,
        }
    }

    /// Whether to go on with a log whose end may have gone with the power. Where the cluster went on meanwhile, this
    /// node has to join anew: it may have forgotten what it promised. Where nobody leads, as after a loss of power
    /// everywhere, what is left is all there is.
    pub(super) async fn goes_on_without_tail(&self, identity: Identity) -> bool {
        let Identity { cluster, node, shards } = identity;
        let until = Instant::now() + DOUBT;
        loop {
            let heard =
                self.greet(Greeting { member: Some((cluster, node)), shards, ..self.greeting() }).await;
            let went_on = |(_, other): &(String, Greeting)| {
                other.led && other.member.is_some_and(|(theirs, _)| theirs == cluster)
            };
            if heard.greetings.values().any(went_on) {
                return false;
            }
            let alone = heard.greetings.is_empty() && heard.silent.is_empty();
            if alone || Instant::now() >= until {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Puts damaged data aside: this node is a new one from now on, and gets everything from the others.
    fn begin_anew(&self, error: &JoinError) -> Result<(), JoinError> {
        // Snapshots of some shards may have been read before.
        self.node.forget_all().map_err(StartError::Other)?;
        let aside = self.home.put_aside()?;
        tracing::error!(%error, aside, "this node's data are put aside, and it joins anew under a new id");
        Ok(())
    }
}
