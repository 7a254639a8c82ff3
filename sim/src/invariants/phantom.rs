//! Nothing is indexed that the engine never stored in the life that its generation stands for.

use kvindex_core::Index;
use kvindex_core::replication::ShardId;

use super::{Applied, Invariant, Ledger, Settled, Verdict, held};

/// Every how many-th entry is looked at.
const EVERY: u64 = 4;

#[derive(Debug)]
pub(super) struct NoPhantom;

fn look(node: u64, shard: ShardId, index: &Index, ledger: &Ledger) -> Verdict {
    for (stream, held) in held::by_stream(index) {
        if ledger.shard_of(&stream) != shard {
            continue;
        }
        let lives = ledger.standings.get(&stream).and_then(|standing| standing.lives.clone());
        let lives = lives.unwrap_or_default();
        if let Some(block) =
            held::beyond(&held, |tier, name| ledger.ever_stored(&stream, &lives, &(tier.clone(), name)))
        {
            return Err(format!("node {node} has {block:?} of {stream}, which lives {lives:?} never stored"));
        }
    }
    Ok(())
}

impl Invariant for NoPhantom {
    fn name(&self) -> &'static str {
        "no phantom block"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let (shard, at) = (applied.shard, applied.at.index);
        if at.is_multiple_of(EVERY) && ledger.is_latest(shard, at) {
            return look(applied.node, shard, applied.index, ledger);
        }
        Ok(())
    }

    fn settled(&mut self, settled: &Settled<'_>, ledger: &Ledger) -> Verdict {
        settled.shares.keys().try_for_each(|shard| look(settled.node, *shard, settled.index, ledger))
    }
}
