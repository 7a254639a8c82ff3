//! One node: the index behind its lock, the workers that are known, and those who watch. Everything that
//! happens to the index happens here, in the order the write lock gives.

mod block_sizes;
mod cap;
mod change;
mod engines;
mod feed;
mod groups;
mod hot;
mod publish;
mod query;
mod registry;
mod shares;
mod snapshot;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use kvindex_core::{
    Command, Index, IndexLimits, IndexStats, Outcome, Scratch, StreamId, StreamStamp, Usage, WorkerId,
};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::trust::Link;
pub use feed::{FeedEvent, FeedKind, Watcher};
pub use groups::GroupBest;
pub use hot::{HotPrefix, HotTenant};
pub use publish::{Content, Publication, PublishError, Published};
pub use query::{Explained, Found, ListedStream, ListedWorker, TrustedMatch};
pub use registry::{KnownWorker, Origin, RegisterError, Registered};
pub use snapshot::{LoadError, StoreError};

pub use change::{ChangeAnswer, WorkerChange};

use cap::Cap;
use engines::Engines;
use feed::Feed;
use hot::Hot;
use registry::Registry;

/// A node. Shared by reference between the API, ingest and timers.
#[derive(Debug)]
pub struct Node {
    index: RwLock<Index>,
    registry: RwLock<Registry>,
    /// Held while a worker becomes known or is forgotten, so that queries never wait for engines.
    steering: Mutex<()>,
    feed: Feed,
    metrics: Metrics,
    engines: Engines,
    /// Buffers that queries hand on, so that a query allocates little.
    scratches: Mutex<Vec<Scratch>>,
    hot: Hot,
    max_workers: usize,
    cap: Cap,
    /// `None` for a node alone.
    cluster: OnceLock<Box<dyn Freshness>>,
}

/// What a node has to know of its cluster to stamp answers.
pub(crate) trait Freshness: std::fmt::Debug + Send + Sync {
    /// Whether this node hears what the shard of this stream agrees on no more, or not yet.
    fn is_cut_off(&self, stream: &StreamId) -> bool;

    /// Whether this node listens to the engines while another one takes their events in.
    fn hears_engines(&self) -> bool;
}

impl Node {
    /// An empty node.
    #[must_use]
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        Self {
            index: RwLock::new(Index::new(index_limits(config))),
            registry: RwLock::default(),
            steering: Mutex::default(),
            feed: Feed::new(config.limits.watch_buffer),
            metrics,
            engines: Engines::default(),
            scratches: Mutex::default(),
            hot: Hot::default(),
            max_workers: config.limits.workers,
            cap: Cap::new(config),
            cluster: OnceLock::new(),
        }
    }

    /// Applies commands in order. Between two commands waiting queries go first, so that a long list never
    /// holds them up.
    pub fn apply(&self, commands: &[Command]) -> Outcome {
        let mut total = Outcome::default();
        for command in commands {
            let mut index = self.index.write();
            total += self.apply_locked(&mut index, command);
            RwLockWriteGuard::unlock_fair(index);
        }
        self.keep_below_cap();
        total
    }

    /// Applies one command while the caller holds the write lock, so that what it read before still holds.
    fn apply_locked(&self, index: &mut Index, command: &Command) -> Outcome {
        let outcome = if self.feed.is_watched() {
            let mut collected = self.feed.collect(index, command);
            let outcome = index.apply_noticed(command, &mut |notice| collected.note(notice));
            // Sent under the lock: watchers see changes in the order in which they were made.
            self.feed.send(collected);
            outcome
        } else {
            index.apply(command)
        };
        self.metrics.applied(&outcome);
        if let Command::Forget(blocks) = command
            && outcome.evicted > 0
            && let Some(worker) = index.reader().worker(&blocks.stream.worker)
        {
            self.metrics.evicted(&worker.tenant, outcome.evicted);
        }
        outcome
    }

    /// Lets something look at the index as it is; nothing is applied meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.index.read())
    }

    /// Puts a bug in: from now on a batch that comes again is applied again.
    #[cfg(feature = "mutations")]
    pub fn apply_again(&self) {
        self.index.write().applies_again = true;
    }

    /// Where a stream stands; `None` when nothing was ever applied for it.
    #[must_use]
    pub fn stream_stamp(&self, stream: &StreamId) -> Option<StreamStamp> {
        self.index.read().reader().stream(stream)
    }

    /// (Block, owner) entries of the index.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.index.read().reader().entry_count()
    }

    /// Sizes of the index.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        self.index.read().stats()
    }

    /// What the index occupies, and whose it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.index.read().reader().usage()
    }

    /// Digest of the index's content.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.index.read().digest()
    }

    /// Digest of what the index holds of some workers: equal on nodes that applied the same commands of them.
    #[must_use]
    pub fn digest_of(&self, keep: impl Fn(&WorkerId) -> bool) -> u64 {
        self.index.read().reader().digest_of(keep)
    }

    /// Follows changes from now on. The watcher ends when the node does.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        self.feed.watch()
    }

    /// The same of some tenants only; `None` for all.
    pub(crate) fn watch_tenants<'a>(&self, tenants: Option<impl Iterator<Item = &'a str>>) -> Watcher {
        match tenants {
            None => self.feed.watch(),
            Some(tenants) => self.feed.watch_tenants(tenants),
        }
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What ingest knows of a stream. A stream without a source is pushed; one whose source ingest does not
    /// know (yet) is not connected.
    fn link(&self, stream: &StreamId) -> Link {
        let taken_in_elsewhere = self.cluster.get().is_some_and(|cluster| !cluster.hears_engines());
        let link = match self.engines.link(stream) {
            Some(link) => link,
            None if self.registry.read().has_source(stream) && !taken_in_elsewhere => Link::default(),
            None => Link::PUSHED,
        };
        let cut_off = self.cluster.get().is_some_and(|cluster| cluster.is_cut_off(stream));
        Link { cut_off, ..link }
    }

    /// Lets a cluster say how fresh what it replicates is.
    pub(crate) fn belong_to(&self, cluster: Box<dyn Freshness>) {
        // A node belongs to one cluster at most.
        let _ = self.cluster.set(cluster);
    }
}

/// A cluster's nodes must not differ in what fits: a limit on all of the index is met at different moments.
fn index_limits(config: &Config) -> IndexLimits {
    match config.cluster {
        Some(_) => IndexLimits { max_entries: usize::MAX, ..config.index },
        None => config.index,
    }
}

/// Milliseconds since the Unix epoch, as data for people; nothing is decided by it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
