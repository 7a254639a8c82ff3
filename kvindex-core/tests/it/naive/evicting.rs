//! Eviction in the naive model: it cannot know what is oldest, so it is told what is left, and checks how much went of
//! whom.

use std::collections::{BTreeMap, BTreeSet};

use kvindex_core::{EngineBlockHash, StreamId, Tier};

use super::compare::hold;
use super::{Naive, Place};

/// Names left, by stream and tier.
pub(crate) type Kept = BTreeSet<(StreamId, Tier, EngineBlockHash)>;

/// Names of one tenant.
#[derive(Default)]
struct Tenant {
    held: usize,
    gone: usize,
    /// How many lie at each place.
    at: BTreeMap<Place, usize>,
}

impl Naive {
    /// Gives up all but what is `kept`, when that is a fair way to get rid of so many entries. Answers who lost any.
    pub(crate) fn evict(
        &mut self,
        entries: usize,
        gone: usize,
        kept: &Kept,
    ) -> Result<BTreeSet<StreamId>, String> {
        let mut tenants: BTreeMap<String, Tenant> = BTreeMap::new();
        let mut losers = BTreeSet::new();
        for worker in self.workers.values_mut() {
            let tenant = tenants.entry(worker.spec.tenant.clone()).or_default();
            for (rank, stream) in &mut worker.streams {
                let id = StreamId { worker: worker.spec.id.clone(), dp_rank: *rank };
                for (tier, held) in &mut stream.tiers {
                    tenant.held += held.names.len();
                    for place in held.names.values().filter_map(|name| name.place) {
                        *tenant.at.entry(place).or_default() += 1;
                    }
                    let before = held.names.len();
                    let stays = |name: &EngineBlockHash| kept.contains(&(id.clone(), tier.clone(), *name));
                    held.names.retain(|name, _| stays(name));
                    held.orphans.retain(|name, _| stays(name));
                    tenant.gone += before - held.names.len();
                    if held.names.len() < before {
                        losers.insert(id.clone());
                    }
                }
            }
        }
        let all: usize = tenants.values().map(|tenant| tenant.gone).sum();
        hold(all == gone, || format!("{gone} entries evicted, but {all} are gone"))?;
        for (name, gives) in fair(&tenants, entries) {
            let Tenant { gone, at, .. } = &tenants[&name];
            // What lies at one place goes together.
            let most = gives + at.values().max().map_or(0, |names| names - 1);
            let fair = (gives..=if gives == 0 { 0 } else { most }).contains(gone);
            hold(fair, || format!("{gone} entries of {name} are gone, expected {gives} to {most}"))?;
        }
        Ok(losers)
    }
}

/// What each tenant gives: entry by entry the one that has most, of several the first by name.
fn fair(tenants: &BTreeMap<String, Tenant>, entries: usize) -> BTreeMap<String, usize> {
    let mut gives: BTreeMap<String, usize> = tenants.keys().map(|name| (name.clone(), 0)).collect();
    for _ in 0..entries {
        let left = gives.iter().rev().map(|(name, gives)| (tenants[name].held - gives, name.clone()));
        if let Some((1.., name)) = left.max_by_key(|(left, _)| *left) {
            gives.entry(name).and_modify(|gives| *gives += 1);
        }
    }
    gives
}
