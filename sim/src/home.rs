//! What outlives a node's processes, as the server asks for it: who the node is, its log and its snapshots, all on
//! the simulated disk.

use kvindex_core::replication::SnapshotStore;
use kvindex_core::replication::log_store::LogBackend;
use kvindex_server::cluster::{self, HomeError, IdentityError, NodeRecord};
use std::io;
use std::sync::Arc;

use crate::disk::OpenDisk;
use crate::invariants::Judge;

/// The home of one process.
#[derive(Debug)]
pub(crate) struct Home {
    /// The disk as this process has it open.
    pub disk: Arc<OpenDisk>,
    /// Is told of every id that is kept.
    pub judge: Arc<Judge>,
}

impl Home {
    fn unusable(&self, why: &str) -> IdentityError {
        IdentityError::Unusable { path: self.disk.place().into(), source: io::Error::other(why.to_owned()) }
    }
}

impl cluster::Home for Home {
    fn load(&self) -> Result<Option<NodeRecord>, IdentityError> {
        Ok(self.disk.record())
    }

    fn keep(&self, record: &NodeRecord) -> Result<(), IdentityError> {
        let incarnation = self.disk.keep(record).map_err(|why| self.unusable(why))?;
        self.judge.kept(self.disk.life.node, incarnation, record.identity.node);
        Ok(())
    }

    fn has_log(&self) -> bool {
        self.disk.has_log()
    }

    fn logs(&self) -> Result<Arc<dyn LogBackend>, HomeError> {
        self.disk.open_log().map_err(|why| self.unusable(why))?;
        Ok(Arc::clone(&self.disk) as _)
    }

    fn snapshots(&self) -> Result<Arc<dyn SnapshotStore>, HomeError> {
        Ok(Arc::clone(&self.disk) as _)
    }

    fn put_aside(&self) -> Result<String, HomeError> {
        self.disk.put_aside().map_err(|why| self.unusable(why))?;
        Ok("aside".into())
    }
}
