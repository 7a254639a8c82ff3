//! Where a node keeps what outlives its process: a data directory in service, memory in a simulation.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use kvindex_core::replication::log_store::{
    BackendKind, Durability, FjallBackend, LogBackend, LogError, MemoryBackend, SledBackend,
};
use kvindex_core::replication::{SnapshotFolder, SnapshotMemory, SnapshotStore};

use super::identity::{self, IdentityError, NodeRecord};

/// Why a node's home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots' folder.
    #[error("snapshots: {0}")]
    Snapshots(#[from] std::io::Error),
}

/// What outlives a process.
pub trait Home: Debug + Send + Sync + 'static {
    /// Who this node is; `None` before it belongs to a cluster.
    ///
    /// # Errors
    /// When it cannot be read, or is not this program's.
    fn load(&self) -> Result<Option<NodeRecord>, IdentityError>;

    /// Keeps it; durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    fn keep(&self, record: &NodeRecord) -> Result<(), IdentityError>;

    /// Whether there is a log, as every member has one. Without it a node does not know for whom it voted, so it must
    /// not be who it was.
    fn has_log(&self) -> bool {
        true
    }

    /// The log.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn logs(&self) -> Result<Arc<dyn LogBackend>, HomeError>;

    /// The snapshots.
    ///
    /// # Errors
    /// When they cannot be reached.
    fn snapshots(&self) -> Result<Arc<dyn SnapshotStore>, HomeError>;

    /// Puts everything aside, because it is damaged or its end may be missing: the node joins anew, under a new id.
    ///
    /// # Errors
    /// When it cannot be moved.
    fn put_aside(&self) -> Result<String, HomeError>;
}

/// A data directory: `node.json`, `log/`, `snapshots/`.
#[derive(Debug)]
pub struct DataDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// Which engine keeps the log.
    pub backend: BackendKind,
    /// When entries count as kept.
    pub durability: Durability,
    /// The shard count that the configuration asks for, if it does.
    pub shards: Option<u16>,
}

impl Home for DataDirectory {
    fn load(&self) -> Result<Option<NodeRecord>, IdentityError> {
        if self.backend == BackendKind::Memory {
            // Nothing else survives, so neither does the id.
            return Ok(None);
        }
        let record = identity::load(&self.path, self.shards)?;
        if record.is_none() && self.has_log() {
            return Err(IdentityError::Missing { path: self.path.clone() });
        }
        Ok(record)
    }

    fn has_log(&self) -> bool {
        self.backend == BackendKind::Memory || self.path.join("log").join("log-store").exists()
    }

    fn keep(&self, record: &NodeRecord) -> Result<(), IdentityError> {
        if self.backend == BackendKind::Memory {
            return Ok(());
        }
        identity::store(&self.path, record)
    }

    fn logs(&self) -> Result<Arc<dyn LogBackend>, HomeError> {
        let folder = self.path.join("log");
        Ok(match self.backend {
            BackendKind::Fjall => Arc::new(FjallBackend::open(&folder, self.durability)?),
            BackendKind::Sled => Arc::new(SledBackend::open(&folder, self.durability)?),
            BackendKind::Memory => Arc::new(MemoryBackend::default()),
        })
    }

    fn snapshots(&self) -> Result<Arc<dyn SnapshotStore>, HomeError> {
        Ok(match self.backend {
            BackendKind::Memory => Arc::new(SnapshotMemory::default()),
            _ => Arc::new(SnapshotFolder::open(&self.path.join("snapshots"))?),
        })
    }

    fn put_aside(&self) -> Result<String, HomeError> {
        let mut number = 1;
        let aside = loop {
            let aside = self.path.join(format!("aside-{number}"));
            if !aside.exists() {
                break aside;
            }
            number += 1;
        };
        std::fs::create_dir_all(&aside)?;
        for part in ["node.json", "log", "snapshots"] {
            let from = self.path.join(part);
            if from.exists() {
                std::fs::rename(from, aside.join(part))?;
            }
        }
        Ok(aside.display().to_string())
    }
}
