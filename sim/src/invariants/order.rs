//! A worker's batches take effect in the order of their numbers, each once, and none is left out without a gap being
//! declared.

use kvindex_core::replication::ShardCommand;
use kvindex_core::{Command, StreamId};

use super::ledger::Effect;
use super::{Applied, Invariant, Ledger, Verdict};

#[derive(Debug)]
pub(super) struct WorkerOrder;

impl Invariant for WorkerOrder {
    fn name(&self) -> &'static str {
        "per-worker order"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        if !ledger.is_latest(applied.share.shard, applied.at.index) {
            return Ok(());
        }
        let effects = ledger.entry(applied.share.shard, applied.at.index).map(|entry| &entry.effects[..]);
        for effect in effects.unwrap_or_default() {
            if let Effect::Hole { stream, generation, expected, found } = effect {
                return Err(format!(
                    "{stream} generation {generation}: batch {found} was applied where {expected} was due"
                ));
            }
        }
        streams(applied.commands).into_iter().try_for_each(|stream| {
            let stamp = applied.share.index.reader().stream(stream);
            let found = stamp.map(|stamp| (stamp.generation, stamp.applied.map(|seq| seq.0)));
            let due = ledger.standings.get(stream).map(|standing| (standing.generation, standing.applied));
            let registered = applied.share.index.reader().worker(&stream.worker).is_some();
            if registered && found != due {
                return Err(format!("{stream} stands at {found:?} where the log says {due:?}"));
            }
            Ok(())
        })
    }
}

/// The streams that commands speak of.
pub(super) fn streams(commands: &[ShardCommand]) -> Vec<&StreamId> {
    let stream = |command| match command {
        &ShardCommand::Index(Command::Events(ref events)) => Some(&events.stream),
        ShardCommand::Index(Command::NewGeneration { stream, .. } | Command::Gap { stream, .. }) => {
            Some(stream)
        }
        _ => None,
    };
    commands.iter().filter_map(stream).collect()
}
