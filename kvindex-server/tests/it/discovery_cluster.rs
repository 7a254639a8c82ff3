//! Engines found by a cluster: one node looks, all know, and another looks on when that one goes.

use kvindex_server::config::DiscoveryConfig;
use std::time::Duration;

use crate::cluster_rig::Rig;
use crate::discovery_rig::{EnginePod, Kube, pods, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_shard_0_looks_for_all_and_the_next_one_looks_on() {
    let kube = Kube::start().await;
    for number in 0..3 {
        kube.run(&EnginePod::new(&format!("vllm-{number}"), 5557 + number));
    }
    let mut rig = Rig::of(3);
    let settings = DiscoveryConfig { resync: Duration::from_secs(300), ..kube.settings() };
    rig.discovery = Some(settings);
    rig.start_all(|_| ()).await;
    rig.wait_ready().await;
    let known = |rig: &Rig, seat: usize| pods(rig.running(seat));
    for seat in 0..3 {
        until("every node knows", || known(&rig, seat) == ["vllm-0", "vllm-1", "vllm-2"]).await;
    }
    let leader = rig.leader(0).unwrap();
    rig.stop(leader).await;
    // What happens meanwhile nobody tells the next leader but the list it begins with.
    kube.delete("vllm-0", 0);
    kube.run(&EnginePod::new("vllm-3", 5557));
    for seat in rig.taken() {
        until("the others know", || known(&rig, seat) == ["vllm-1", "vllm-2", "vllm-3"]).await;
    }
    kube.delete("vllm-3", 0);
    for seat in rig.taken() {
        until("and go on", || known(&rig, seat) == ["vllm-1", "vllm-2"]).await;
    }
    rig.stop_all().await;
}
