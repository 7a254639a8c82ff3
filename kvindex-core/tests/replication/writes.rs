//! Proposals and reads.

use kvindex_core::replication::log_store::{Change, LogBackend, Mark};
use kvindex_core::replication::{ProposeError, ReadLevel, ShardId, encode};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::machine::{unregister, word};
use super::rig::{PATIENCE, Rig, address};

#[tokio::test]
async fn what_any_node_proposes_all_nodes_apply_in_one_order() {
    let rig = Rig::found(3, 2).await;
    for (node, text) in [(1, "a"), (2, "b"), (3, "c")] {
        let (at, answer) = rig.replica(node).propose(ShardId(1), &word(text), PATIENCE).await.unwrap();
        assert!(at.index > 0);
        assert_eq!(answer, ["1", "2", "3"][usize::try_from(node).unwrap() - 1]);
    }
    rig.until_all_have(1, &["a", "b", "c"]).await;
    rig.until_all_have(0, &[]).await;
}

#[tokio::test]
async fn a_follower_says_who_leads() {
    let rig = Rig::found(3, 1).await;
    let leader = rig.leader(0).unwrap();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let entry = encode(&unregister("a")).unwrap();
    let refused = rig.replica(follower).propose_here(ShardId(0), entry.clone(), PATIENCE).await.unwrap_err();
    assert!(
        matches!(&refused, ProposeError::NotLeader { leader: Some(node), .. } if node.0 == leader),
        "{refused}"
    );
    rig.replica(leader).propose_here(ShardId(0), entry, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_minority_neither_writes_nor_reads_freshly_and_the_majority_goes_on() {
    let rig = Rig::found(3, 1).await;
    let old = rig.leader(0).unwrap();
    rig.replica(old).propose(ShardId(0), &word("before"), PATIENCE).await.unwrap();
    rig.until_all_have(0, &["before"]).await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    let names: Vec<String> = others.iter().map(|node| address(*node).peer).collect();
    rig.wires.isolate(&address(old).peer, &names.iter().map(String::as_str).collect::<Vec<_>>());

    let short = Duration::from_millis(1500);
    let refused = rig.replica(old).propose(ShardId(0), &word("lost"), short).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Unsure { .. } | ProposeError::NotLeader { .. }), "{refused}");
    for level in [ReadLevel::Lease, ReadLevel::Linearizable] {
        let late = rig.replica(old).barrier([ShardId(0)], level, short).await.unwrap_err();
        assert_eq!(late.shard, ShardId(0));
    }
    rig.replica(old).barrier([ShardId(0)], ReadLevel::Local, short).await.unwrap();

    rig.replica(others[0]).propose(ShardId(0), &word("during"), PATIENCE).await.unwrap();
    rig.wires.heal();
    rig.replica(old).barrier([ShardId(0)], ReadLevel::Linearizable, PATIENCE).await.unwrap();
    let words = rig.nodes[&old].machine.words(0);
    assert_eq!(words.iter().filter(|word| *word == "during").count(), 1, "{words:?}");
    rig.until("all agree", |rig| {
        let all: Vec<_> = rig.nodes.values().map(|node| node.machine.words(0)).collect();
        all.iter().all(|words| *words == all[0])
    })
    .await;
}

#[tokio::test]
async fn a_linearizable_read_sees_what_was_acknowledged_elsewhere() {
    let rig = Rig::found(3, 1).await;
    for n in 0..20 {
        let writer = n % 3 + 1;
        let reader = (n + 1) % 3 + 1;
        rig.replica(writer).propose(ShardId(0), &word("x"), PATIENCE).await.unwrap();
        let level = if n % 2 == 0 { ReadLevel::Linearizable } else { ReadLevel::Lease };
        rig.replica(reader).barrier([ShardId(0)], level, PATIENCE).await.unwrap();
        assert_eq!(rig.nodes[&reader].machine.words(0).len() as u64, n + 1);
    }
}

