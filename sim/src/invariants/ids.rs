//! A node's id stands for what its data once promised, so it is given out once: who lost its data comes back under
//! another one.

use kvindex_core::replication::NodeId;
use std::collections::BTreeMap;

use super::{Invariant, Verdict};

#[derive(Debug, Default)]
pub(super) struct OneIdOneLife {
    /// Whose each id is: which node, and which incarnation of its disk.
    owners: BTreeMap<NodeId, (u64, u64)>,
}

impl Invariant for OneIdOneLife {
    fn name(&self) -> &'static str {
        "an id is given out once"
    }

    fn kept(&mut self, owner: (u64, u64), id: NodeId) -> Verdict {
        let first = *self.owners.entry(id).or_insert(owner);
        if first == owner {
            return Ok(());
        }
        Err(format!(
            "{id} was of node {} with disk {}, now of node {} with disk {}",
            first.0, first.1, owner.0, owner.1
        ))
    }
}
