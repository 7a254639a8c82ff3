//! All nodes stop, and all come back from what they kept: the same answers, on either log engine, with or without a
//! snapshot.

use kvindex_core::replication::ShardId;
use kvindex_core::replication::log_store::BackendKind;

use crate::api_server::{blocks, prompt, removed, stored, tokens};
use crate::cluster_rig::{Rig, SHARDS};

async fn fill(rig: &mut Rig, from: u64) {
    for number in 0..6_usize {
        let name = format!("w{number}");
        if from == 0 {
            rig.node(number % 3).register(&name).await;
        }
        // Registered through one node and fed through others.
        let node = rig.node((number + 1) % 3);
        node.push(&name, from, vec![stored(3)]).await;
        node.push(&name, from + 1, vec![removed(&[102])]).await;
    }
}

async fn comes_back(log_store: BackendKind, snapshots: bool) {
    let mut rig = Rig::of(3);
    rig.start_all(|cluster| cluster.log_store = log_store).await;
    rig.wait_ready().await;
    fill(&mut rig, 0).await;
    if snapshots {
        for seat in 0..3 {
            let cluster = rig.node(seat).running.cluster().unwrap().clone();
            for shard in (0..SHARDS).map(ShardId) {
                cluster.replica().unwrap().snapshot(shard).await.unwrap();
            }
        }
        let has = |rig: &Rig, seat| rig.shards(seat).iter().all(|shard| shard.snapshot.is_some());
        rig.wait("snapshots", |rig| (0..3).all(|seat| has(rig, seat))).await;
        // And some log behind them.
        fill(&mut rig, 2).await;
    }
    let before = rig.wait_equal().await;
    let ids: Vec<u64> = (0..3).map(|seat| rig.id(seat)).collect();
    let cluster_id = rig.status(0).await.cluster_id;
    rig.stop_all().await;
    rig.start_all(|cluster| cluster.log_store = log_store).await;
    rig.wait_ready().await;
    assert_eq!(rig.wait_equal().await, before);
    assert_eq!((0..3).map(|seat| rig.id(seat)).collect::<Vec<_>>(), ids);
    assert_eq!(rig.status(0).await.cluster_id, cluster_id);
    for seat in 0..3 {
        let answer = rig.node(seat).find(prompt(tokens(48))).await;
        assert_eq!(answer.workers.len(), 6);
        // Every round stores three blocks and removes the third.
        assert!(blocks(&answer).iter().all(|(_, held)| *held == 2), "{answer:?}");
    }
    // And it goes on.
    let next = if snapshots { 4 } else { 2 };
    rig.node(0).push("w0", next, vec![stored(3)]).await;
    rig.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_log() {
    comes_back(BackendKind::Fjall, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_snapshots_and_the_log_behind_them() {
    comes_back(BackendKind::Fjall, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_other_engines_log() {
    comes_back(BackendKind::Sled, false).await;
}
