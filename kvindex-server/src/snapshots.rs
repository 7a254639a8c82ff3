//! The snapshot file of a node alone: read at the start, written now and then and at the end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{Config, SnapshotConfig};
use crate::node::{LoadError, Node, StoreError};

/// Loads the snapshot. A damaged one is put aside and the node starts empty: the index is a copy of what the
/// engines know, and a node that refuses to start helps nobody.
pub(crate) fn restore(node: &Node, snapshot: &SnapshotConfig, config: &Config) -> Result<(), LoadError> {
    let path = snapshot.path.as_path();
    match node.load_snapshot(path, config.index) {
        Ok(true) => {
            let stats = node.stats();
            tracing::info!(path = %path.display(), workers = stats.workers, entries = stats.entries, "restored");
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error @ LoadError::Damaged { .. }) => {
            let aside = put_aside(path);
            tracing::error!(%error, aside = %aside.display(), "starting empty");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn put_aside(path: &Path) -> PathBuf {
    let mut aside = OsString::from(path);
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!(%error, "the damaged snapshot could not be put aside");
    }
    aside
}

/// Writes snapshots now and then, while the configuration asks for it.
pub(crate) fn keep_writing(
    node: &Arc<Node>,
    mut config: watch::Receiver<Config>,
    mut stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut last = Instant::now();
        loop {
            let snapshot = config.borrow_and_update().snapshot.clone();
            let due = async {
                match snapshot.as_ref().and_then(|snapshot| snapshot.interval) {
                    // From the last one: settings may be taken more often than the interval comes round.
                    Some(interval) => tokio::time::sleep_until(last + interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => last = Instant::now(),
                Ok(()) = config.changed() => continue,
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            if let Some(snapshot) = snapshot
                && let Err(error) = store(Arc::clone(&node), snapshot).await
            {
                tracing::error!(%error, "the next attempt follows");
            }
        }
    })
}

/// Writes one now.
pub(crate) async fn store(node: Arc<Node>, snapshot: SnapshotConfig) -> Result<(), StoreError> {
    let path = snapshot.path.clone();
    let written = tokio::task::spawn_blocking(move || {
        let stored = node.store_snapshot(&snapshot.path);
        node.metrics().snapshot_written(stored.is_ok());
        stored
    });
    let written = written.await.unwrap_or_else(|error| {
        Err(StoreError { path: path.clone(), source: std::io::Error::other(error) })
    })?;
    tracing::info!(path = %path.display(), bytes = written, "snapshot written");
    Ok(())
}
