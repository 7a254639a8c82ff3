//! Where a shard's latest snapshot is kept. Snapshots are plain files, replaced whole.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::ids::ShardId;

/// Keeps one snapshot a shard.
pub trait SnapshotStore: Debug + Send + Sync + 'static {
    /// Puts a snapshot in the place of the one before; durable once this is through.
    fn save(&self, shard: ShardId, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// The latest one.
    fn load(&self, shard: ShardId) -> BoxFuture<'_, io::Result<Option<Bytes>>>;
}

/// Snapshots as files `shard-N.snapshot` in one folder.
#[derive(Debug, Clone)]
pub struct SnapshotFolder {
    folder: PathBuf,
}

impl SnapshotFolder {
    /// Keeps them in `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The file of a shard's snapshot.
    #[must_use]
    pub fn file(&self, shard: ShardId) -> PathBuf {
        self.folder.join(format!("shard-{}.snapshot", shard.0))
    }
}

impl SnapshotStore for SnapshotFolder {
    fn save(&self, shard: ShardId, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        let path = self.file(shard);
        blocking(move || replace(&path, &bytes)).boxed()
    }

    fn load(&self, shard: ShardId) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        let path = self.file(shard);
        blocking(move || match fs::read(path) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .boxed()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("snapshot.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename itself is durable only once the folder is.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Snapshots in memory: for nodes that keep nothing, and for tests.
#[derive(Debug, Default)]
pub struct SnapshotMemory {
    kept: Mutex<BTreeMap<ShardId, Bytes>>,
}

impl SnapshotStore for SnapshotMemory {
    fn save(&self, shard: ShardId, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(shard, bytes);
        }
        futures_util::future::ready(Ok(())).boxed()
    }

    fn load(&self, shard: ShardId) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        let kept = self.kept.lock().ok().and_then(|kept| kept.get(&shard).cloned());
        futures_util::future::ready(Ok(kept)).boxed()
    }
}
