//! A cluster whose nodes show each other certificates, and those who have none.

use std::time::Duration;

use bytes::Bytes;
use kvindex_core::replication::Transport;
use kvindex_server::cluster::GrpcTransport;
use kvindex_server::config::{PeerTlsConfig, TlsConfig};
use kvindex_server::net::{Files, Named};

use crate::api_server::{self, batch, stored, worker};
use crate::certificates::{Authority, Files as Folder};
use crate::cluster_rig::Rig;

fn tls(folder: &Folder, name: Option<&str>) -> TlsConfig {
    let named = |key, file| Named::new(key, folder.path(file));
    let files = Files {
        cert: named("peer_tls_cert", "cert.pem"),
        key: named("peer_tls_key", "key.pem"),
        ca: Some(named("peer_tls_ca", "ca.pem")),
    };
    TlsConfig { peer: Some(PeerTlsConfig { files, name: name.map(str::to_owned) }), public: None }
}

/// A batch that one node takes must be on all.
async fn works(rig: &mut Rig, id: &str) {
    let node = rig.node(1);
    node.ingest.register(worker(id)).await.unwrap();
    node.ingest.publish(batch(id, 1, 0, vec![stored(3)])).await.unwrap();
    rig.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_form_a_cluster_that_others_cannot_enter() {
    let (ca, other) = (Authority::new("peers"), Authority::new("other"));
    let folder = Folder::of(&ca.sign(&["peers.test"]), &ca);
    let mut rig = Rig::of(4);
    rig.tls = tls(&folder, Some("peers.test"));
    for seat in 0..3 {
        rig.start(seat).await;
    }
    rig.wait_ready().await;
    works(&mut rig, "w-1").await;

    // Without encryption, and with another CA's certificate: nobody answers, and the cluster stays as it is.
    let address = rig.peer_address(0);
    let ask = GrpcTransport::default();
    // A connection that ends before the call is on it tells no reason.
    for attempt in 1.. {
        let error = ask.call(&address, Bytes::from_static(b"x"), Duration::from_secs(5)).await.unwrap_err();
        if error.to_string().contains("speaks TLS there: set peer_tls_cert") {
            break;
        }
        let ended = ["connection closed", "connection was not ready"];
        assert!(ended.iter().any(|end| error.to_string().contains(end)) && attempt < 20, "{error}");
    }
    let foreign = Folder::of(&other.sign(&["peers.test"]), &ca);
    rig.tls = tls(&foreign, Some("peers.test"));
    rig.start(3).await;
    // The same CA, but not a node's name: a client of the public port.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((rig.id(3), rig.known(0).len()), (0, 3), "a stranger is no member");
    rig.stop(3).await;
    let client = Folder::of(&ca.sign(&["router.test"]), &ca);
    rig.tls = tls(&client, Some("peers.test"));
    rig.start(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((rig.id(3), rig.known(0).len()), (0, 3), "a client is no member");
    rig.stop(3).await;
    works(&mut rig, "w-2").await;

    // The same seat with a certificate of the cluster.
    rig.tls = tls(&folder, Some("peers.test"));
    rig.start(3).await;
    rig.wait("the fourth node", |rig| rig.id(3) > 0 && rig.known(0).len() == 4).await;
    rig.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_while_its_certificates_change() {
    let ca = Authority::new("peers");
    let folder = Folder::of(&ca.sign(&["127.0.0.1"]), &ca);
    let mut rig = Rig::of(3);
    rig.tls = tls(&folder, None);
    rig.start_all(|_| ()).await;
    rig.wait_ready().await;
    works(&mut rig, "w-1").await;
    folder.put(&ca.sign(&["127.0.0.1"]));
    // Longer than the nodes take to look.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    works(&mut rig, "w-2").await;
    let (_, metrics) = rig.node(0).http("GET", "/metrics", "").await;
    let taken = "kvindex_tls_reloads_total{door=\"peer\",result=\"taken\"} 1";
    assert!(metrics.contains(taken), "{metrics}");
    assert!(
        metrics.contains("kvindex_tls_certificate_expiry_seconds{door=\"peer\"} 4070908800"),
        "{metrics}"
    );
    // A node that comes back makes all its connections anew, with the new certificate.
    rig.stop(2).await;
    rig.start(2).await;
    rig.wait_ready().await;
    works(&mut rig, "w-3").await;
    rig.stop_all().await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_stop_the_start() {
    let ca = Authority::new("peers");
    let folder = Folder::of(&ca.sign_until(&["127.0.0.1"], (2021, 1, 1)), &ca);
    let mut rig = Rig::of(1);
    rig.tls = tls(&folder, None);
    let error = rig.start_as(0, |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("peer_tls_cert") && error.contains("expired on"), "{error}");
    let _ = api_server::BLOCK;
}
