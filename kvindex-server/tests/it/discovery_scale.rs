//! How quickly a thousand pods are known. Not run by default:
//! `cargo test --workspace --test it -- --ignored --nocapture discovery_scale`.

use kvindex_server::config::DiscoveryConfig;
use std::time::{Duration, Instant};

use crate::api_server::{Server, config};
use crate::cluster_rig::Rig;
use crate::discovery_rig::{EnginePod, Kube, pods};

const FLEET: u16 = 1000;

async fn until_count(what: &str, count: usize, counted: impl Fn() -> usize) -> Duration {
    let start = Instant::now();
    while counted() != count {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}: {} of {count}", counted());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

/// A fleet on addresses that answer at once that nobody listens there.
fn fleet(kube: &Kube, size: u16) {
    for number in 0..size {
        let [high, low] = number.to_be_bytes();
        let mut pod = EnginePod::new(&format!("vllm-{number:04}"), 5557);
        pod.address = [127, 1, high, low].into();
        kube.run(&pod);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_thousand_pods_on_a_node_alone() {
    let kube = Kube::start().await;
    let server = Server::with(config(|config| config.discovery = kube.settings())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let known = || pods(&server.running).len();
    fleet(&kube, FLEET);
    let took = until_count("told by the watch", FLEET.into(), known).await;
    println!("a node alone: {FLEET} pods that appear at once are known after {took:.2?}");
    for number in 0..FLEET {
        kube.delete(&format!("vllm-{number:04}"), 0);
    }
    let took = until_count("gone", 0, known).await;
    println!("a node alone: {FLEET} pods that end at once are forgotten after {took:.2?}");
    server.running.shutdown().await.unwrap();
    fleet(&kube, FLEET);
    let server = Server::with(config(|config| config.discovery = kube.settings())).await;
    let took = until_count("listed", FLEET.into(), || pods(&server.running).len()).await;
    println!("a node alone: {FLEET} pods that are there at its start are known after {took:.2?}");
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_thousand_pods_in_a_cluster_of_three() {
    let kube = Kube::start().await;
    let mut rig = Rig::of(3);
    rig.discovery = Some(DiscoveryConfig { resync: Duration::from_secs(300), ..kube.settings() });
    rig.start_all(|_| ()).await;
    rig.wait_ready().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    fleet(&kube, FLEET);
    let start = Instant::now();
    for seat in 0..3 {
        until_count("known everywhere", FLEET.into(), || pods(rig.running(seat)).len()).await;
    }
    println!("three nodes: {FLEET} pods are known on all of them after {:.2?}", start.elapsed());
    rig.stop_all().await;
}
