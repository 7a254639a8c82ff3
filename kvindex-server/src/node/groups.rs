//! The best of each prefill-decode group: what a router needs to choose a pair in one call.

use std::collections::BTreeMap;

use super::TrustedMatch;

/// The best workers of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupBest {
    /// The group.
    pub pd_group: String,
    /// Best for prefill.
    pub prefill: Option<TrustedMatch>,
    /// Best for decode.
    pub decode: Option<TrustedMatch>,
}

/// Picks from `workers`, best first, the first of each role in each group. A worker that names no role, or
/// `aggregate`, serves both; workers without a group are in none.
pub(super) fn best_of_groups(workers: &[TrustedMatch]) -> Vec<GroupBest> {
    let mut groups: BTreeMap<&str, GroupBest> = BTreeMap::new();
    for worker in workers {
        let spec = &worker.matched.worker;
        let Some(name) = spec.pd_group.as_deref() else {
            continue;
        };
        let empty = || GroupBest { pd_group: name.into(), prefill: None, decode: None };
        let group = groups.entry(name).or_insert_with(empty);
        let role = spec.role.as_deref().unwrap_or("aggregate");
        // Old charts misspell it; the fleet's labels cannot be mended from here.
        let both = matches!(role, "aggregate" | "aggregated" | "aggreagted");
        if group.prefill.is_none() && (both || role == "prefill") {
            group.prefill = Some(worker.clone());
        }
        if group.decode.is_none() && (both || role == "decode") {
            group.decode = Some(worker.clone());
        }
    }
    groups.into_values().collect()
}
