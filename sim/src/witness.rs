//! Stands between a node's logs and its state: passes everything on to the server's own machine, keeps how far each
//! shard is, and tells the judge.

use bytes::Bytes;
use kvindex_core::replication::{LogPosition, Machine, ShardCommand, ShardId, encode};
use kvindex_server::cluster;
use kvindex_server::node::Node;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::invariants::{Applied, Judge, Share};
use crate::life::Life;
use crate::mutation::Mutation;

/// How far a shard is on a node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reached {
    /// The last entry with commands.
    pub at: Option<LogPosition>,
    /// Digest of all of those, in order.
    pub chain: u64,
}

#[derive(Debug, Default)]
struct State {
    reached: BTreeMap<ShardId, Reached>,
    machine: Option<Arc<dyn Machine>>,
}

/// The witness of one process.
#[derive(Debug)]
pub(crate) struct Witness {
    life: Arc<Life>,
    judge: Arc<Judge>,
    mutation: Mutation,
    node: Arc<Node>,
    state: Mutex<State>,
}

impl Witness {
    /// A witness of what is applied to `node`.
    #[must_use]
    pub(crate) fn new(life: Arc<Life>, judge: Arc<Judge>, mutation: Mutation, node: Arc<Node>) -> Self {
        #[cfg(feature = "mutations")]
        if mutation == Mutation::SkipDedup {
            node.apply_again();
        }
        Self { life, judge, mutation, node, state: Mutex::default() }
    }

    /// The last entry of a shard that was applied here.
    pub(crate) fn applied(&self, shard: ShardId) -> Option<u64> {
        Some(self.state.lock().reached.get(&shard)?.at?.index)
    }

    /// The same of every shard.
    pub(crate) fn positions(&self) -> BTreeMap<ShardId, u64> {
        let state = self.state.lock();
        state.reached.iter().filter_map(|(shard, reached)| Some((*shard, reached.at?.index))).collect()
    }

    /// Lets the judge look at every shard as it is now.
    pub(crate) fn show(&self, mut look: impl FnMut(&Share<'_>)) {
        let (shards, machine) = {
            let state = self.state.lock();
            (state.reached.clone(), state.machine.clone())
        };
        let Some(machine) = machine else { return };
        shards.into_iter().for_each(|(shard, reached)| self.share(&*machine, shard, reached, &mut look));
    }

    fn share(&self, machine: &dyn Machine, shard: ShardId, reached: Reached, look: impl FnOnce(&Share<'_>)) {
        let (node, life) = (self.life.node, self.life.number);
        // What a dead process still does in memory is of no consequence.
        if !self.life.is_over() {
            self.node.look(|index| look(&Share { node, life, shard, reached, machine, index }));
        }
    }
}

/// A machine and who watches it.
#[derive(Debug)]
struct Watched {
    machine: Arc<dyn Machine>,
    witness: Arc<Witness>,
}

/// The witness as the server takes it.
#[derive(Debug)]
pub(crate) struct Seat(pub Arc<Witness>);

impl cluster::Witness for Seat {
    fn around(&self, machine: Arc<dyn Machine>) -> Arc<dyn Machine> {
        let witness = Arc::clone(&self.0);
        *witness.state.lock() = State { machine: Some(Arc::clone(&machine)), ..State::default() };
        if !witness.life.is_over() {
            witness.judge.began(witness.life.node, witness.life.number);
        }
        Arc::new(Watched { machine, witness })
    }
}

impl Machine for Watched {
    fn apply(&self, shard: ShardId, at: LogPosition, commands: Vec<ShardCommand>) -> Result<Bytes, String> {
        let entry = encode(&commands).map_err(|error| error.to_string())?;
        let told = commands.clone();
        let answer = self.machine.apply(shard, at, commands)?;
        let (before, reached) = {
            let mut state = self.witness.state.lock();
            let reached = state.reached.entry(shard).or_default();
            let before = reached.at.replace(at);
            let words = [at.term.to_le_bytes(), at.index.to_le_bytes()].concat();
            reached.chain = xxh3_64_with_seed(&entry, xxh3_64_with_seed(&words, reached.chain));
            (before, *reached)
        };
        self.witness.share(&*self.machine, shard, reached, |share| {
            self.witness.judge.applied(&Applied { share, at, before, commands: &told });
        });
        Ok(answer)
    }

    fn export(&self, shard: ShardId) -> Box<dyn Iterator<Item = Vec<u8>> + Send + '_> {
        let reached = self.witness.state.lock().reached.get(&shard).copied().unwrap_or_default();
        let judge = &self.witness.judge;
        self.witness.share(&*self.machine, shard, reached, |share| judge.exported(share));
        self.machine.export(shard)
    }

    fn import(&self, shard: ShardId, at: LogPosition, mut pieces: Vec<Bytes>) -> Result<(), String> {
        if self.witness.mutation == Mutation::KeepOnImport {
            pieces.truncate(1);
        }
        self.machine.import(shard, at, pieces)?;
        // A snapshot may end with an entry that is no machine's: a change of members, say.
        let reached = self.witness.judge.reached(shard, at);
        self.witness.state.lock().reached.insert(shard, reached);
        let judge = &self.witness.judge;
        self.witness.share(&*self.machine, shard, reached, |share| judge.installed(share, at));
        Ok(())
    }
}
