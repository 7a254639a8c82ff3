//! Nothing is indexed that the engine never stored in the life that its generation stands for.

use super::{Applied, Invariant, Ledger, Share, Verdict, held};

/// Every how many-th entry is looked at.
const EVERY: u64 = 4;

#[derive(Debug)]
pub(super) struct NoPhantom;

fn look(share: &Share<'_>, ledger: &Ledger) -> Verdict {
    let (node, shard, index) = (share.node, share.shard, share.index);
    for (stream, held) in held::by_stream(index) {
        if ledger.shard_of(&stream) != shard || ledger.is_mixed(&stream) {
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
        let (share, at) = (applied.share, applied.at.index);
        if at.is_multiple_of(EVERY) && ledger.is_latest(share.shard, at) {
            return look(share, ledger);
        }
        Ok(())
    }

    fn settled(&mut self, share: &Share<'_>, ledger: &Ledger) -> Verdict {
        look(share, ledger)
    }
}
