//! A node's replicated state in the simulation: the real index, and beside it registers for clients to write. Stands
//! for the server's own machine; all that it adds is telling the judge what happens.

use bytes::{Buf, BufMut, Bytes};
use kvindex_core::replication::{LogPosition, Machine, ShardCommand, ShardId, encode, shard_of};
use kvindex_core::{Command, Coverage, Index, Registration, Scratch, StreamId, StreamStamp, WorkerId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::Truth;
use crate::engine::EnginePlan;
use crate::invariants::{Applied, Installed, Judge};
use crate::life::Life;
use crate::mutation::Mutation;
use crate::question::{Matched, ask};

/// A client's write of a register, applied once however often it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegisterWrite {
    /// Who.
    pub client: u64,
    /// Its how many-th write.
    pub number: u64,
    /// Which register of the shard.
    pub register: u64,
    /// What.
    pub value: u64,
}

impl RegisterWrite {
    /// As the log has it.
    #[must_use]
    pub(crate) fn command(self) -> ShardCommand {
        let mut bytes = Vec::with_capacity(32);
        for word in [self.client, self.number, self.register, self.value] {
            bytes.put_u64_le(word);
        }
        ShardCommand::Host(bytes.into())
    }

    fn read(mut bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != 32 {
            return Err(format!("a register write of {} bytes", bytes.len()));
        }
        let mut word = || bytes.get_u64_le();
        Ok(Self { client: word(), number: word(), register: word(), value: word() })
    }
}

/// What belongs to one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Share {
    /// The last entry applied.
    pub at: Option<LogPosition>,
    /// Digest of all entries applied, in order.
    pub chain: u64,
    /// Registers.
    pub registers: BTreeMap<u64, u64>,
    /// Last write of each client.
    sessions: BTreeMap<u64, u64>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    shares: BTreeMap<ShardId, Share>,
    scratch: Scratch,
}

/// A node's state.
#[derive(Debug)]
pub(crate) struct SimMachine {
    shards: u16,
    life: Arc<Life>,
    judge: Arc<Judge>,
    mutation: Mutation,
    state: Mutex<State>,
}

/// What a client reads, all at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// The last entry applied, of each shard.
    pub positions: BTreeMap<ShardId, u64>,
    /// Where each stream stands.
    pub stamps: BTreeMap<StreamId, StreamStamp>,
    /// What each stream serves of the prompt asked for.
    pub matches: Vec<Matched>,
    /// The shard's registers.
    pub registers: BTreeMap<u64, u64>,
}

impl SimMachine {
    /// An empty one.
    #[must_use]
    pub(crate) fn new(shards: u16, life: Arc<Life>, judge: Arc<Judge>, mutation: Mutation) -> Self {
        Self { shards, life, judge, mutation, state: Mutex::default() }
    }

    /// Where a stream stands; `None` when its worker is not registered.
    pub(crate) fn stamp(&self, stream: &StreamId) -> Option<Option<StreamStamp>> {
        let state = self.state.lock();
        let reader = state.index.reader();
        reader.worker(&stream.worker)?;
        Some(reader.stream(stream))
    }

    /// Whether the index has a stream as its engine does; no more than that, where batches were declared lost and it
    /// says so. Where
    /// there is nothing to ask, nobody can know of a last batch that was lost.
    pub(crate) fn is_as(&self, engine: &EnginePlan, (_, next, truth): &(u64, u64, Truth)) -> bool {
        let stream = &engine.stream;
        let state = self.state.lock();
        let reader = state.index.reader();
        if reader.worker(&stream.worker).is_none() {
            return true;
        }
        let stamp = reader.stream(stream).unwrap_or_default();
        let applied = stamp.applied;
        if applied.map_or(0, |seq| seq.0 + 1) != *next {
            return engine.buffer == 0;
        }
        let held = crate::invariants::held_of(&state.index, stream);
        if !self.judge.is_whole(stream) && stamp.coverage != Coverage::Complete {
            return held.iter().all(|(block, copies)| truth.get(block).is_some_and(|most| copies <= most));
        }
        held == *truth
    }

    /// What is held of a stream, or should be, in another number of copies than the engine has.
    pub(crate) fn difference(&self, stream: &StreamId, truth: &Truth) -> Truth {
        let held = crate::invariants::held_of(&self.state.lock().index, stream);
        let all = held.iter().chain(truth);
        let differs = all.filter(|(block, _)| held.get(*block) != truth.get(*block));
        differs.map(|(block, _)| (block.clone(), held.get(block).copied().unwrap_or(0))).collect()
    }

    /// The number of a worker's registration; `None` when it is not registered.
    pub(crate) fn registration(&self, worker: &WorkerId) -> Option<Registration> {
        self.state.lock().index.reader().registration(worker)
    }

    /// The last entry of a shard that was applied here.
    pub(crate) fn applied(&self, shard: ShardId) -> Option<u64> {
        self.state.lock().shares.get(&shard)?.at.map(|at| at.index)
    }

