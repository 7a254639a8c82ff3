//! The node's state in pieces: what a shard's snapshot is made of.

use bytes::Bytes;
use kvindex_core::{Command, WorkerId};

use super::Node;
use super::registry::KnownWorker;

impl Node {
    /// These workers' shares of the index, a few workers a piece, each read under the lock only when it is asked
    /// for. The caller sees to it that nothing changes these workers meanwhile.
    pub(crate) fn shares(
        &self,
        workers: Vec<WorkerId>,
        piece_entries: usize,
    ) -> impl Iterator<Item = Vec<u8>> + Send + '_ {
        let mut left = workers.into_iter().peekable();
        std::iter::from_fn(move || {
            left.peek()?;
            let index = self.index.read();
            let reader = index.reader();
            let (mut some, mut entries) = (Vec::new(), 0);
            while entries < piece_entries
                && let Some(worker) = left.next()
            {
                entries += reader.entries_of(&worker);
                some.push(worker);
            }
            Some(reader.export(&some))
        })
    }

    /// Replaces what is known of a shard's workers: `before` go, `workers` come with their shares.
    pub(crate) fn take_shares(
        &self,
        before: &[WorkerId],
        workers: Vec<KnownWorker>,
        shares: &[Bytes],
    ) -> Result<(), String> {
        let gone = before.iter().filter(|id| !workers.iter().any(|known| known.definition.spec.id == **id));
        for worker in gone {
            self.apply(&[Command::Unregister { worker: worker.clone() }]);
            self.registry.write().remove(worker);
        }
        for share in shares {
            self.index.write().import(share).map_err(|error| error.to_string())?;
        }
        let mut registry = self.registry.write();
        workers.into_iter().for_each(|worker| registry.insert(worker));
        Ok(())
    }
    /// Leaves the node as it was before it knew anything.
    pub(crate) fn forget_all(&self) -> Result<(), String> {
        let all = self.known_workers().into_iter().map(|worker| worker.definition.spec.id);
        self.take_shares(&all.collect::<Vec<_>>(), Vec::new(), &[])
    }
}
