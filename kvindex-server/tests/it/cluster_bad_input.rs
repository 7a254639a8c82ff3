//! What cannot be right is refused, with what is wrong and what to do about it: data of another cluster, of another
//! program, of another node; nodes that disagree; messages and configurations that make no sense.

use bytes::Bytes;
use kvindex_core::replication::Transport;
use kvindex_core::replication::log_store::BackendKind;
use kvindex_server::cluster::GrpcTransport;
use kvindex_server::config::{Config, RawCluster, RawConfig};
use std::path::Path;
use std::time::Duration;

use crate::cluster_rig::{Rig, SHARDS};

/// Asserts that a text says all of it.
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// A cluster of one node, in the first of so many seats.
async fn alone(seats: usize) -> Rig {
    let mut rig = Rig::of(seats);
    rig.start_as(0, |cluster| cluster.size = 1).await.unwrap();
    rig.wait_ready().await;
    rig
}

/// Why a node in this seat does not start.
async fn refusal(rig: &mut Rig, seat: usize) -> String {
    rig.start_as(seat, |cluster| cluster.size = 1).await.unwrap_err().to_string()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_cluster() {
    let mut theirs = alone(1).await;
    let mut rig = alone(2).await;
    let ours = rig.status(0).await.cluster_id;
    let other = theirs.status(0).await.cluster_id;
    theirs.stop(0).await;
    copy(theirs.seats[0].data.path(), rig.seats[1].data.path());
    let error = refusal(&mut rig, 1).await;
    says(&error, &[&ours, &other, &rig.peer_address(0), "cluster_peers", "empty data_dir"]);
    // Its word on the wire is refused as well.
    let cluster = u128::from_str_radix(&other, 16).unwrap().to_le_bytes();
    let message = [&[1], &cluster[..], &7u64.to_le_bytes(), &1u64.to_le_bytes(), &[0, 0]].concat();
    let answer = say(&rig.peer_address(0), message).await;
    says(&answer, &[&ours, &other, "list of peers"]);
    // Emptied, it joins.
    rig.wipe(1);
    rig.start_as(1, |cluster| cluster.size = 1).await.unwrap();
    rig.wait_ready().await;
    assert_eq!(rig.status(1).await.cluster_id, ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_two_clusters() {
    let (one, two) = (alone(1).await, alone(1).await);
    let mut rig = Rig::of(1);
    let peers = vec![one.peer_address(0), two.peer_address(0)];
    rig.start_as(0, |cluster| cluster.peers = peers.clone()).await.unwrap();
    rig.wait("it sees both", |rig| rig.waits_for(0).contains("remove one of them from cluster_peers")).await;
    says(&rig.waits_for(0), &[&peers[0], &peers[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shard_count() {
    let mut rig = alone(2).await;
    let other = |cluster: &mut kvindex_server::config::ClusterConfig| {
        cluster.size = 1;
        cluster.shards = Some(SHARDS + 1);
    };
    let wanted = ["has 3 shards", "asks for 4", "cluster_shards", "set it to 3"];
    rig.start_as(1, other).await.unwrap();
    rig.wait("it is told", |rig| rig.waits_for(1).contains("shards")).await;
    says(&rig.waits_for(1), &wanted);
    let (code, text) = rig.node(1).http("GET", "/readyz", "").await;
    assert_eq!(code, 503);
    says(&text, &wanted);
    rig.wait("the founder is listed", |rig| !rig.known(0).is_empty()).await;
    assert_eq!(rig.known(0).len(), 1, "it was not given an id");
    // Nor does a node change its mind.
    rig.stop(0).await;
    let error = rig.start_as(0, other).await.unwrap_err().to_string();
    says(&error, &wanted);
    says(&error, &["node.json"]);
    rig.start_as(0, |cluster| (cluster.size, cluster.shards) = (1, None)).await.unwrap();
    rig.wait("it has what there is", |rig| rig.shards(0).len() == usize::from(SHARDS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn founders_who_disagree() {
    let mut rig = Rig::of(2);
    rig.start_as(0, |cluster| (cluster.size, cluster.shards) = (2, Some(3))).await.unwrap();
    rig.start_as(1, |cluster| (cluster.size, cluster.shards) = (3, Some(5))).await.unwrap();
    for (seat, other) in [(0, 1), (1, 0)] {
        rig.wait("they see each other", |rig| rig.waits_for(seat).contains("alike")).await;
        let parts = [&rig.peer_address(other), "with 3", "with 5", "cluster_size and cluster_shards alike"];
        says(&rig.waits_for(seat), &parts);
    }
    rig.stop(1).await;
    rig.start_as(1, |cluster| (cluster.size, cluster.shards) = (2, Some(3))).await.unwrap();
    rig.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_none() {
    let mut rig = alone(1).await;
    rig.stop(0).await;
    let file = rig.seats[0].data.path().join("node.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let path = file.display().to_string();
    let foreign = ["is not a node's identity", "data_dir", &path];
    let cases = [
        (good[..good.len() / 2].to_owned(), &foreign),
        (String::new(), &foreign),
        ("{\"name\": \"somebody\"}".to_owned(), &foreign),
        (good.replace("\"node\": 1", "\"node\": 0"), &foreign),
        (good.replace("\"cluster\": \"", "\"cluster\": \"x"), &foreign),
        (good.replace("\"version\": 1", "\"version\": 2"), &["version 2", "upgrade this node", &path]),
    ];
    for (text, parts) in cases {
        assert_ne!(text, good);
        std::fs::write(&file, &text).unwrap();
        says(&refusal(&mut rig, 0).await, parts);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "nothing is written over it");
    }
    // A log that nobody is said to own.
    std::fs::remove_file(&file).unwrap();
    says(&refusal(&mut rig, 0).await, &["holds a log, but no node.json", "empty the directory"]);
    std::fs::write(&file, good).unwrap();
    rig.start_as(0, |cluster| cluster.size = 1).await.unwrap();
    rig.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_engine_or_of_nobody() {
    let mut rig = alone(1).await;
    rig.stop(0).await;
    let with_sled =
        rig.start_as(0, |cluster| (cluster.size, cluster.log_store) = (1, BackendKind::Sled)).await;
    says(
        &with_sled.unwrap_err().to_string(),
        &["written by fjall", "sled cannot read it", "set the log store to fjall"],
    );
    let marker = rig.seats[0].data.path().join("log/log-store");
    let good = std::fs::read_to_string(&marker).unwrap();
    for (text, parts) in [
        (good.replace("format 1", "format 2"), ["format is 2", "log"]),
        (good[..good.len() / 2].to_owned(), ["log-store", "log"]),
    ] {
        std::fs::write(&marker, text).unwrap();
        says(&refusal(&mut rig, 0).await, &parts);
    }
    std::fs::write(&marker, good).unwrap();
    rig.start_as(0, |cluster| cluster.size = 1).await.unwrap();
    rig.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_with_one_id() {
    let mut rig = alone(2).await;
    rig.stop(0).await;
    copy(rig.seats[0].data.path(), rig.seats[1].data.path());
    rig.start_as(0, |cluster| cluster.size = 1).await.unwrap();
    rig.wait_ready().await;
    let error = refusal(&mut rig, 1).await;
    says(&error, &["already runs at", &rig.peer_address(0), "empty data_dir"]);
    // The one that runs refuses its own id on the wire.
    let cluster = u128::from_str_radix(&rig.status(0).await.cluster_id, 16).unwrap().to_le_bytes();
    let message = [&[1], &cluster[..], &1u64.to_le_bytes(), &1u64.to_le_bytes(), &[0, 0]].concat();
    says(&say(&rig.peer_address(0), message).await, &["as well", "copied"]);
    // One process at a time in one directory.
    let data = rig.seats[0].data.path().to_owned();
    let nobody = vec![rig.peer_address(1)];
    let error = rig.start_as(1, |cluster| (cluster.data_dir, cluster.peers) = (data, nobody)).await;
    says(&error.unwrap_err().to_string(), &["another process"]);
}

/// Says something to a node, and hears its answer as far as it is text.
async fn say(address: &str, message: Vec<u8>) -> String {
    let transport = GrpcTransport::default();
    let answer = transport.call(address, Bytes::from(message), Duration::from_secs(10)).await;
    String::from_utf8_lossy(&answer.unwrap()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_newer_program_or_of_none() {
    let rig = alone(1).await;
    let address = rig.peer_address(0);
    says(&say(&address, vec![0, 2, 1, 2, 3]).await, &["version 2", "upgrade this node"]);
    says(&say(&address, [&[2][..], &[7; 40]].concat()).await, &["version 2", "upgrade this node"]);
    says(&say(&address, vec![0]).await, &["no message of a kvindex node"]);
    says(&say(&address, vec![0, 1, 0xc1]).await, &["cannot be read"]);
    says(&say(&address, Vec::new()).await, &["no message of a kvindex node"]);
    assert_eq!(rig.known(0).len(), 1, "and goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_address_that_is_taken() {
    let mut rig = alone(2).await;
    let taken = rig.peer_address(0).parse().unwrap();
    let error = rig.start_as(1, |cluster| cluster.peer_listen = Some(taken)).await.unwrap_err().to_string();
    says(&error, &[&rig.peer_address(0), "peer_listen", "is another kvindex running?"]);
}

#[test]
fn configurations_that_make_no_sense() {
    let with = |change: &dyn Fn(&mut RawConfig)| {
        let mut raw = RawConfig {
            cluster: RawCluster {
                peer_listen: Some("127.0.0.1:9591".into()),
                data_dir: Some("data".into()),
                ..RawCluster::default()
            },
            ..RawConfig::default()
        };
        change(&mut raw);
        Config::load(None, &raw).map(|loaded| loaded.config).map_err(|error| error.to_string())
    };
    let text = |text: &str| Some(text.to_owned());
    type Case<'a> = (&'a dyn Fn(&mut RawConfig), &'a [&'a str]);
    let cases: [Case<'_>; 24] = [
        (&|raw| raw.cluster.cluster_peers = text("a:1,b"), &["cluster_peers = b", "host:port"]),
        (
            &|raw| raw.cluster.cluster_peers = text("dns:peers"),
            &["cluster_peers = dns:peers", "dns:host:port"],
        ),
        (&|raw| raw.cluster.cluster_peers = text("a:0"), &["cluster_peers = a:0", "host:port"]),
        (&|raw| raw.cluster.peer_listen = text("9591"), &["peer_listen = 9591", "address:port"]),
        (&|raw| raw.cluster.advertise_peer = text("0.0.0.0:9591"), &["advertise_peer", "as others reach it"]),
        (&|raw| raw.cluster.advertise = text("[fe80::1]"), &["advertise = [fe80::1]", "link-local"]),
        (
            &|raw| {
                raw.cluster.peer_listen = text("[::]:9591");
                raw.cluster.advertise_peer = text("127.0.0.1:9591");
            },
            &["advertise_peer = 127.0.0.1:9591", "loopback"],
        ),
        (&|raw| raw.cluster.advertise = text("node 1"), &["advertise = node 1", "host name"]),
        (&|raw| raw.tls.tls_cert = text("c.pem"), &["tls_cert = c.pem", "needs tls_key"]),
        (&|raw| raw.tls.tls_key = text("k.pem"), &["tls_key = k.pem", "needs tls_cert"]),
        (&|raw| raw.tls.tls_client_ca = text("ca.pem"), &["tls_client_ca = ca.pem", "tls_cert and tls_key"]),
        (&|raw| raw.tls.tls_client_auth = text("optional"), &["tls_client_auth", "needs tls_client_ca"]),
        (&|raw| raw.tls.peer_tls_cert = text("c.pem"), &["peer_tls_cert = c.pem", "all of", "peer_tls_ca"]),
        (&|raw| raw.tls.peer_tls_name = text("peers"), &["peer_tls_name = peers", "all of", "peer_tls_key"]),
        (&|raw| raw.net.metrics_listen = text("metrics"), &["metrics_listen = metrics", "address:port"]),
        (&|raw| raw.net.max_connections = Some(0), &["max_connections = 0", "from 1 to"]),
        (&|raw| raw.discovery.ip_family = text("ipv5"), &["ip_family = ipv5", "any, ipv4, ipv6"]),
        (&|raw| raw.node.snapshot_path = text("index.kvx"), &["snapshot_path", "data_dir"]),
        (&|raw| raw.limits.max_index_bytes = Some(1 << 20), &["max_index_bytes", "from 16777216"]),
        (&|raw| raw.cluster.data_dir = None, &["data_dir", "log_store = memory"]),
        (&|raw| raw.cluster.peer_listen = None, &["data_dir = data", "needs peer_listen"]),
        (&|raw| raw.cluster.cluster_size = Some(10), &["cluster_size = 10", "from 1 to 9"]),
        (&|raw| raw.cluster.cluster_shards = Some(0), &["cluster_shards = 0", "from 1 to 256"]),
        (&|raw| raw.cluster.log_store = text("rocksdb"), &["log_store = rocksdb", "fjall"]),
    ];
    for (change, parts) in cases {
        says(&with(change).unwrap_err(), parts);
    }
    assert!(with(&|_| ()).unwrap().cluster.is_some());
    // A host alone is enough, and an own address where nobody says.
    let bare = with(&|raw| raw.cluster.advertise = text("node-1")).unwrap();
    assert_eq!(bare.cluster.unwrap().advertise.unwrap(), "node-1");
    assert!(with(&|raw| raw.cluster.peer_listen = text("[::]")).is_ok());
    let peers = with(&|raw| raw.cluster.cluster_peers = text("[FD00:0::7]:1, dns:peers:2")).unwrap();
    assert_eq!(peers.cluster.unwrap().peers, ["[fd00::7]:1", "dns:peers:2"]);
    let memory = with(&|raw| (raw.cluster.data_dir, raw.cluster.log_store) = (None, text("memory")));
    assert_eq!(memory.unwrap().cluster.unwrap().log_store, BackendKind::Memory);
}
