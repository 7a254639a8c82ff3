//! Every answer names the entries it rests on. Replaying the log up to there in the naive model, which shares and
//! packs nothing, gives the equal answer.

use kvindex_core::replication::ShardId;
use kvindex_core::{DEFAULT_TENANT, Registration, StreamId, Tier};
use std::collections::BTreeMap;

use super::{Answered, Invariant, Ledger, Verdict};
use crate::naive::{Naive, View};
use crate::question::{MODEL, sequence_hashes};

/// As the index has it by default.
const MAX_ORPHANS: usize = 65_536;

/// Blocks served, and for each tier blocks on it and the prefix up to it.
type Served = (usize, Vec<(Tier, usize, usize)>);

#[derive(Debug)]
struct Noted {
    positions: BTreeMap<ShardId, u64>,
    path: Vec<u8>,
    served: BTreeMap<StreamId, Served>,
    by: u64,
}

#[derive(Debug)]
pub(super) struct IndexOracle {
    shards: u16,
    answers: Vec<Noted>,
}

impl IndexOracle {
    pub(super) fn new(shards: u16) -> Self {
        Self { shards, answers: Vec::new() }
    }

    fn replay(&self, shard: ShardId, ledger: &Ledger) -> Verdict {
        let mut answers: Vec<_> =
            self.answers.iter().map(|noted| (noted.positions.get(&shard), noted)).collect();
        answers.sort_by_key(|(position, _)| *position);
        let mut naive = Naive::new(MAX_ORPHANS);
        let empty = BTreeMap::new();
        let mut entries = ledger.logs.get(&shard).unwrap_or(&empty).iter().peekable();
        for (position, noted) in answers {
            while let Some((index, entry)) = entries.next_if(|(index, _)| Some(*index) <= position) {
                naive.registration = Registration(*index);
                for command in &entry.said {
                    naive.apply(command);
                }
            }
            compare(&naive, shard, noted, ledger)?;
        }
        Ok(())
    }
}

fn compare(naive: &Naive, shard: ShardId, noted: &Noted, ledger: &Ledger) -> Verdict {
    let expected = View::of(naive).by_hashes((DEFAULT_TENANT, MODEL), None, &sequence_hashes(&noted.path));
    let mut served = noted.served.clone();
    served.retain(|stream, _| ledger.shard_of(stream) == shard);
    for ((worker, dp_rank), choices) in expected {
        let stream = StreamId { worker, dp_rank };
        let found = served.remove(&stream).unwrap_or_default();
        let nothing = found.0 == 0 && choices.iter().all(|choice| choice.0 == 0);
        if !nothing && !choices.contains(&found) {
            let position = noted.positions.get(&shard);
            return Err(format!(
                "node {} with {shard} at {position:?} says that {stream} serves {found:?}, the log says {choices:?}",
                noted.by
            ));
        }
    }
    match served.pop_first() {
        None => Ok(()),
        Some((stream, _)) => {
            Err(format!("node {} answers for {stream}, which the log does not know", noted.by))
        }
    }
}

impl Invariant for IndexOracle {
    fn name(&self) -> &'static str {
        "index oracle"
    }

    fn answered(&mut self, answered: &Answered<'_>, _: &Ledger) -> Verdict {
        let served = answered.answer.matches.iter().cloned();
        self.answers.push(Noted {
            positions: answered.answer.positions.clone(),
            path: answered.path.to_vec(),
            served: served.map(|(stream, blocks, tiers)| (stream, (blocks, tiers))).collect(),
            by: answered.node,
        });
        Ok(())
    }

    fn finish(&mut self, ledger: &Ledger) -> Verdict {
        (0..self.shards).try_for_each(|shard| self.replay(ShardId(shard), ledger))
    }
}
