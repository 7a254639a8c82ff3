//! The log in sled: one tree for all shards, so that one flush serves all.
//!
//! sled 0.34's own flush ends in `sync_file_range`, which promises neither a file's new size nor that the disk's cache
//! was emptied, and values beyond 128 KiB go to files that it does not flush at all. So its own flush is followed by
//! `syncfs` on the directory, which covers all of them. Lost commits are found by their numbers, see `seal`.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use sled::{Db, IVec};
use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::ids::ShardId;
use super::backend::{BackendKind, Change, Durability, LogBackend, Mark, StoredShard};
use super::blocking::blocking;
use super::data_dir::DataDir;
use super::error::{LogError, comes_from_damage};
use super::keys;
use super::seal::Commits;
use super::sled_flush;

/// Recent entries are read from our own memory; sled would take a gigabyte.
const CACHE_BYTES: u64 = 32 << 20;

/// The log of a node's shards in a sled database.
pub struct SledBackend {
    inner: Arc<Inner>,
}

struct Inner {
    place: String,
    /// There until it is dropped.
    db: Option<Db>,
    /// On the file system to flush.
    folder: File,
    commits: Mutex<Commits>,
    /// Last, so that the directory is let go after the database.
    dir: Mutex<DataDir>,
}

impl fmt::Debug for SledBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SledBackend({})", self.inner.place)
    }
}

impl SledBackend {
    /// Opens the log in `folder`, or founds it. Blocks.
    ///
    /// # Errors
    /// When the folder is not such a log, is held by another process, or is damaged.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, LogError> {
        let dir = DataDir::take(folder, BackendKind::Sled, durability)?;
        let why = |error: &dyn fmt::Display| format!("sled cannot open this log: {error}");
        let broken = |error: &dyn fmt::Display| LogError::Broken { path: folder.to_owned(), why: why(error) };
        let refused =
            |error: &dyn fmt::Display| LogError::Directory { path: folder.to_owned(), why: why(error) };
        let failed = |error: ::sled::Error| if is_damage(&error) { broken(&error) } else { refused(&error) };
        let engine = dir.engine_folder();
        // Our own flush is the only one that counts; sled's timer would only disturb it.
        let config = ::sled::Config::new()
            .path(&engine)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .print_profile_on_drop(false);
        let db =
            open_engine(&config).map_err(|error| error.map_or_else(|| broken(&"it is damaged"), failed))?;
        let folder_file = File::open(&engine).map_err(|error| refused(&error))?;
        let commits = if dir.is_fresh() {
            Commits::found(folder)
        } else {
            let stored = db.get(Commits::KEY).map_err(failed)?;
            Commits::resume(folder, stored.as_deref())
        };
        let commits = commits.map_err(|why| broken(&why))?;
        let inner = Inner {
            place: folder.display().to_string(),
            dir: Mutex::new(dir),
            db: Some(db),
            folder: folder_file,
            commits: Mutex::new(commits),
        };
        inner.flush()?;
        inner.dir.lock().founded()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Bytes of the database's files.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn disk_bytes(&self) -> Result<u64, LogError> {
        self.inner.db()?.size_on_disk().map_err(|error| self.inner.failed("counting bytes", &error))
    }
}

/// Opens sled. Its threads let go of the file a moment after a database is dropped; other processes are kept out by
/// the lock of our directory, so waiting helps.
/// `Err(None)` is one of the panics that some damage makes of it.
fn open_engine(config: &::sled::Config) -> Result<Db, Option<::sled::Error>> {
    let mut tries = 200;
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| None)?;
        match opened {
            Ok(db) => return Ok(db),
            Err(error) if tries > 0 && error.to_string().contains("could not acquire lock") => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Some(error)),
        }
    }
}

fn is_damage(error: &::sled::Error) -> bool {
    match error {
        ::sled::Error::Corruption { .. } => true,
        ::sled::Error::Io(error) => comes_from_damage(error),
        _ => false,
    }
}

impl Inner {
    fn db(&self) -> Result<&Db, LogError> {
        self.db.as_ref().ok_or(LogError::Closed)
    }

    fn failed(&self, doing: &'static str, error: &dyn fmt::Display) -> LogError {
        LogError::Engine { doing, place: self.place.clone(), why: error.to_string() }
    }

    fn flush(&self) -> Result<(), LogError> {
        self.flush_engine()?;
        self.sync_folder()
    }

