//! Where there is a cap on the index's bytes, every node is below its own once all has come to rest, and what was
//! evicted was not more than that takes.

use kvindex_core::Command;

use super::{Applied, Invariant, Ledger, Share, Verdict};
use crate::plan::Caps;

#[derive(Debug)]
pub(super) struct BelowCap {
    caps: Caps,
}

impl BelowCap {
    pub(super) fn new(caps: Caps) -> Self {
        Self { caps }
    }
}

impl Invariant for BelowCap {
    fn name(&self) -> &'static str {
        "below the cap"
    }

    /// Evictions stop a twentieth below the lowest cap. What entries cost is an estimate, and tables shrink by half, so
    /// less than half of it is too much.
    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let (share, at) = (applied.share, applied.at.index);
        let Some(lowest) = self.caps.lowest() else { return Ok(()) };
        let evicts = |command: &Command| matches!(command, Command::Forget(_));
        let left = share.index.reader().bytes();
        if left < lowest / 2
            && ledger.is_latest(share.shard, at)
            && ledger.said(share.shard, at).iter().any(evicts)
        {
            let node = share.node;
            return Err(format!(
                "node {node} has {left} bytes left after an eviction, the lowest cap is {lowest}"
            ));
        }
        Ok(())
    }

    fn settled(&mut self, share: &Share<'_>, _: &Ledger) -> Verdict {
        let (node, bytes) = (share.node, share.index.reader().bytes());
        match self.caps.of_node(node) {
            Some(cap) if bytes > cap && share.index.reader().entry_count() > 0 => {
                Err(format!("node {node} has {bytes} bytes at rest, its cap is {cap}"))
            }
            _ => Ok(()),
        }
    }
}
