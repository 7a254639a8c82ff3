//! Every node applies the same entries at the same positions, one after the other: what was applied once stays.

use super::{Applied, Installed, Invariant, Ledger, Verdict};

#[derive(Debug)]
pub(super) struct OneLog;

impl Invariant for OneLog {
    fn name(&self) -> &'static str {
        "one log"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let (node, shard, index) = (applied.node, applied.shard, applied.at.index);
        if applied.before.is_some_and(|before| before.index >= index) {
            return Err(format!("node {node} applies {shard} entry {index} after {:?}", applied.before));
        }
        let Some(committed) = ledger.entry(shard, index) else {
            return Err(format!(
                "node {node} applies {shard} entry {index}, which others know as no command"
            ));
        };
        if committed.at != applied.at || committed.chain != applied.share.chain {
            let (theirs, ours) = (committed.at, applied.at);
            return Err(format!(
                "node {node} applies another {shard} entry {index} than was applied before, or others before it: \
                 {ours:?}, not {theirs:?}"
            ));
        }
        Ok(())
    }

    fn installed(&mut self, installed: &Installed<'_>, ledger: &Ledger) -> Verdict {
        let (node, shard) = (installed.node, installed.shard);
        let Some(at) = installed.share.at else { return Ok(()) };
        let committed = ledger.entry(shard, at.index);
        match committed.filter(|committed| committed.chain == installed.share.chain) {
            Some(_) => Ok(()),
            None => Err(format!("node {node} takes a snapshot of {shard} at {at:?} that no log leads to")),
        }
    }
}
