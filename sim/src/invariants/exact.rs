//! The index says what the engine itself would: all of it when every batch was heard or when it claims to be complete,
//! and never more.

use kvindex_core::Coverage;

use super::{Applied, Invariant, Ledger, Share, Verdict, held};
use crate::cache::Truth;

/// Every how many-th entry is looked at.
const EVERY: u64 = 4;

#[derive(Debug)]
pub(super) struct AsTheEngineSays;

fn look(share: &Share<'_>, ledger: &Ledger) -> Verdict {
    let (node, shard, index) = (share.node, share.shard, share.index);
    let mut all = held::by_stream(index);
    for (stream, standing) in &ledger.standings {
        let Some((seq, lives)) = standing.applied.zip(standing.lives.as_ref()) else { continue };
        if standing.mixed
            || ledger.shard_of(stream) != shard
            || index.reader().worker(&stream.worker).is_none()
        {
            continue;
        }
        let held = all.remove(stream).unwrap_or_default();
        let claims = index.reader().stream(stream).is_some_and(|stamp| stamp.coverage == Coverage::Complete);
        let exact = standing.whole || claims;
        let truths = || lives.iter().filter_map(|life| ledger.truth(stream, *life, seq));
        let agrees = |truth: &Truth| match exact {
            true => held == *truth,
            false => held.iter().all(|(block, copies)| truth.get(block).is_some_and(|most| copies <= most)),
        };
        // Declared lost was the very last batch: nothing tells what the engine held after it.
        if !truths().any(|truth| agrees(truth)) && (exact || truths().next().is_some()) {
            let counts = truths().map(|truth| truth.len()).collect::<Vec<_>>();
            let more = truths()
                .next()
                .and_then(|t| held::beyond(&held, |tier, n| t.contains_key(&(tier.clone(), n))));
            return Err(format!(
                "node {node} holds {} blocks of {stream} at {standing:?}{}, the engine {counts:?}; too much: {more:?}",
                held.len(),
                if claims { " and claims to be complete" } else { "" }
            ));
        }
    }
    Ok(())
}

impl Invariant for AsTheEngineSays {
    fn name(&self) -> &'static str {
        "as the engine says"
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
