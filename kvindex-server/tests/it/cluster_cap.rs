//! A cap on the index's bytes in a cluster: every node is below its own, all hold the same, and the tenants with most
//! give first.

use kvindex_proto::v1;

use crate::api_server::{batch, stored, worker};
use crate::cluster_rig::Rig;

/// Blocks of one batch.
const BLOCKS: u32 = 1000;

/// A block's tokens and name are of this worker and batch alone.
async fn fill(rig: &mut Rig, worker: u32, seq: u64) {
    let mut blocks = stored(1);
    let first = (u64::from(worker) * 1_000_000 + seq * u64::from(BLOCKS)) as u32;
    blocks.token_ids = (0..BLOCKS * blocks.block_size).map(|i| first * blocks.block_size + i).collect();
    blocks.block_hashes = (0..BLOCKS).map(|i| u64::from(first + i) + 1).collect();
    let published = batch(&format!("w{worker}"), 1, seq, vec![blocks]);
    rig.node(worker as usize % 3).ingest.publish(published).await.unwrap();
}

async fn metrics(rig: &mut Rig, seat: usize) -> String {
    rig.node(seat).http("GET", "/metrics", "").await.1
}

fn value(metrics: &str, name: &str) -> u64 {
    let line =
        metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn wait_below(rig: &mut Rig, caps: [u64; 3]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let mut bytes = Vec::new();
        for seat in 0..3 {
            bytes.push(value(&metrics(rig, seat).await, "kvindex_index_bytes "));
        }
        if bytes.iter().zip(caps).all(|(bytes, cap)| *bytes <= cap) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{bytes:?} of {caps:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_stays_below_its_own_cap_and_all_hold_the_same() {
    // The lowest is not the leader's of shard 0, who founds the cluster.
    let caps = [900_000, 700_000, 500_000];
    let mut rig = Rig::of(3);
    rig.start_some(0..3, |seat, config| {
        (config.limits.index_bytes, config.index.journal_removals) = (caps[seat] as usize, 1000);
    })
    .await;
    rig.wait_ready().await;
    for (number, tenant) in [(0, "large"), (1, "large"), (2, "small"), (3, "small")] {
        let spec = v1::RegisterRequest { tenant: tenant.into(), ..worker(&format!("w{number}")) };
        rig.node(0).ingest.register(spec).await.unwrap();
    }
    for number in [2, 3] {
        fill(&mut rig, number, 0).await;
    }
    for seq in 0..30 {
        for number in [0, 1] {
            fill(&mut rig, number, seq).await;
        }
    }
    wait_below(&mut rig, caps).await;
    rig.wait_equal().await;
    wait_below(&mut rig, caps).await;
    for (seat, cap) in caps.into_iter().enumerate() {
        let metrics = metrics(&mut rig, seat).await;
        let (bytes, entries) =
            (value(&metrics, "kvindex_index_bytes "), value(&metrics, "kvindex_index_entries "));
        assert!(entries > 10_000 && bytes > 300_000, "not too much: {entries} entries, {bytes} bytes");
        let evicted = value(&metrics, "kvindex_index_effects_total{effect=\"evicted\"}");
        assert_eq!(evicted + entries, 62_000, "what is not held was evicted");
        let of_large = value(&metrics, "kvindex_index_tenant_evicted_total{tenant=\"large\"}");
        assert_eq!(of_large, evicted, "a tenant below its share gives nothing: {metrics}");
        assert_eq!(value(&metrics, "kvindex_index_max_bytes "), cap);
    }
    // What goes makes answers too short, and says so.
    let listed =
        rig.node(1).query.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    for worker in listed.workers {
        let trust = worker.streams[0].trust.clone().unwrap();
        let large = ["w0", "w1"].contains(&worker.worker_id.as_str());
        let expected = if large { v1::TrustState::Rebuilding } else { v1::TrustState::Live };
        assert_eq!(trust.state(), expected, "{}: {trust:?}", worker.worker_id);
        assert_eq!(trust.reason.contains("evicted"), large, "{trust:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_with_less_memory_makes_room_for_itself() {
    let mut rig = Rig::of(4);
    rig.start_some(0..3, |_, config| {
        config.cluster.as_mut().unwrap().peers.truncate(3);
    })
    .await;
    rig.wait_ready().await;
    rig.node(0).register("w0").await;
    for seq in 0..30 {
        fill(&mut rig, 0, seq).await;
    }
    rig.start_some(3..4, |_, config| {
        (config.limits.index_bytes, config.index.journal_removals) = (500_000, 0);
    })
    .await;
    rig.wait_ready().await;
    let cap = [u64::MAX, u64::MAX, 500_000];
    rig.seats.swap(2, 3);
    wait_below(&mut rig, cap).await;
    rig.seats.swap(2, 3);
    rig.wait_equal().await;
    let metrics = metrics(&mut rig, 0).await;
    assert!(value(&metrics, "kvindex_index_effects_total{effect=\"evicted\"}") > 0);
    assert!(value(&metrics, "kvindex_index_entries ") > 5_000, "{metrics}");
}