    /// To the operating system.
    fn flush_engine(&self) -> Result<(), LogError> {
        sled_flush::flush(self.db()?).map(drop).map_err(|error| self.failed("flushing the log", &error))
    }

    fn sync_folder(&self) -> Result<(), LogError> {
        rustix::fs::syncfs(&self.folder).map_err(|error| self.failed("flushing the log", &error))
    }

    fn commit(&self, changes: Vec<Change>, durable: bool) -> Result<(), LogError> {
        let failed = |error: ::sled::Error| self.failed("writing the log", &error);
        let mut commits = self.commits.lock();
        let number = commits.next().map_err(|error| self.failed("writing the log", &error))?;
        let db = self.db()?;
        for change in changes {
            Self::change(db, change).map_err(failed)?;
        }
        // Last: with it, all of the commit is there.
        db.insert(Commits::KEY, &number).map_err(failed)?;
        // Hands it to the operating system: without it a killed process would lose it.
        self.flush_engine()?;
        if durable {
            self.sync_folder()?;
            commits.all_flushed();
        }
        Ok(())
    }

    /// No batch of sled's: that takes the one lock that all databases of a process share.
    fn change(db: &Db, change: Change) -> ::sled::Result<()> {
        match change {
            Change::Append { shard, index, record } => {
                db.insert(keys::entry(shard, index), record.as_ref())?;
            }
            // Backwards, so that a crash in between leaves no hole.
            Change::Remove { shard, first, last } => {
                for index in (first..=last).rev() {
                    db.remove(keys::entry(shard, index))?;
                }
            }
            Change::Mark { shard, mark, record } => {
                db.insert(keys::mark(shard, mark), record.as_ref())?;
            }
        }
        Ok(())
    }

    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Bytes)>, LogError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for item in self.db()?.range(keys::entry(shard, first)..=keys::entry(shard, last)) {
            let (key, record) = item.map_err(|error| self.failed("reading the log", &error))?;
            bytes += record.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((self.index(&key)?, Bytes::copy_from_slice(&record)));
        }
        Ok(found)
    }

    fn index(&self, key: &[u8]) -> Result<u64, LogError> {
        keys::index(key).ok_or_else(|| self.failed("reading the log", &"a key is none of an entry"))
    }

    fn shard(&self, shard: ShardId) -> Result<StoredShard, LogError> {
        let failed = |error: ::sled::Error| self.failed("reading the log", &error);
        let mut entries = self.db()?.range(keys::entry(shard, 0)..=keys::entry(shard, u64::MAX));
        let index = |item: Option<::sled::Result<(IVec, IVec)>>| match item {
            Some(item) => self.index(&item.map_err(failed)?.0).map(Some),
            None => Ok(None),
        };
        let first = index(entries.next())?;
        let last = index(entries.next_back())?.or(first);
        let mut stored = StoredShard { first, last, ..StoredShard::default() };
        for mark in Mark::ALL {
            let value = self.db()?.get(keys::mark(shard, mark)).map_err(failed)?;
            *stored.mark_mut(mark) = value.map(|value| Bytes::copy_from_slice(&value));
        }
        Ok(stored)
    }

    fn close(&self) -> Result<(), LogError> {
        self.flush()?;
        self.commits.lock().close().map_err(|error| self.failed("closing the log", &error))?;
        self.dir.lock().close()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            sled_flush::close(db);
        }
    }
}

impl LogBackend for SledBackend {
    fn commit(&self, changes: Vec<Change>, durable: bool) -> BoxFuture<'_, Result<(), LogError>> {
        let inner = self.inner.clone();
        blocking(self.place(), "writing the log", move || inner.commit(changes, durable)).boxed()
    }

    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, Bytes)>, LogError>> {
        let inner = self.inner.clone();
        blocking(self.place(), "reading the log", move || inner.read(shard, first, last, max_bytes)).boxed()
    }

    fn shard(&self, shard: ShardId) -> BoxFuture<'_, Result<StoredShard, LogError>> {
        let inner = self.inner.clone();
        blocking(self.place(), "reading the log", move || inner.shard(shard)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        let inner = self.inner.clone();
        blocking(self.place(), "closing the log", move || inner.close()).boxed()
    }

    fn tail_may_be_gone(&self) -> bool {
        self.inner.dir.lock().tail_may_be_gone()
    }

    fn accept_tail(&self) -> Result<(), LogError> {
        self.inner.dir.lock().accept_tail()
    }

    fn place(&self) -> String {
        self.inner.place.clone()
    }
}
