//! Messages that do not belong here.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvindex_core::replication::{
    ClusterId, Identity, NodeId, Replica, Settings, SnapshotMemory, Surroundings, Transport, TransportError,
    log_store::{Durability, LogStore, MemoryBackend},
};
use std::sync::Arc;
use std::time::Duration;

use super::machine::Counting;

/// Hands every request to one replica, whatever the address.
#[derive(Debug)]
struct Misled {
    to: Arc<Replica>,
    refusals: parking_lot::Mutex<Vec<String>>,
}

impl Transport for Misled {
    fn call<'a>(
        &'a self,
        _: &'a str,
        request: Bytes,
        _: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        async move {
            let answer = self.to.handle(&request).await;
            if answer.get(1) == Some(&1) {
                self.refusals.lock().push(String::from_utf8_lossy(&answer[2..]).into_owned());
            }
            Ok(answer)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct Nowhere;

impl Transport for Nowhere {
    fn call<'a>(
        &'a self,
        address: &'a str,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let error = TransportError::Unreachable { address: address.into(), reason: "no network".into() };
        futures_util::future::ready(Err(error)).boxed()
    }
}

async fn replica(identity: Identity, transport: Arc<dyn Transport>) -> Arc<Replica> {
    let surroundings = Surroundings {
        logs: LogStore::start(Arc::new(MemoryBackend::default()), Durability::Fsync),
        snapshots: Arc::new(SnapshotMemory::default()),
        machine: Arc::new(Counting::default()),
        transport,
    };
    Arc::new(Replica::start(identity, Settings::default(), surroundings).await.unwrap())
}

/// What a node hears that founds a cluster of itself and node 2, where another node answers instead.
async fn refusal(caller: Identity, answering: Identity) -> String {
    let to = replica(answering, Arc::new(Nowhere)).await;
    let misled = Arc::new(Misled { to, refusals: parking_lot::Mutex::default() });
    let replica = replica(caller, Arc::clone(&misled) as _).await;
    let voters = [caller.node, NodeId(2)].map(|node| (node, super::rig::address(node.0))).into();
    replica.found(&voters).await.unwrap();
    for _ in 0..500 {
        if let Some(refusal) = misled.refusals.lock().first() {
            return refusal.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was refused");
}

#[tokio::test]
async fn another_cluster_another_node_and_a_copied_one_are_refused_with_what_to_do() {
    let caller = Identity { cluster: ClusterId(1), node: NodeId(1), shards: 2 };
    let other = Identity { cluster: ClusterId(2), node: NodeId(2), shards: 2 };
    let text = refusal(caller, other).await;
    assert!(text.contains("belongs to cluster") && text.contains("empty its data directory"), "{text}");
    let text = refusal(caller, Identity { node: NodeId(3), ..caller }).await;
    assert!(text.contains("this is node 3, the caller wants node 2"), "{text}");
    let text = refusal(Identity { shards: 8, ..caller }, Identity { node: NodeId(2), ..caller }).await;
    assert!(text.contains("this node has 2 shards"), "{text}");
}

#[tokio::test]
async fn garbage_and_newer_messages_are_refused() {
    let identity = Identity { cluster: ClusterId(1), node: NodeId(1), shards: 1 };
    let replica = replica(identity, Arc::new(Nowhere)).await;
    let refused = async |bytes: &[u8]| String::from_utf8_lossy(&replica.handle(bytes).await).into_owned();
    assert!(refused(b"").await.contains("no message of a kvindex node"));
    assert!(refused(&[1; 20]).await.contains("no message of a kvindex node"));
    assert!(refused(&[9; 200]).await.contains("of version 9"));
}
