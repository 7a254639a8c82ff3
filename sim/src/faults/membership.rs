//! The cluster changes: a node joins, learns, gets a vote; another one leaves; leadership is handed over.

use kvindex_core::replication::{NodeId, ShardId};
use std::time::Duration;
use tokio::time::{sleep, timeout};

use super::Strike;
use crate::network::address;

/// Nodes that a run adds at most.
const MOST_NODES: u64 = 7;
const TRIES: usize = 12;
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
enum Change {
    Add,
    Promote,
    Remove,
}

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
        let Some(leader) = strike.world.leader(shard) else { continue };
        let others: Vec<u64> = strike.world.nodes().iter().map(|node| node.number).collect();
        let Some(to) = strike.dice.pick(&others).copied() else { continue };
        strike.say(leader.life.node, format!("hands {shard} over to node {to}"));
        // Refused where it makes no sense.
        let _ = timeout(PATIENCE, leader.replica.hand_over(shard, NodeId(to))).await;
    }
}

async fn join(strike: &mut Strike) {
    if strike.world.nodes().len() as u64 >= MOST_NODES {
        return;
    }
    let number = strike.world.add_node();
    strike.say(number, "joins");
    if !everywhere(strike, Change::Add, number).await {
        return;
    }
    sleep(strike.lasts / 2).await;
    if strike.dice.percent(70) {
        strike.say(number, "is promoted");
        everywhere(strike, Change::Promote, number).await;
    }
}

/// A node that surely is no member of any shard any more is stopped for good.
async fn leave(strike: &mut Strike) {
    let numbers: Vec<u64> = strike.world.nodes().iter().map(|node| node.number).collect();
    if numbers.len() < 3 {
        return;
    }
    let Some(number) = strike.dice.pick(&numbers).copied() else { return };
    strike.say(number, "is removed");
    // The vote first, then the node.
    if everywhere(strike, Change::Remove, number).await && everywhere(strike, Change::Remove, number).await {
        strike.world.retire(number);
    }
}

async fn everywhere(strike: &mut Strike, change: Change, number: u64) -> bool {
    let mut done = true;
    for shard in strike.world.shards() {
        done &= somehow(strike, change, shard, number).await;
    }
    done
}

/// Asks whoever leads, again and again; whether it was done for sure.
async fn somehow(strike: &mut Strike, change: Change, shard: ShardId, number: u64) -> bool {
    let node = NodeId(number);
    for _ in 0..TRIES {
        if let Some(leader) = strike.world.leader(shard) {
            let replica = &leader.replica;
            let changed = match change {
                Change::Add => timeout(PATIENCE, replica.add(shard, node, address(number))).await,
                Change::Promote => timeout(PATIENCE, replica.promote(shard, node)).await,
                Change::Remove => timeout(PATIENCE, replica.remove(shard, node)).await,
            };
            let done = matches!(changed, Ok(Ok(()))) && !leader.life.is_over();
            strike.say(number, format!("{change:?} in {shard}: {changed:?}"));
            if done {
                return true;
            }
        }
        sleep(Duration::from_millis(150)).await;
    }
    false
}
