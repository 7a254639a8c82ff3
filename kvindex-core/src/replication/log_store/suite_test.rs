//! openraft's own tests of a log store, on every backend under every durability.
#![allow(clippy::unwrap_used)]

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use std::io;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

use super::super::ids::{NodeAddress, NodeId, ShardId};
use super::super::raft::{Answer, LogId, Raft, SnapshotMeta, StoredMembership};
use super::{
    BackendKind, Durability, FjallBackend, LogBackend, LogStore, MemoryBackend, ShardLog, SledBackend,
};

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// Remembers only what openraft asks about.
#[derive(Debug, Clone, Default)]
struct Machine(Arc<Mutex<(Applied, Option<SnapshotMeta>)>>);

type Applied = (Option<LogId>, StoredMembership);
type Kept = Snapshot<openraft::type_config::alias::CommittedLeaderIdOf<Raft>, NodeId, NodeAddress, ()>;

impl RaftSnapshotBuilder<Raft> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Kept, io::Error> {
        let mut machine = self.0.lock().unwrap();
        let (last_log_id, last_membership) = machine.0.clone();
        let meta = SnapshotMeta { last_log_id, last_membership };
        machine.1 = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<Raft> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<Applied, io::Error> {
        Ok(self.0.lock().unwrap().0.clone())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Raft>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let mut machine = self.0.lock().unwrap();
            machine.0.0 = Some(entry.log_id);
            if let EntryPayload::Membership(members) = entry.payload {
                machine.0.1 = StoredMembership::new(Some(entry.log_id), members);
            }
            if let Some(responder) = responder {
                responder.send(Answer::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        let mut machine = self.0.lock().unwrap();
        *machine = ((meta.last_log_id, meta.last_membership.clone()), Some(meta.clone()));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Kept>, io::Error> {
        let meta = self.0.lock().unwrap().1.clone();
        Ok(meta.map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder(BackendKind, Durability);

impl StoreBuilder<Raft, ShardLog, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, ShardLog, Machine), StorageError<Raft>> {
        let folder = TempDir::new().unwrap();
        let backend: Arc<dyn LogBackend> = match self.0 {
            BackendKind::Fjall => Arc::new(FjallBackend::open(folder.path(), self.1).unwrap()),
            BackendKind::Sled => Arc::new(SledBackend::open(folder.path(), self.1).unwrap()),
            BackendKind::Memory => Arc::new(MemoryBackend::default()),
        };
        let log = LogStore::start(backend, self.1).shard_log(ShardId(3)).await.unwrap();
        Ok((folder, log, Machine::default()))
    }
}

async fn passes(kind: BackendKind, durability: Durability) {
    Suite::test_all(Builder(kind, durability)).await.unwrap();
}

macro_rules! suite {
    ($($name:ident: $kind:ident, $durability:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            passes(BackendKind::$kind, $durability).await;
        })*
    };
}

suite! {
    fjall_fsync: Fjall, Durability::Fsync;
    fjall_async: Fjall, Durability::ASYNC;
    fjall_memory: Fjall, Durability::Memory;
    sled_fsync: Sled, Durability::Fsync;
    sled_async: Sled, Durability::ASYNC;
    sled_memory: Sled, Durability::Memory;
    memory_fsync: Memory, Durability::Fsync;
    memory_async: Memory, Durability::ASYNC;
    memory_memory: Memory, Durability::Memory;
}