    /// Answers a client: what of `path` is held, where streams stand, and a shard's registers.
    pub(crate) fn answer(&self, shard: ShardId, path: &[u8]) -> Answer {
        let state = &mut *self.state.lock();
        let reader = state.index.reader();
        let stamps = reader.workers().flat_map(|worker| {
            let id = worker.worker.id.clone();
            worker
                .streams
                .into_iter()
                .map(move |(dp_rank, stamp, _)| (StreamId { worker: id.clone(), dp_rank }, stamp))
        });
        Answer {
            positions: state
                .shares
                .iter()
                .filter_map(|(shard, share)| Some((*shard, share.at?.index)))
                .collect(),
            stamps: stamps.collect(),
            matches: ask(&reader, path, &mut state.scratch),
            registers: state.shares.get(&shard).map(|share| share.registers.clone()).unwrap_or_default(),
        }
    }

    /// Lets the judge look at everything.
    pub(crate) fn show<T>(&self, look: impl FnOnce(&Index, &BTreeMap<ShardId, Share>) -> T) -> T {
        let state = self.state.lock();
        look(&state.index, &state.shares)
    }

    fn workers_of(&self, index: &Index, shard: ShardId) -> Vec<WorkerId> {
        let all = index.reader().workers().map(|worker| worker.worker.id.clone());
        all.filter(|worker| shard_of(worker, self.shards) == shard).collect()
    }
}

impl Machine for SimMachine {
    fn apply(&self, shard: ShardId, at: LogPosition, commands: Vec<ShardCommand>) -> Result<Bytes, String> {
        let entry = encode(&commands).map_err(|error| error.to_string())?;
        let state = &mut *self.state.lock();
        #[cfg(feature = "mutations")]
        (state.index.applies_again = self.mutation == Mutation::SkipDedup);
        let share = state.shares.entry(shard).or_default();
        let before = share.at.replace(at);
        let words = [at.term.to_le_bytes(), at.index.to_le_bytes()].concat();
        share.chain = xxh3_64_with_seed(&entry, xxh3_64_with_seed(&words, share.chain));
        let mut answer = Bytes::new();
        for command in &commands {
            match command {
                ShardCommand::Index(command) => {
                    state.index.number_registrations(Registration(at.index));
                    state.index.apply(command);
                }
                ShardCommand::Host(bytes) => {
                    let write = RegisterWrite::read(bytes)?;
                    let last = share.sessions.entry(write.client).or_default();
                    if write.number > *last {
                        *last = write.number;
                        share.registers.insert(write.register, write.value);
                    }
                    answer = Bytes::copy_from_slice(&write.number.to_le_bytes());
                }
            }
        }
        let (node, life) = (self.life.node, self.life.number);
        let (index, share) = (&state.index, &*share);
        // What a dead process still does in memory is of no consequence.
        if !self.life.is_over() {
            self.judge.applied(&Applied { node, life, shard, at, before, commands: &commands, share, index });
        }
        Ok(answer)
    }

    fn export(&self, shard: ShardId) -> Box<dyn Iterator<Item = Vec<u8>> + Send + '_> {
        let share = self.state.lock().shares.get(&shard).cloned().unwrap_or_default();
        let mut head = Vec::new();
        head.put_u64_le(share.at.map_or(0, |at| at.term));
        head.put_u64_le(share.at.map_or(u64::MAX, |at| at.index));
        head.put_u64_le(share.chain);
        for map in [&share.registers, &share.sessions] {
            head.put_u64_le(map.len() as u64);
            for (key, value) in map {
                head.put_u64_le(*key);
                head.put_u64_le(*value);
            }
        }
        let state = self.state.lock();
        let workers = self.workers_of(&state.index, shard);
        let blocks = state.index.reader().export(&workers);
        Box::new([head, blocks].into_iter())
    }

    fn import(&self, shard: ShardId, at: LogPosition, pieces: Vec<Bytes>) -> Result<(), String> {
        let [head, blocks] = pieces.as_slice() else { return Err(format!("{} pieces", pieces.len())) };
        let mut share = Share::default();
        share.read_head(head.clone())?;
        let state = &mut *self.state.lock();
        if self.mutation != Mutation::KeepOnImport {
            for worker in self.workers_of(&state.index, shard) {
                state.index.apply(&Command::Unregister { worker });
            }
            state.index.import(blocks).map_err(|error| error.to_string())?;
        }
        let (node, life) = (self.life.node, self.life.number);
        if !self.life.is_over() {
            let index = &state.index;
            self.judge.installed(&Installed { node, life, shard, at, share: &share, index });
        }
        state.shares.insert(shard, share);
        Ok(())
    }
}

impl Share {
    fn read_head(&mut self, mut head: Bytes) -> Result<(), String> {
        let head = &mut head;
        let (term, index) = (word(head)?, word(head)?);
        self.at = (index != u64::MAX).then_some(LogPosition { term, index });
        self.chain = word(head)?;
        for map in [&mut self.registers, &mut self.sessions] {
            for _ in 0..word(head)? {
                map.insert(word(head)?, word(head)?);
            }
        }
        Ok(())
    }
}

fn word(head: &mut Bytes) -> Result<u64, String> {
    head.try_get_u64_le().map_err(|_| "the head of a share is cut short".to_owned())
}
