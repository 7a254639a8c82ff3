//! After a cache was cleared, nothing is left of it but what was stored since.

use std::collections::BTreeSet;

use super::ledger::{ChangeOf, Effect};
use super::{Applied, Invariant, Ledger, Verdict, held};

#[derive(Debug)]
pub(super) struct ClearedIsEmpty;

impl Invariant for ClearedIsEmpty {
    fn name(&self) -> &'static str {
        "cleared means empty"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let Some(entry) = ledger.entry(applied.share.shard, applied.at.index) else { return Ok(()) };
        for (at, effect) in entry.effects.iter().enumerate() {
            let Effect::Batch { stream, changes, seq, .. } = effect else { continue };
            let Some(clear) = changes.iter().rposition(|change| matches!(change, ChangeOf::Clears(_))) else {
                continue;
            };
            let later = entry.effects[at + 1..].iter().filter_map(|effect| match effect {
                Effect::Batch { stream: of, changes, .. } if of == stream => Some(&changes[..]),
                _ => None,
            });
            let since = [&changes[clear..]].into_iter().chain(later).flatten();
            let mut stored = BTreeSet::new();
            for change in since {
                if let ChangeOf::Stores(tier, names) = change {
                    stored.extend(names.iter().map(|name| (tier.clone(), *name)));
                }
            }
            let ChangeOf::Clears(cleared) = &changes[clear] else { continue };
            let allowed = |tier: &_, name| {
                cleared.as_ref().is_some_and(|cleared| cleared != tier)
                    || stored.contains(&(tier.clone(), name))
            };
            if let Some(block) = held::beyond(&held::of(applied.share.index, stream), allowed) {
                let node = applied.share.node;
                return Err(format!(
                    "batch {seq} of {stream} clears {cleared:?}, node {node} keeps {block:?}"
                ));
            }
        }
        Ok(())
    }
}
