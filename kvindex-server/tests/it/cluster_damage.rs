//! A node whose data are not what it wrote puts them aside and begins anew; what may pass leaves them where they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvindex_core::replication::{Identity, ShardId};
use kvindex_server::config::ClusterConfig;
use kvindex_server::{App, Running, StartError};
use tokio::net::TcpListener;

use crate::api_server::config;

/// A data directory of this test, gone at its end.
struct Data(PathBuf);

impl Data {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("damage-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// A cluster of this one node.
    async fn try_start(&self) -> Result<Running, StartError> {
        let config = config(|config| {
            config.cluster = Some(ClusterConfig {
                peer_listen: Some("127.0.0.1:0".parse().unwrap()),
                size: 1,
                shards: Some(2),
                data_dir: self.0.clone(),
                ..ClusterConfig::default()
            });
        });
        App::start(config, TcpListener::bind("127.0.0.1:0").await.unwrap()).await
    }

    async fn start(&self) -> (Running, Identity) {
        let running = self.try_start().await.unwrap();
        let cluster = running.cluster().unwrap();
        tokio::time::timeout(Duration::from_secs(20), cluster.until_joined()).await.unwrap();
        let identity = cluster.replica().unwrap().identity();
        until("the node leads", || cluster.status().iter().all(|shard| shard.lag.age.is_some())).await;
        (running, identity)
    }

    /// Ends a node, and waits until nothing of it holds the files any more, as when a process has ended.
    async fn stop(&self, running: Running) {
        running.shutdown().await.unwrap();
        let lock = fs::File::open(self.0.join("log/lock")).unwrap();
        until("the log is free", || lock.try_lock().is_ok()).await;
    }

    fn aside(&self) -> PathBuf {
        self.0.join("aside-1")
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Changes a byte in the middle of what a file holds before its zeros.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// Runs a node, does something to what it left, and runs it again: it must have become another node.
async fn begins_anew_after(data: &Data, damage: impl FnOnce(&Path)) {
    let (running, before) = data.start().await;
    running.cluster().unwrap().replica().unwrap().snapshot(ShardId(1)).await.unwrap();
    let snapshot = data.0.join("snapshots/shard-1.snapshot");
    until("there is a snapshot", || snapshot.exists()).await;
    data.stop(running).await;
    damage(&data.0);
    let (running, after) = data.start().await;
    assert_ne!(before, after);
    assert!(data.aside().join("node.json").exists());
    assert!(data.aside().join("snapshots/shard-1.snapshot").exists());
    data.stop(running).await;
    // And only once.
    let (running, again) = data.start().await;
    assert_eq!(after, again);
    assert!(!data.0.join("aside-2").exists());
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_put_aside() {
    let data = Data::new("log");
    begins_anew_after(&data, |data| flip(&data.join("log/fjall/0.jnl"))).await;
    assert!(data.aside().join("log/fjall").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_put_aside() {
    let data = Data::new("snapshot");
    begins_anew_after(&data, |data| flip(&data.join("snapshots/shard-1.snapshot"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_else_holds_stays_where_it_is() {
    let data = Data::new("held");
    let (running, before) = data.start().await;
    let refused = data.try_start().await.unwrap_err().to_string();
    assert!(refused.contains("another process has this log open"), "{refused}");
    assert!(!data.aside().exists());
    data.stop(running).await;
    let (running, after) = data.start().await;
    assert_eq!(before, after);
    running.shutdown().await.unwrap();
}
