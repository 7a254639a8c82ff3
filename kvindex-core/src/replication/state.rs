//! A shard's state machine, as openraft sees it: entries go to the [`Machine`], snapshots come from it.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::codec;
use super::container::{ContainerError, Packer, unpack};
use super::ids::ShardId;
use super::machine::{LogPosition, Machine};
use super::network::Addresses;
use super::progress::Progress;
use super::raft::{Answer, LogId, Payload, Raft, SnapshotMeta, StoredMembership};
use super::replica::StartError;
use super::snapshot_store::SnapshotStore;

pub(crate) type ShardSnapshot = Snapshot<
    openraft::type_config::alias::CommittedLeaderIdOf<Raft>,
    super::NodeId,
    super::NodeAddress,
    Bytes,
>;

/// The state machine of one shard.
#[derive(Debug)]
pub(crate) struct ShardState {
    shard: ShardId,
    machine: Arc<dyn Machine>,
    snapshots: Arc<dyn SnapshotStore>,
    progress: Arc<Progress>,
    addresses: Addresses,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Held while a snapshot is taken, so that all its pieces are of one moment.
    gate: Arc<Mutex<()>>,
}

impl ShardState {
    /// The state as the latest snapshot has it, or none.
    ///
    /// # Errors
    /// When there is a snapshot and it cannot be read or used.
    pub(crate) async fn open(
        shard: ShardId,
        machine: Arc<dyn Machine>,
        snapshots: Arc<dyn SnapshotStore>,
        progress: Arc<Progress>,
        addresses: Addresses,
    ) -> Result<Self, StartError> {
        let stored =
            snapshots.load(shard).await.map_err(|error| StartError::Other(Self::of(shard, &error)))?;
        let (applied, membership) = (None, StoredMembership::default());
        let gate = Arc::default();
        let mut state = Self { shard, machine, snapshots, progress, addresses, applied, membership, gate };
        if let Some(bytes) = stored {
            state.take_over(&bytes)?;
        }
        Ok(state)
    }

    fn of(shard: ShardId, error: &dyn std::fmt::Display) -> String {
        format!("snapshot of {shard}: {error}")
    }

    fn take_over(&mut self, bytes: &Bytes) -> Result<(), StartError> {
        let shard = self.shard;
        let (meta, pieces) = unpack(shard, bytes).map_err(|error| match error {
            ContainerError::Version(_) => StartError::Other(Self::of(shard, &error)),
            _ => StartError::Damaged(Self::of(shard, &error)),
        })?;
        let at = meta.last_log_id.map(position).unwrap_or_default();
        let imported = self.machine.import(shard, at, pieces);
        imported.map_err(|reason| StartError::Other(Self::of(shard, &reason)))?;
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership);
        self.addresses.learn(&self.membership);
        if let Some(applied) = self.applied {
            self.progress.applied(applied.index);
        }
        Ok(())
    }

    fn apply_entry(
        &mut self,
        at: LogId,
        payload: EntryPayload<Payload, super::NodeId, super::NodeAddress>,
    ) -> io::Result<Answer> {
        let answer = match payload {
            EntryPayload::Blank => Answer::default(),
            EntryPayload::Normal(Payload(bytes)) => {
                let commands = codec::decode(&bytes).map_err(|error| self.failed(at, &error.to_string()))?;
                let answer = self.machine.apply(self.shard, position(at), commands);
                Answer(answer.map_err(|reason| self.failed(at, &reason))?)
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(at), membership);
                self.addresses.learn(&self.membership);
                Answer::default()
            }
        };
        self.applied = Some(at);
        self.progress.applied(at.index);
        Ok(answer)
    }

    fn failed(&self, at: LogId, reason: &str) -> io::Error {
        io::Error::other(format!("{} cannot apply entry {}: {reason}", self.shard, at.index))
    }
}

fn position(id: LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

impl RaftStateMachine<Raft> for ShardState {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Raft>>> + Unpin + OptionalSend,
    {
        let gate = Arc::clone(&self.gate);
        let _no_snapshot = gate.lock().await;
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let answer = self.apply_entry(entry.log_id, entry.payload)?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            shard: self.shard,
            machine: Arc::clone(&self.machine),
            snapshots: Arc::clone(&self.snapshots),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            at_this_moment: Some(Arc::clone(&self.gate).lock_owned().await),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        self.snapshots.save(self.shard, snapshot.clone()).await?;
        self.take_over(&snapshot).map_err(io::Error::other)?;
        debug_assert_eq!(self.applied, meta.last_log_id);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<ShardSnapshot>> {
        let Some(bytes) = self.snapshots.load(self.shard).await? else { return Ok(None) };
        let (meta, _) = unpack(self.shard, &bytes).map_err(io::Error::other)?;
        Ok(Some(Snapshot { meta, snapshot: bytes }))
    }
}

/// Takes one snapshot.
#[derive(Debug)]
pub(crate) struct Builder {
    shard: ShardId,
    machine: Arc<dyn Machine>,
    snapshots: Arc<dyn SnapshotStore>,
    meta: SnapshotMeta,
    at_this_moment: Option<OwnedMutexGuard<()>>,
}

impl RaftSnapshotBuilder<Raft> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<ShardSnapshot> {
        let mut packer = Packer::new(self.shard, &self.meta);
        for piece in self.machine.export(self.shard) {
            packer.push(&piece);
            // A piece takes milliseconds; heartbeats must not wait for all of them.
            tokio::task::yield_now().await;
        }
        let bytes = packer.finish();
        self.at_this_moment = None;
        self.snapshots.save(self.shard, bytes.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: bytes })
    }
}
