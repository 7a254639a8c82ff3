//! What was acknowledged is applied, where the acknowledgement said, and stays so. A write that failed, or whose
//! outcome nobody knows, may be there or not.

use kvindex_core::replication::ShardId;
use std::collections::BTreeMap;

use super::{Acknowledged, Invariant, Ledger, Share, Verdict};

#[derive(Debug, Default)]
pub(super) struct NothingAcknowledgedLost {
    /// The last acknowledged entry of each shard.
    last: BTreeMap<ShardId, u64>,
}

impl Invariant for NothingAcknowledgedLost {
    fn name(&self) -> &'static str {
        "nothing acknowledged lost"
    }

    fn acknowledged(&mut self, acknowledged: &Acknowledged, ledger: &Ledger) -> Verdict {
        let (shard, node) = (acknowledged.shard, acknowledged.node);
        let Some(at) = ledger.place_of(shard, acknowledged.entry) else {
            return Err(format!("node {node} acknowledged an entry of {shard} that no node has applied"));
        };
        let last = self.last.entry(shard).or_default();
        *last = at.max(*last);
        Ok(())
    }

    fn settled(&mut self, share: &Share<'_>, _: &Ledger) -> Verdict {
        let (shard, node, applied) = (share.shard, share.node, share.reached.at.map(|at| at.index));
        match self.last.get(&shard).filter(|last| applied < Some(**last)) {
            Some(last) => Err(format!("{shard} entry {last} was acknowledged, node {node} has {applied:?}")),
            None => Ok(()),
        }
    }
}
