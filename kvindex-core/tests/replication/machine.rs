//! What the logs are applied to: an index, and a counter of host commands for each shard.

use bytes::Bytes;
use kvindex_core::replication::{LogPosition, Machine, ShardCommand, ShardId};
use kvindex_core::{Command, Index};
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) index: Mutex<Index>,
    pub(crate) words: Mutex<BTreeMap<ShardId, Vec<String>>>,
    applied: Mutex<BTreeMap<ShardId, u64>>,
}

impl Machine for Counting {
    fn apply(&self, shard: ShardId, at: LogPosition, commands: Vec<ShardCommand>) -> Result<Bytes, String> {
        let before = self.applied.lock().insert(shard, at.index);
        assert!(before.is_none_or(|before| before < at.index), "{shard}: {before:?} before {}", at.index);
        let mut answer = String::new();
        for command in commands {
            match command {
                ShardCommand::Index(command) => {
                    self.index.lock().apply(&command);
                }
                ShardCommand::Host(word) => {
                    let mut words = self.words.lock();
                    let words = words.entry(shard).or_default();
                    words.push(String::from_utf8(word.to_vec()).unwrap());
                    answer = words.len().to_string();
                }
            }
        }
        Ok(answer.into())
    }

    fn export(&self, shard: ShardId) -> Box<dyn Iterator<Item = Vec<u8>> + Send + '_> {
        let words = self.words.lock().get(&shard).cloned().unwrap_or_default();
        Box::new(words.into_iter().map(String::into_bytes))
    }

    fn import(&self, shard: ShardId, at: LogPosition, pieces: Vec<Bytes>) -> Result<(), String> {
        self.applied.lock().insert(shard, at.index);
        let words = pieces.into_iter().map(|piece| String::from_utf8(piece.to_vec()).unwrap());
        self.words.lock().insert(shard, words.collect());
        Ok(())
    }
}

impl Counting {
    pub(crate) fn words(&self, shard: u16) -> Vec<String> {
        self.words.lock().get(&ShardId(shard)).cloned().unwrap_or_default()
    }
}

pub(crate) fn word(text: &str) -> Vec<ShardCommand> {
    vec![ShardCommand::Host(Bytes::copy_from_slice(text.as_bytes()))]
}

pub(crate) fn unregister(worker: &str) -> Vec<ShardCommand> {
    let worker = kvindex_core::WorkerId::new(worker).unwrap();
    vec![ShardCommand::Index(Command::Unregister { worker })]
}
