//! Every node applies the same entries at the same positions, one after the other: what was applied once stays.

use kvindex_core::replication::LogPosition;

use super::{Applied, Invariant, Ledger, Share, Verdict};

#[derive(Debug)]
pub(super) struct OneLog;

impl Invariant for OneLog {
    fn name(&self) -> &'static str {
        "one log"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let (node, shard, index) = (applied.share.node, applied.share.shard, applied.at.index);
        if applied.before.is_some_and(|before| before.index >= index) {
            return Err(format!("node {node} applies {shard} entry {index} after {:?}", applied.before));
        }
        let Some(committed) = ledger.entry(shard, index) else {
            return Err(format!(
                "node {node} applies {shard} entry {index}, which others know as no command"
            ));
        };
        if committed.at != applied.at || committed.chain != applied.share.reached.chain {
            let (theirs, ours) = (committed.at, applied.at);
            return Err(format!(
                "node {node} applies another {shard} entry {index} than was applied before, or others before it: \
                 {ours:?}, not {theirs:?}"
            ));
        }
        Ok(())
    }

    fn installed(&mut self, share: &Share<'_>, at: LogPosition, ledger: &Ledger) -> Verdict {
        let (node, shard) = (share.node, share.shard);
        match ledger.entry(shard, at.index).filter(|committed| committed.at != at) {
            Some(committed) => Err(format!(
                "node {node} takes a snapshot of {shard} that ends at {at:?}, where the log has {:?}",
                committed.at
            )),
            None => Ok(()),
        }
    }
}
