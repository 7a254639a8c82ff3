//! The cluster changes, as an operator changes it: a node joins by itself, gets a vote; another one is removed;
//! leadership is handed over.

use kvindex_core::replication::NodeId;
use kvindex_server::cluster::{DirectoryAnswer, DirectoryChange};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

use super::Strike;
use crate::node::Running;
use crate::plan::MOST_NODES;

const TRIES: usize = 30;

pub(super) async fn strike(mut strike: Strike) {
    match strike.dice.below(4) {
        0 | 1 => hand_over(&mut strike).await,
        2 => join(&mut strike).await,
        _ => {
            join(&mut strike).await;
            sleep(strike.lasts).await;
            leave(&mut strike).await;
        }
    }
}

async fn hand_over(strike: &mut Strike) {
    for shard in strike.world.shards() {
        let members = strike.world.members();
        let (asked, heir) = (strike.dice.pick(&members).cloned(), strike.dice.pick(&members).cloned());
        let Some((asked, to)) = asked.zip(heir.and_then(|heir| heir.id())) else { continue };
        strike.say(asked.life.node, format!("is asked to hand {shard} over to {to}"));
        let there = Arc::clone(&asked);
        // Refused where it makes no sense.
        let _ = asked.life.spawn(async move { there.cluster.hand_over(shard, to).await }).await;
    }
}

/// A node with an empty disk joins; now and then it gets a vote beyond the cluster's size.
async fn join(strike: &mut Strike) {
    if strike.world.nodes_ever() >= MOST_NODES {
        return;
    }
    let number = strike.world.add_node();
    strike.say(number, "starts empty");
    sleep(strike.lasts / 2).await;
    let id = strike.world.network.running(number).and_then(|running| running.id());
    if let Some(node) = id.filter(|_| strike.dice.percent(70)) {
        strike.say(number, "is given a vote");
        change(strike, DirectoryChange::Vote { node, voter: true }).await;
    }
}

/// One that the cluster can lose is removed, and then stopped for good.
async fn leave(strike: &mut Strike) {
    let world = Arc::clone(&strike.world);
    let _alone = world.operator.lock().await;
    let members = world.members();
    // It waited for other operators, and may come too late.
    if members.len() < 4 || world.engines_rest() || world.incomplete().is_some() {
        return;
    }
    let (Some(asked), Some(leaving)) =
        (strike.dice.pick(&members).cloned(), strike.dice.pick(&members).cloned())
    else {
        return;
    };
    let Some(node) = leaving.id() else { return };
    if !can_lose(&asked, node).await {
        return;
    }
    strike.say(leaving.life.node, "is removed");
    world.dismiss(leaving.life.node);
    // Until it surely is: what an operator began must be brought to its end.
    while !change(strike, DirectoryChange::Dismiss(node)).await {}
    world.retire(leaving.life.node);
    strike.wait_until_whole().await;
}

async fn can_lose(asked: &Arc<Running>, node: NodeId) -> bool {
    let there = Arc::clone(asked);
    let can = asked.life.spawn(async move { there.cluster.can_lose(node).await.is_ok() });
    can.await.unwrap_or(false)
}

/// Asks any node, again and again; whether it was done for sure.
async fn change(strike: &mut Strike, change: DirectoryChange) -> bool {
    for _ in 0..TRIES {
        if let Some(asked) = strike.dice.pick(&strike.world.members()).cloned() {
            let (there, change) = (Arc::clone(&asked), change.clone());
            let changed = asked.life.spawn(async move { there.cluster.change_directory(change).await }).await;
            strike.say(asked.life.node, format!("says {changed:?}"));
            if matches!(changed, Ok(Ok(DirectoryAnswer::Done | DirectoryAnswer::Unknown))) {
                return true;
            }
        }
        sleep(Duration::from_millis(150)).await;
    }
    false
}
