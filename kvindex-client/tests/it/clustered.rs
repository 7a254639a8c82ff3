//! Nodes of a real cluster: one that is not ready, and one that is behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kvindex_client::{Client, ClientConfig, EndpointState, Hedge};
use kvindex_server::config::{ClusterConfig, Config};
use kvindex_server::{App, Running};
use tokio::net::TcpListener;

use crate::node::{self, PATIENT, client_of, store};
use crate::several::{SOON, ask, ask_until, prompt};

/// Data of some nodes, gone at the end.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ports that were free a moment ago: nodes must know each other's before they listen.
async fn peers() -> Vec<SocketAddr> {
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// One of three.
async fn start(data: &Data, peers: &[SocketAddr], number: usize) -> Running {
    let mut config = Config::defaults();
    config.drain = Duration::from_millis(500);
    config.cluster = Some(ClusterConfig {
        peer_listen: Some(peers[number]),
        peers: peers.iter().map(ToString::to_string).collect(),
        shards: Some(1),
        data_dir: data.0.join(number.to_string()),
        ..ClusterConfig::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    App::start(config, listener).await.unwrap()
}

fn data(name: &str) -> Data {
    let data = Data(std::env::temp_dir().join(format!("kvindex-client-{name}-{}", std::process::id())));
    std::fs::create_dir_all(&data.0).unwrap();
    data
}

fn config(nodes: &[&Running]) -> ClientConfig {
    ClientConfig::of(nodes.iter().map(|node| format!("http://{}", node.local_addr())))
        .routing_timeout(PATIENT)
        .probe_interval(Duration::from_millis(50))
        .hedge(Hedge::Off)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_ready_is_left_out() {
    let data = data("unready");
    // Two that are missing: it never becomes ready.
    let waits = start(&data, &peers().await, 0).await;
    let (ready, direct) = node::start().await;
    store(&direct, "a", 2).await;
    let client = Client::connect(config(&[&waits, &ready])).unwrap();
    let left_out = |at: &Client| at.stats().endpoints[0].state == EndpointState::NotReady;
    let deadline = Instant::now() + SOON;
    while !left_out(&client) {
        assert!(Instant::now() < deadline, "{:#?}", client.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..100 {
        ask(&client).await;
    }
    let stats = client.stats();
    assert_eq!((stats.endpoints[0].answered, stats.endpoints[1].answered), (0, 100), "{stats:#?}");
    assert_eq!(stats.endpoints[0].left_out.as_deref(), Some("says that it is not ready"));
    // Where there is no other it is asked all the same: it may know better than its probe.
    let alone = Client::connect(config(&[&waits])).unwrap();
    alone.match_tokens(&prompt()).await;
    assert_eq!(alone.stats().endpoints[0].outstanding, 0);
    assert_eq!(alone.stats().endpoints[0].unavailable + alone.stats().endpoints[0].answered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_is_left_out_when_freshness_is_asked_for() {
    let data = data("behind");
    let peers = peers().await;
    let mut cluster = Vec::new();
    for number in 0..3 {
        cluster.push(start(&data, &peers, number).await);
    }
    let first = client_of(&cluster[0].local_addr().to_string());
    let deadline = Instant::now() + SOON;
    // The cluster stands once it takes a change.
    while first.register(node::worker("a")).await.is_err() {
        assert!(Instant::now() < deadline, "no cluster is founded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The last one alone is no majority: it is ready, answers, and gets older.
    cluster.pop().unwrap().shutdown().await.unwrap();
    cluster.pop().unwrap().shutdown().await.unwrap();
    let (current, direct) = node::start().await;
    store(&direct, "a", 2).await;
    let any = Client::connect(config(&[&cluster[0], &current])).unwrap();
    ask_until(&any, "both answer", |stats| stats.endpoints.iter().all(|endpoint| endpoint.answered > 0))
        .await;
    let age = Duration::from_millis(800);
    tokio::time::sleep(age * 2).await;
    let fresh = Client::connect(config(&[&cluster[0], &current]).max_age(age)).unwrap();
    ask_until(&fresh, "it is behind", |stats| stats.endpoints[0].stale > 0).await;
    for _ in 0..50 {
        let answer = fresh.match_tokens(&prompt()).await.known().unwrap();
        assert_eq!(answer.freshness, None, "the current one's: {:#?}", fresh.stats());
    }
    assert_eq!(fresh.stats().endpoints[0].answered, 0);
    // Where all are behind the answer is taken, and says so.
    let only = Client::connect(config(&[&cluster[0]]).max_age(age)).unwrap();
    let answer = only.match_tokens(&prompt()).await.known().unwrap();
    assert!(answer.freshness.is_some_and(|freshness| freshness.age_ms.is_none_or(|ms| ms > 800)));
}
