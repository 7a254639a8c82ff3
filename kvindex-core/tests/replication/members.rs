//! Members come and go; those far behind get a snapshot.

use kvindex_core::replication::{NodeAddress, NodeId, Role, ShardId};
use std::time::Duration;
use tokio::time::timeout;

use super::machine::word;
use super::rig::{PATIENCE, Rig, address};

#[tokio::test]
async fn a_new_node_gets_the_snapshot_and_then_a_vote() {
    let mut rig = Rig::found(1, 1).await;
    let mut words = Vec::new();
    for n in 0..30 {
        words.push(format!("w{n}"));
        rig.replica(1).propose(ShardId(0), &word(&words[n]), PATIENCE).await.unwrap();
    }
    rig.replica(1).snapshot(ShardId(0)).await.unwrap();
    rig.until("there is a snapshot", |rig| {
        rig.replica(1).shard_status(ShardId(0)).unwrap().snapshot.is_some_and(|at| at >= 30)
    })
    .await;
    rig.start(2).await;
    rig.replica(1).add(ShardId(0), NodeId(2), address(2)).await.unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    rig.until_all_have(0, &words).await;
    let role = |rig: &Rig, node| rig.replica(node).shard_status(ShardId(0)).unwrap().role;
    assert_eq!(role(&rig, 2), Role::Learner);
    rig.replica(1).promote(ShardId(0), NodeId(2)).await.unwrap();
    rig.until("it votes", |rig| role(rig, 2) == Role::Follower).await;

    rig.replica(1).hand_over(ShardId(0), NodeId(2)).await.unwrap();
    rig.until("it leads", |rig| rig.leader(0) == Some(2)).await;
    rig.replica(2).remove(ShardId(0), NodeId(1)).await.unwrap();
    rig.stop(1).await;
    rig.replica(2).propose(ShardId(0), &word("alone"), PATIENCE).await.unwrap();
    assert_eq!(rig.nodes[&2].machine.words(0).last().unwrap(), "alone");
}

#[tokio::test]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let mut rig = Rig::found(3, 1).await;
    let leader = rig.leader(0).unwrap();
    let moved = (1..=3).find(|node| *node != leader).unwrap();
    rig.stop(moved).await;
    rig.start_at(moved, "elsewhere:1").await;
    let address = NodeAddress { peer: "elsewhere:1".into(), public: "elsewhere:2".into() };
    rig.replica(leader).add(ShardId(0), NodeId(moved), address).await.unwrap();
    rig.replica(leader).propose(ShardId(0), &word("after"), PATIENCE).await.unwrap();
    rig.until_all_have(0, &["after"]).await;
}

/// An old copy of a node's data, here one from before the first entry, or a log whose end went with the power.
#[tokio::test]
async fn a_node_whose_log_went_back_is_told_and_leaders_go_on() {
    let mut rig = Rig::found(3, 1).await;
    let leader = rig.leader(0).unwrap();
    let lost = (1..=3).find(|node| *node != leader).unwrap();
    rig.replica(leader).propose(ShardId(0), &word("before"), PATIENCE).await.unwrap();
    rig.until_all_have(0, &["before"]).await;
    rig.stop(lost).await;
    rig.disks.remove(&lost);
    rig.start(lost).await;
    rig.until("it knows", |rig| rig.replica(lost).damage().is_some()).await;
    let said = rig.replica(lost).damage().unwrap().to_string();
    assert!(said.contains("shard 0: node") && said.contains("has this node's word for entry"), "{said}");
    rig.replica(leader).propose(ShardId(0), &word("after"), PATIENCE).await.unwrap();
    rig.stop(lost).await;
    assert_eq!(rig.leader(0), Some(leader));
    rig.until_all_have(0, &["before", "after"]).await;
}

#[tokio::test]
async fn a_restart_begins_with_the_snapshot() {
    let mut rig = Rig::found(1, 2).await;
    for text in ["a", "b", "c", "d", "e", "f"] {
        rig.replica(1).propose(ShardId(1), &word(text), PATIENCE).await.unwrap();
    }
    rig.replica(1).snapshot(ShardId(1)).await.unwrap();
    rig.until("the log before it is gone", |rig| {
        rig.replica(1).shard_status(ShardId(1)).unwrap().snapshot.is_some_and(|at| at >= 6)
    })
    .await;
    rig.replica(1).propose(ShardId(1), &word("g"), PATIENCE).await.unwrap();
    rig.stop(1).await;
    rig.start(1).await;
    rig.until_all_have(1, &["a", "b", "c", "d", "e", "f", "g"]).await;
}

/// What openraft hands out to watch with has seen nothing since the start: whoever watched was called at once, again and
/// again.
#[tokio::test]
async fn a_watch_tells_of_changes_after_it_began_and_of_no_others() {
    let mut rig = Rig::found(1, 1).await;
    let mut calls = 0;
    // The last changes of the foundation may still be on their way.
    while timeout(Duration::from_millis(300), rig.replica(1).watch()).await.is_ok() {
        calls += 1;
        assert!(calls < 10, "it tells of what was before");
    }
    let changed = rig.replica(1).watch();
    rig.start(2).await;
    rig.replica(1).add(ShardId(0), NodeId(2), address(2)).await.unwrap();
    timeout(PATIENCE, changed).await.unwrap();
}

/// A leader that stops between the two steps of a change of voters left its shard between two sets of them, for ever.
#[tokio::test]
async fn a_change_of_voters_can_be_finished_by_the_next_leader() {
    let shard = ShardId(0);
    let mut rig = Rig::found(3, 1).await;
    rig.start(4).await;
    let leader = rig.leader(0).unwrap();
    // Once this is acknowledged, so are the voters that founded the shard.
    rig.replica(leader).propose(shard, &word("first"), PATIENCE).await.unwrap();
    rig.replica(leader).add(shard, NodeId(4), address(4)).await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let (next, away) = (others[0], others[1]);
    // Without these two, the new set of voters has no quorum, and the old one has.
    for node in [away, 4] {
        let all = [1, 2, 3, 4].map(|other| address(other).peer);
        let all: Vec<&str> =
            all.iter().filter(|other| **other != address(node).peer).map(String::as_str).collect();
        rig.wires.isolate(&address(node).peer, &all);
    }
    let promoting = std::sync::Arc::clone(rig.replica(leader));
    let promotion = tokio::spawn(async move { promoting.promote(shard, NodeId(4)).await });
    let changing = |rig: &Rig| rig.replica(next).shard_status(shard).unwrap().changing;
    rig.until("the first step came here", changing).await;
    rig.stop(leader).await;
    promotion.abort();
    rig.wires.heal();
    rig.until("it leads", |rig| rig.leader(0) == Some(next)).await;
    rig.replica(next).propose(shard, &word("between"), PATIENCE).await.unwrap();
    assert!(changing(&rig));
    rig.replica(next).finish_change(shard).await.unwrap();
    assert!(!changing(&rig));
    let status = rig.replica(next).shard_status(shard).unwrap();
    assert_eq!(status.members.values().filter(|member| member.voter).count(), 4);
}
