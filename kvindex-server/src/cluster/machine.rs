//! The node as what shards' logs are applied to: commands go to the index, host commands to the workers and to the
//! directory of nodes.

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use kvindex_core::WorkerId;
use kvindex_core::replication::{LogPosition, Machine, ShardCommand, ShardId, shard_of};

use super::directory::{Directory, DirectoryAnswer};
use super::messages::HostCommand;
use crate::node::{KnownWorker, Node};

/// The shard that replicates the directory of nodes.
pub(crate) const DIRECTORY_SHARD: ShardId = ShardId(0);

/// Entries of one piece of a snapshot, about: a piece is read under the index's lock.
const PIECE_ENTRIES: usize = 200_000;

/// Stands between the logs and a node's state and sees all that passes: how a simulation knows what is applied.
pub trait Witness: std::fmt::Debug + Send + Sync + 'static {
    /// What the logs are applied to instead of `machine`, to which it passes everything on.
    fn around(&self, machine: Arc<dyn Machine>) -> Arc<dyn Machine>;
}

/// The replicated state of one node.
#[derive(Debug)]
pub(crate) struct NodeMachine {
    node: Arc<Node>,
    shards: u16,
    directory: RwLock<Directory>,
    /// Told after workers or nodes have changed.
    changed: tokio::sync::watch::Sender<u64>,
}

/// First piece of a shard's snapshot: everything beside the index.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Beside {
    version: u32,
    workers: Vec<KnownWorker>,
    #[serde(default)]
    directory: Option<Directory>,
}

const VERSION: u32 = 1;

impl NodeMachine {
    pub(crate) fn new(node: Arc<Node>, shards: u16) -> Self {
        let (changed, _) = tokio::sync::watch::channel(0);
        Self { node, shards, directory: RwLock::default(), changed }
    }

    /// The table as it is now.
    pub(crate) fn directory(&self) -> Directory {
        self.directory.read().clone()
    }

    /// Changes whenever workers or nodes do.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn apply_host(&self, bytes: &[u8], at: LogPosition) -> Result<Bytes, String> {
        let answer = match HostCommand::from_bytes(bytes)? {
            HostCommand::Worker(change) => self.node.apply_change(change, at.index).to_bytes(),
            HostCommand::Directory(change) => {
                let answer = self.directory.write().apply(change);
                answer_bytes(answer)
            }
        };
        self.changed.send_modify(|version| *version += 1);
        Ok(answer)
    }

    fn workers_of(&self, shard: ShardId) -> Vec<KnownWorker> {
        let mut workers = self.node.known_workers();
        workers.retain(|worker| shard_of(&worker.definition.spec.id, self.shards) == shard);
        workers
    }
}

pub(crate) fn answer_bytes(answer: DirectoryAnswer) -> Bytes {
    rmp_serde::to_vec(&answer).unwrap_or_default().into()
}

impl Machine for NodeMachine {
    fn apply(&self, _: ShardId, at: LogPosition, commands: Vec<ShardCommand>) -> Result<Bytes, String> {
        let mut answer = Bytes::new();
        let mut index = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                ShardCommand::Index(command) => index.push(command),
                ShardCommand::Host(bytes) => {
                    self.node.apply(&std::mem::take(&mut index));
                    answer = self.apply_host(&bytes, at)?;
                }
            }
        }
        self.node.apply(&index);
        Ok(answer)
    }

    fn export(&self, shard: ShardId) -> Box<dyn Iterator<Item = Vec<u8>> + Send + '_> {
        let workers = self.workers_of(shard);
        let ids: Vec<WorkerId> = workers.iter().map(|worker| worker.definition.spec.id.clone()).collect();
        let directory = (shard == DIRECTORY_SHARD).then(|| self.directory());
        let beside = Beside { version: VERSION, workers, directory };
        let first = serde_json::to_vec(&beside).unwrap_or_default();
        let shares = self.node.shares(ids, PIECE_ENTRIES);
        Box::new(std::iter::once(first).chain(shares))
    }

    fn import(&self, shard: ShardId, _: LogPosition, pieces: Vec<Bytes>) -> Result<(), String> {
        let (first, shares) = pieces.split_first().ok_or("it is empty")?;
        let beside: Beside =
            serde_json::from_slice(first).map_err(|error| format!("its workers: {error}"))?;
        if beside.version > VERSION {
            let found = beside.version;
            return Err(format!("its workers are of version {found}, this program reads up to {VERSION}"));
        }
        let before: Vec<WorkerId> =
            self.workers_of(shard).into_iter().map(|worker| worker.definition.spec.id).collect();
        self.node.take_shares(&before, beside.workers, shares)?;
        if let Some(directory) = beside.directory {
            *self.directory.write() = directory;
        }
        self.changed.send_modify(|version| *version += 1);
        Ok(())
    }
}
