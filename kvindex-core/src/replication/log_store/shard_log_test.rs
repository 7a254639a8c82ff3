//! A shard's log against a list in memory: appended, truncated, purged, left and opened again at random.
#![allow(clippy::unwrap_used)]

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader};
use proptest::prelude::*;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::ids::{NodeAddress, NodeId, ShardId};
use super::super::raft::{Entry, LogId, Payload, Raft, Vote};
use super::record;
use super::{
    BackendKind, Change, Durability, FjallBackend, LogBackend, LogError, LogStore, MemoryBackend, ShardLog,
    SledBackend, Urgency,
};

/// A place for a log that can be left and opened again.
struct Home {
    kind: BackendKind,
    durability: Durability,
    folder: TempDir,
    memory: MemoryBackend,
}

impl Home {
    fn new(kind: BackendKind, durability: Durability) -> Self {
        Self { kind, durability, folder: TempDir::new().unwrap(), memory: MemoryBackend::default() }
    }

    fn backend(&self) -> Result<Arc<dyn LogBackend>, LogError> {
        let folder = self.folder.path();
        Ok(match self.kind {
            BackendKind::Fjall => Arc::new(FjallBackend::open(folder, self.durability)?),
            BackendKind::Sled => Arc::new(SledBackend::open(folder, self.durability)?),
            BackendKind::Memory => Arc::new(self.memory.clone()),
        })
    }

    fn open(&self) -> LogStore {
        LogStore::start(self.backend().unwrap(), self.durability)
    }
}

const ALL: [BackendKind; 3] = [BackendKind::Fjall, BackendKind::Sled, BackendKind::Memory];

fn entry(term: u64, index: u64, payload: EntryPayload<Payload, NodeId, NodeAddress>) -> Entry {
    Entry { log_id: LogId::new_term_index(term, index), payload }
}

fn commands(term: u64, index: u64, bytes: usize) -> Entry {
    let payload = Payload(vec![u8::try_from(index % 251).unwrap(); bytes].into());
    entry(term, index, EntryPayload::Normal(payload))
}

async fn append(log: &mut ShardLog, entries: Vec<Entry>) {
    let (sender, receiver) = Raft::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
}

async fn all(log: &mut ShardLog) -> Vec<Entry> {
    log.try_get_log_entries(..).await.unwrap()
}

/// What the log should be.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.purged)
    }

    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn bytes(&self, shard: ShardId) -> u64 {
        self.entries.iter().map(|entry| record::encode_entry(shard, entry, 0).unwrap().len() as u64).sum()
    }

    async fn check(&self, log: &mut ShardLog, shard: ShardId) {
        assert_eq!(all(log).await, self.entries);
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (self.purged, self.last()));
        assert_eq!(log.read_vote().await.unwrap(), self.vote);
        assert_eq!(log.log_bytes(), self.bytes(shard));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        entries: u8,
        bytes: u16,
    },
    Truncate {
        back: u8,
    },
    Purge {
        ahead: u8,
    },
    /// What an installed snapshot does: the log ends before it.
    PurgeBeyond {
        by: u8,
    },
    Vote {
        term: u64,
        committed: bool,
    },
    Reopen,
    Drop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_u8, 0..3000_u16).prop_map(|(entries, bytes)| Step::Append { entries, bytes }),
        2 => (0..30_u8).prop_map(|back| Step::Truncate { back }),
        2 => (0..30_u8).prop_map(|ahead| Step::Purge { ahead }),
        1 => (0..30_u8).prop_map(|by| Step::PurgeBeyond { by }),
        1 => (1..9_u64, any::<bool>()).prop_map(|(term, committed)| Step::Vote { term, committed }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Drop),
    ];
    proptest::collection::vec(step, 1..25)
}

/// One shard's log and what it should be.
struct Pair {
    shard: ShardId,
    log: ShardLog,
    model: Model,
}

impl Pair {
    async fn step(&mut self, step: &Step, term: u64) {
        let (log, model) = (&mut self.log, &mut self.model);
        match *step {
            Step::Append { entries, bytes } => {
                let new: Vec<_> = (0..u64::from(entries))
                    .map(|at| commands(term, model.next() + at, bytes.into()))
                    .collect();
                model.entries.extend(new.iter().cloned());
                append(log, new).await;
            }
            Step::Truncate { back } => {
                let kept = model.entries.len().saturating_sub(back.into());
                model.entries.truncate(kept);
                log.truncate_after(model.last()).await.unwrap();
            }
            Step::Purge { ahead } => {
                let gone = usize::from(ahead).min(model.entries.len());
                if let Some(last) = model.entries.drain(..gone).next_back() {
                    model.purged = Some(last.log_id);
                    log.purge(last.log_id).await.unwrap();
                }
            }
            Step::PurgeBeyond { by } => {
                let upto = LogId::new_term_index(term, model.next() + u64::from(by));
                *model = Model { purged: Some(upto), vote: model.vote, ..Model::default() };
                log.purge(upto).await.unwrap();
            }
            Step::Vote { term, committed } => {
                let node = NodeId(7);
                let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
                model.vote = Some(vote);
                log.save_vote(&vote).await.unwrap();
            }
            Step::Reopen | Step::Drop => {}
        }
    }
}

async fn follows_the_model(home: &Home, steps: &[Step]) {
    let mut store = home.open();
    let mut pairs = Vec::new();
    for shard in [ShardId(0), ShardId(1)] {
        let log = store.shard_log(shard).await.unwrap();
        pairs.push(Pair { shard, log, model: Model::default() });
    }
    for (at, step) in steps.iter().enumerate() {
        let term = at as u64 + 1;
        match step {
            // A store that is dropped finishes what is queued before it lets its directory go.
            Step::Reopen => store.close().await.unwrap(),
            Step::Drop => {
                store.write(Vec::new(), Urgency::Flushed).await.unwrap();
                store.close().await.unwrap();
            }
            step => pairs[at % 2].step(step, term).await,
        }
        if matches!(step, Step::Reopen | Step::Drop) {
            let models = pairs.drain(..).map(|pair| (pair.shard, pair.model)).collect::<Vec<_>>();
            drop(store);
            store = home.open();
            for (shard, model) in models {
                let log = store.shard_log(shard).await.unwrap();
                pairs.push(Pair { shard, log, model });
            }
        }
        for Pair { shard, log, model } in &mut pairs {
            model.check(log, *shard).await;
        }
    }
    store.close().await.unwrap();
}
