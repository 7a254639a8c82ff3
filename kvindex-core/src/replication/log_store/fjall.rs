//! The log in fjall: entries in one tree a shard, marks in another.

use bytes::Bytes;
use fjall::config::{CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::super::ids::ShardId;
use super::backend::{BackendKind, Change, Durability, LogBackend, Mark, StoredShard};
use super::blocking::blocking;
use super::data_dir::DataDir;
use super::error::{LogError, comes_from_damage};
use super::fjall_journal::{self, JournalError};
use super::keys;
use super::seal::Commits;

/// Bytes of a shard's newest entries in memory before they go to a table. All shards together hold this much each.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Bytes of journal files after which quiet shards' tables are written too, so that old files can go.
const JOURNAL_BYTES: u64 = 192 << 20;
/// Recent entries are read from our own memory, and old ones once, in order: there is little to cache.
const CACHE_BYTES: u64 = 8 << 20;

/// The log of a node's shards in a fjall database.
pub struct FjallBackend {
    inner: Arc<Inner>,
}

struct Inner {
    place: String,
    db: Database,
    marks: Keyspace,
    commits: Mutex<Commits>,
    logs: Mutex<BTreeMap<ShardId, Keyspace>>,
    /// Last, so that the directory is let go after the database.
    dir: Mutex<DataDir>,
}

impl fmt::Debug for FjallBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FjallBackend({})", self.inner.place)
    }
}

impl FjallBackend {
    /// Opens the log in `folder`, or founds it. Blocks: a long journal takes seconds to read.
    ///
    /// # Errors
    /// When the folder is not such a log, is held by another process, or is damaged.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, LogError> {
        let mut dir = DataDir::take(folder, BackendKind::Fjall, durability)?;
        let refused = |why: String| LogError::Directory { path: folder.to_owned(), why };
        let broken = |why: String| LogError::Broken { path: folder.to_owned(), why };
        fjall_journal::check(&dir.engine_folder()).map_err(|error| match error {
            JournalError::Io(error) => refused(format!("the journal cannot be read: {error}")),
            JournalError::Damaged { file, offset } => broken(format!(
                "{} is damaged at byte {offset}, before entries that are sound",
                file.display()
            )),
        })?;
        let engine_failed = |error: fjall::Error| {
            let why = format!("fjall cannot open this log: {error}");
            if is_damage(&error) { broken(why) } else { refused(why) }
        };
        let db = Database::builder(dir.engine_folder())
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .journal_compression(fjall::CompressionType::None)
            .worker_threads(2)
            .open()
            .map_err(engine_failed)?;
        let marks = db.keyspace("marks", options).map_err(engine_failed)?;
        let commits = if dir.is_fresh() {
            Commits::found(folder)
        } else {
            let stored = marks.get(Commits::KEY).map_err(engine_failed)?;
            Commits::resume(folder, stored.as_deref())
        };
        let commits = Mutex::new(commits.map_err(broken)?);
        db.persist(PersistMode::SyncData).map_err(engine_failed)?;
        dir.founded()?;
        let inner = Inner {
            place: folder.display().to_string(),
            dir: Mutex::new(dir),
            db,
            marks,
            commits,
            logs: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Bytes of the database's files.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn disk_bytes(&self) -> Result<u64, LogError> {
        self.inner.db.disk_space().map_err(|error| self.inner.failed("counting bytes", &error))
    }
}

fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            comes_from_damage(error)
        }
        fjall::Error::Locked | fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => false,
        _ => true,
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        // Hashes do not compress.
        .data_block_compression_policy(CompressionPolicy::disabled())
        // Entries are read in order, never looked up where they might not be.
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::None))
}

impl Inner {
    fn failed(&self, doing: &'static str, error: &dyn fmt::Display) -> LogError {
        LogError::Engine { doing, place: self.place.clone(), why: error.to_string() }
    }

    /// The tree of a shard's entries.
    fn log(&self, shard: ShardId) -> Result<Keyspace, LogError> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&shard) {
            return Ok(log.clone());
        }
        let log = self.db.keyspace(&format!("shard-{}", shard.0), options);
        let log = log.map_err(|error| self.failed("making a shard's log", &error))?;
        logs.insert(shard, log.clone());
        Ok(log)
    }

    fn commit(&self, changes: Vec<Change>, durable: bool) -> Result<(), LogError> {
        let failed = |error: fjall::Error| self.failed("writing the log", &error);
        let mut commits = self.commits.lock();
        let mode = if durable { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        let number = commits.next().map_err(|error| self.failed("writing the log", &error))?;
        batch.insert(&self.marks, Commits::KEY, number);
        for change in changes {
            match change {
                Change::Append { shard, index, record } => {
                    batch.insert(&self.log(shard)?, index.to_be_bytes(), record.as_ref());
                }
                Change::Remove { shard, first, last } => {
                    let log = self.log(shard)?;
                    (first..=last).for_each(|index| batch.remove(&log, index.to_be_bytes()));
                }
                Change::Mark { shard, mark, record } => {
                    batch.insert(&self.marks, keys::mark(shard, mark), record.as_ref());
                }
            }
        }
        batch.commit().map_err(failed)?;
        if durable {
            commits.all_flushed();
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
        for item in self.log(shard)?.range(first.to_be_bytes()..=last.to_be_bytes()) {
            let (key, record) = item.into_inner().map_err(|error| self.failed("reading the log", &error))?;
            bytes += record.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((self.index(&key)?, Bytes::copy_from_slice(&record)));
        }
        Ok(found)
    }

    fn index(&self, key: &[u8]) -> Result<u64, LogError> {
        let index = key.try_into().map(u64::from_be_bytes);
        index.map_err(|_| self.failed("reading the log", &format!("a key has {} bytes", key.len())))
    }

    fn shard(&self, shard: ShardId) -> Result<StoredShard, LogError> {
        let failed = |error: fjall::Error| self.failed("reading the log", &error);
        let log = self.log(shard)?;
        let index = |item: Option<fjall::Guard>| match item {
            Some(item) => self.index(&item.key().map_err(failed)?).map(Some),
            None => Ok(None),
        };
        let mut stored = StoredShard {
            first: index(log.first_key_value())?,
            last: index(log.last_key_value())?,
            ..StoredShard::default()
        };
        for mark in Mark::ALL {
            let value = self.marks.get(keys::mark(shard, mark)).map_err(failed)?;
            *stored.mark_mut(mark) = value.map(|value| Bytes::copy_from_slice(&value));
        }
        Ok(stored)
    }

    fn close(&self) -> Result<(), LogError> {
        self.db.persist(PersistMode::SyncAll).map_err(|error| self.failed("closing the log", &error))?;
        self.commits.lock().close().map_err(|error| self.failed("closing the log", &error))?;
        self.dir.lock().close()
    }
}

impl LogBackend for FjallBackend {
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
