//! Which prefixes are asked for most, tenant by tenant: what one tenant's callers hear follows from its questions
//! alone. A question waits for nothing here: where a lock is taken, it is not counted.

mod sketch;

use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvindex_core::{IndexReader, Query, Scratch};

pub use sketch::HotPrefix;
use sketch::{Asked, Sketch};

/// Tenants that are counted; each has at most some 30 KiB of counters. Only those have any of whose prompts somebody
/// holds something, so names that are made up take no place.
const MAX_TENANTS: usize = 1024;

/// After so long without a question nothing of a tenant's counts is left, and its place is another's.
const FORGOTTEN: Duration = Duration::from_secs(1800);

/// How long it is not looked again whether a place became free.
const FULL_FOR: Duration = Duration::from_secs(60);

/// What all tenants ask for.
#[derive(Debug)]
pub(super) struct Hot {
    began: Instant,
    tenants: RwLock<BTreeMap<String, Arc<Tenant>>>,
    /// Until when there is no place for another tenant, in milliseconds since the beginning.
    full_until_ms: AtomicU64,
}

#[derive(Debug)]
struct Tenant {
    /// Questions so far, of which one in `step` is looked at.
    asked: AtomicU64,
    step: AtomicU64,
    sketch: Mutex<Sketch>,
    /// When a question was looked at last, in milliseconds since the node began.
    last_ms: AtomicU64,
}

/// A question that is to be looked at, once it is answered.
#[derive(Debug)]
pub(super) struct Look {
    tenant: Option<Arc<Tenant>>,
    /// Questions that it stands for.
    weight: u64,
}

/// What one tenant asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct HotTenant {
    /// Its name.
    pub tenant: String,
    /// Its questions in a second, as of the last minute.
    pub per_s: f64,
    /// Most asked first.
    pub prefixes: Vec<HotPrefix>,
}

impl Default for Hot {
    fn default() -> Self {
        Self { began: Instant::now(), tenants: RwLock::default(), full_until_ms: AtomicU64::new(0) }
    }
}

impl Hot {
    /// Whether a tenant's next question is to be looked at.
    pub(super) fn next(&self, tenant: &str) -> Option<Look> {
        let Some(known) = self.tenants.try_read()?.get(tenant).cloned() else {
            let full = self.full_until_ms.load(Ordering::Relaxed) > millis(self.began.elapsed());
            return (!full).then_some(Look { tenant: None, weight: 1 });
        };
        let (asked, step) =
            (known.asked.fetch_add(1, Ordering::Relaxed), known.step.load(Ordering::Relaxed).max(1));
        // Scattered, so that questions that come in rounds are not always the same ones.
        scatter(asked).is_multiple_of(step).then_some(Look { tenant: Some(known), weight: step })
    }

    /// Looks at a question that was answered with `scratch`.
    pub(super) fn note(&self, look: Look, reader: &IndexReader<'_>, query: &Query<'_>, scratch: &Scratch) {
        let held = scratch.held_prefix(reader);
        let asked = held.map(|held| Asked { model: query.model, lora: query.lora, held });
        let now = self.began.elapsed();
        let tenant = match look.tenant {
            Some(known) => known,
            None if asked.is_none() => return,
            None => match self.welcome(query.tenant, now) {
                Some(new) => new,
                None => return,
            },
        };
        if let Some(mut sketch) = tenant.sketch.try_lock() {
            sketch.note(now, look.weight, asked.as_ref());
            tenant.step.store(sketch.step(), Ordering::Relaxed);
            tenant.last_ms.store(millis(now), Ordering::Relaxed);
        }
    }

    /// What is asked for by each tenant that `sees` lets pass.
    pub(super) fn list(&self, sees: impl Fn(&str) -> bool) -> Vec<HotTenant> {
        let tenants: Vec<(String, Arc<Tenant>)> = {
            let tenants = self.tenants.read();
            let seen = tenants.iter().filter(|(name, _)| sees(name));
            seen.map(|(name, tenant)| (name.clone(), Arc::clone(tenant))).collect()
        };
        let listed = tenants.into_iter().map(|(name, tenant)| {
            let mut sketch = tenant.sketch.lock();
            let (prefixes, per_s) = sketch.list(self.began.elapsed());
            tenant.step.store(sketch.step(), Ordering::Relaxed);
            HotTenant { tenant: name, per_s, prefixes }
        });
        listed.collect()
    }

    /// A place for a tenant, if there is one.
    fn welcome(&self, tenant: &str, now: Duration) -> Option<Arc<Tenant>> {
        let mut tenants = self.tenants.try_write()?;
        if tenants.len() >= MAX_TENANTS {
            let kept = millis(now.saturating_sub(FORGOTTEN));
            tenants.retain(|_, tenant| tenant.last_ms.load(Ordering::Relaxed) >= kept);
        }
        let room = tenants.len() < MAX_TENANTS;
        let new = || Tenant {
            asked: AtomicU64::new(1),
            step: AtomicU64::new(1),
            sketch: Mutex::new(Sketch::new(now)),
            last_ms: AtomicU64::new(millis(now)),
        };
        match tenants.get(tenant) {
            // Another question of the tenant was first.
            Some(known) => Some(Arc::clone(known)),
            None if !room => {
                self.full_until_ms.store(millis(now + FULL_FOR), Ordering::Relaxed);
                None
            }
            None => Some(Arc::clone(tenants.entry(tenant.to_owned()).or_insert_with(|| Arc::new(new())))),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Neighbouring numbers far apart: the end of SplitMix64.
fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_have_so_many_places_and_who_asks_no_more_gives_its_away() {
        let (hot, begin) = (Hot::default(), Duration::ZERO);
        for number in 0..MAX_TENANTS {
            assert!(hot.welcome(&format!("tenant-{number}"), begin).is_some());
        }
        assert!(hot.welcome("tenant-0", begin).is_some(), "it is known");
        assert!(hot.welcome("another", begin).is_none());
        assert!(hot.next("another").is_none(), "and is not asked for again at once");
        assert!(hot.next("tenant-0").is_some());
        // All but one have gone silent.
        let later = FORGOTTEN + Duration::from_secs(1);
        let known = hot
            .welcome("tenant-7", begin)
            .map(|tenant| tenant.last_ms.store(millis(later), Ordering::Relaxed));
        assert!(known.is_some() && hot.welcome("another", later).is_some());
        let left: Vec<String> = hot.tenants.read().keys().cloned().collect();
        assert_eq!(left, ["another", "tenant-7"]);
    }
}
