//! What was acknowledged is applied, where the acknowledgement said, and stays so. A write that failed, or whose
//! outcome nobody knows, may be there or not.

use kvindex_core::replication::ShardId;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{Acknowledged, Invariant, Ledger, Settled, Verdict};

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
        let Some(at) = acknowledged.at else {
            return Err(format!("node {node} acknowledged a write of {shard} before it was in the log"));
        };
        let committed = ledger.entry(shard, at.index).filter(|committed| committed.at == at);
        if committed.is_none_or(|committed| committed.entry != xxh3_64(&acknowledged.entry)) {
            return Err(format!("node {node} acknowledged {shard} entry {at:?}, which was not applied"));
        }
        let last = self.last.entry(shard).or_default();
        *last = at.index.max(*last);
        Ok(())
    }

    fn settled(&mut self, settled: &Settled<'_>, _: &Ledger) -> Verdict {
        for (shard, last) in &self.last {
            // A node that is no member of a shard has no share of it.
            let Some(share) = settled.shares.get(shard) else { continue };
            let applied = share.at.map(|at| at.index);
            if applied < Some(*last) {
                let node = settled.node;
                return Err(format!("{shard} entry {last} was acknowledged, node {node} has {applied:?}"));
            }
        }
        Ok(())
    }
}
