//! The snapshot file: written at shutdown, restored at start, never half written, never trusted when damaged.

use kvindex_proto::v1;
use kvindex_server::config::{Config, SnapshotConfig};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api_server::{Server, batch, blocks, config, prompt, removed, stored, tokens, worker};

/// A folder of its own for a test, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvindex-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("node.snapshot")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn with_file(path: &Path, interval: Option<Duration>) -> Config {
    config(|c| c.snapshot = Some(SnapshotConfig { path: path.into(), interval }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_gives_equal_answers() {
    let folder = Folder::new("restart");
    let mut server = Server::with(with_file(&folder.file(), None)).await;
    server.register("a").await;
    let subscribed = v1::RegisterRequest { endpoint: "tcp://127.0.0.1:1".into(), ..worker("b") };
    server.register_as(subscribed.clone()).await;
    server.push("a", 0, vec![stored(3), v1::PublishEvent { medium: "CPU".into(), ..stored(2) }]).await;
    server.push("a", 1, vec![removed(&[102])]).await;
    let (before, digest) = (server.find(prompt(tokens(48))).await, server.running.node().digest());
    let Server { running, query, ingest } = server;
    drop((query, ingest));
    running.shutdown().await.unwrap();

    let mut server = Server::with(with_file(&folder.file(), None)).await;
    assert_eq!(server.running.node().digest(), digest);
    assert_eq!(server.find(prompt(tokens(48))).await.workers, before.workers);
    let again = server.ingest.register(subscribed).await.unwrap().into_inner();
    assert_eq!(again.outcome, "unchanged", "definitions survive, endpoints included");
    let duplicate = server.ingest.publish(batch("a", 1, 1, vec![stored(1)])).await.unwrap().into_inner();
    assert!(duplicate.duplicate);
    server.push("a", 2, vec![removed(&[100, 101])]).await;
    assert_eq!(
        blocks(&server.find(prompt(tokens(48))).await)[0],
        ("a", 2),
        "the copies on host memory are left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn static_workers_that_left_the_file_are_forgotten() {
    let folder = Folder::new("static");
    let definition = kvindex_server::RawWorker {
        worker_id: "old".into(),
        model: "llama".into(),
        ..kvindex_server::RawWorker::default()
    };
    let definition = definition.check(kvindex_core::GapPolicy::Purge).unwrap();
    let mut first = with_file(&folder.file(), None);
    first.workers = vec![definition];
    let mut server = Server::with(first).await;
    server.register("new").await;
    let Server { running, query, ingest } = server;
    drop((query, ingest));
    running.shutdown().await.unwrap();
    let server = Server::with(with_file(&folder.file(), None)).await;
    let known = server.running.node().known_workers();
    assert_eq!(known.iter().map(|w| w.definition.spec.id.as_str()).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_put_aside() {
    let folder = Folder::new("damaged");
    let mut server = Server::with(with_file(&folder.file(), None)).await;
    server.register("a").await;
    let Server { running, query, ingest } = server;
    drop((query, ingest));
    running.shutdown().await.unwrap();
    let good = std::fs::read(folder.file()).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [flipped, good[..good.len() - 1].to_vec(), Vec::new(), b"something else entirely".to_vec()] {
        std::fs::write(folder.file(), &bad).unwrap();
        let server = Server::with(with_file(&folder.file(), None)).await;
        assert!(server.running.node().known_workers().is_empty());
        assert_eq!(std::fs::read(folder.0.join("node.snapshot.damaged")).unwrap(), bad);
        assert!(!folder.file().exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_written_now_and_then() {
    let folder = Folder::new("timer");
    let mut server = Server::with(with_file(&folder.file(), Some(Duration::from_millis(50)))).await;
    server.register("a").await;
    for _ in 0..200 {
        if folder.file().exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no snapshot after 4 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_snapshot_is_an_error_at_shutdown() {
    let folder = Folder::new("unwritable");
    let path = folder.0.join("missing").join("node.snapshot");
    let server = Server::with(with_file(&path, None)).await;
    let Server { running, query, ingest } = server;
    drop((query, ingest));
    let error = running.shutdown().await.unwrap_err().to_string();
    assert!(error.contains("node.snapshot"), "{error}");
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Golden bytes: what the node writes is read again and written byte for byte. Set `KVINDEX_WRITE_GOLDEN=1` to
/// make the file anew when the index's own snapshot has a new version.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_read_and_written_unchanged() {
    let golden = golden("node-snapshot-v1-index-v5.bin");
    let folder = Folder::new("golden");
    if std::env::var_os("KVINDEX_WRITE_GOLDEN").is_some() {
        let mut server = Server::start().await;
        server.register("a").await;
        let subscribed = v1::RegisterRequest { endpoint: "tcp://127.0.0.1:1".into(), ..worker("b") };
        server.register_as(subscribed).await;
        server.push("a", 0, vec![stored(3)]).await;
        server.running.node().store_snapshot(&golden).unwrap();
    }
    std::fs::copy(&golden, folder.file()).unwrap();
    let mut server = Server::with(with_file(&folder.file(), None)).await;
    assert_eq!(blocks(&server.find(prompt(tokens(48))).await)[0], ("a", 3));
    let again = folder.0.join("again");
    server.running.node().store_snapshot(&again).unwrap();
    assert!(std::fs::read(again).unwrap() == std::fs::read(golden).unwrap(), "the layout changed");
}

/// Files with an index of an earlier version in them are still read.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_versions_before_are_read() {
    for file in [
        "node-snapshot-v1.bin",
        "node-snapshot-v1-index-v2.bin",
        "node-snapshot-v1-index-v3.bin",
        "node-snapshot-v1-index-v4.bin",
    ] {
        let folder = Folder::new(file);
        std::fs::copy(golden(file), folder.file()).unwrap();
        let mut server = Server::with(with_file(&folder.file(), None)).await;
        assert_eq!(blocks(&server.find(prompt(tokens(48))).await)[0], ("a", 3));
        let known = server.running.node().known_workers();
        assert_eq!(known.iter().map(|w| w.definition.spec.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_taken_again_and_again_put_no_snapshot_off() {
    let folder = Folder::new("taken");
    let mut now = with_file(&folder.file(), Some(Duration::from_secs(1)));
    let server = Server::with(now.clone()).await;
    for round in 0..25 {
        now.drain = Duration::from_secs(5 + round);
        let (key, value, origin) = ("drain_s", (5 + round).to_string(), "test".into());
        server.running.live_config().take(&now, &[kvindex_server::config::Setting { key, value, origin }]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(folder.file().exists(), "2.5 s, and an interval of one");
    server.running.shutdown().await.unwrap();
}