#[tokio::test]
async fn lag_is_what_is_known_to_be_missing() {
    let rig = Rig::found(3, 1).await;
    let leader = rig.leader(0).unwrap();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    rig.replica(leader).propose(ShardId(0), &word("x"), PATIENCE).await.unwrap();
    rig.until_all_have(0, &["x"]).await;
    let lag = |node: u64| rig.replica(node).shard_status(ShardId(0)).unwrap().lag;
    rig.until("the leader's quorum is fresh", |_| {
        lag(leader).age.is_some_and(|age| age < Duration::from_millis(500))
    })
    .await;
    rig.until("the follower is fresh", |_| {
        lag(follower).age.is_some_and(|age| age < Duration::from_millis(500))
    })
    .await;
    rig.wires.isolate(&address(follower).peer, &["node-1:1", "node-2:1", "node-3:1"]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(lag(follower).age.unwrap() > Duration::from_millis(600), "{:?}", lag(follower));
    rig.wires.heal();
    rig.wires.isolate(&address(leader).peer, &["node-1:1", "node-2:1", "node-3:1"]);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(
        lag(leader).age.unwrap() > Duration::from_millis(500),
        "an old leader is not fresh: {:?}",
        lag(leader)
    );
}

#[tokio::test]
async fn restarted_nodes_have_what_was_acknowledged() {
    let mut rig = Rig::found(3, 2).await;
    for text in ["a", "b"] {
        rig.replica(1).propose(ShardId(0), &word(text), PATIENCE).await.unwrap();
    }
    for node in 1..=3 {
        rig.stop(node).await;
    }
    for node in 1..=3 {
        rig.start(node).await;
    }
    rig.replica(2).propose(ShardId(0), &word("c"), PATIENCE).await.unwrap();
    rig.until_all_have(0, &["a", "b", "c"]).await;
}

/// A new leader does not know yet what earlier ones have committed, and must not call what it has applied fresh.
#[tokio::test]
async fn nobody_is_fresh_before_everything_acknowledged_is_applied() {
    let mut rig = Rig::found(3, 1).await;
    rig.replica(1).propose(ShardId(0), &word("first"), PATIENCE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What a killed node knows of commits is some time old.
    let mut known = BTreeMap::new();
    for node in 1..=3 {
        known.insert(node, rig.disks[&node].backend.shard(ShardId(0)).await.unwrap().committed.unwrap());
    }
    let words: Vec<String> = ["first".into()].into_iter().chain((0..40).map(|n| format!("w{n}"))).collect();
    for text in &words[1..] {
        rig.replica(1).propose(ShardId(0), &word(text), PATIENCE).await.unwrap();
    }
    for node in 1..=3 {
        rig.stop(node).await;
    }
    for (node, record) in known {
        let change = Change::Mark { shard: ShardId(0), mark: Mark::Committed, record };
        rig.disks[&node].backend.commit(vec![change], true).await.unwrap();
        rig.start(node).await;
    }
    let nodes: Vec<_> =
        rig.nodes.values().map(|node| (Arc::clone(&node.replica), Arc::clone(&node.machine))).collect();
    // As a task among the nodes' own, it looks between any two steps of theirs.
    let looking = tokio::spawn(async move {
        loop {
            let fresh = nodes.iter().filter(|(replica, _)| replica.lag(ShardId(0)).unwrap().age.is_some());
            let seen: Vec<_> = fresh.map(|(_, machine)| machine.words(0)).collect();
            assert!(seen.iter().all(|seen| *seen == words), "called fresh: {seen:?}");
            if seen.len() == nodes.len() {
                return;
            }
            let mut looked = false;
            let turn = |context: &mut Context<'_>| {
                if std::mem::replace(&mut looked, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            };
            poll_fn(turn).await;
        }
    });
    tokio::time::timeout(PATIENCE, looking).await.unwrap().unwrap();
}
