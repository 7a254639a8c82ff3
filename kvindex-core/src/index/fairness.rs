//! How much each tenant gives so that an index gets below a cap: max-min fair in bytes, because bytes are what is
//! scarce. Whoever has more than the level that all can have gives down to it, whoever has less gives nothing.

use std::collections::BTreeMap;

use super::reader::IndexReader;
use super::usage::TenantUsage;
use crate::ids::WorkerId;

/// What each tenant gives, in (block, owner) entries.
pub type Giving = BTreeMap<String, usize>;

impl IndexReader<'_> {
    /// What tenants give so that the index takes no more than `target` bytes: an estimate, because what goes along with
    /// an entry differs. Look again afterwards. `of` chooses the workers whose blocks may go.
    #[must_use]
    pub fn giving_to_bytes(&self, target: usize, of: impl Fn(&WorkerId) -> bool) -> Giving {
        let tenants = self.givers(of);
        let above = self.bytes().saturating_sub(target);
        let level = level(&tenants, |level| {
            tenants.iter().map(|tenant| above_level(tenant, level)).sum::<usize>() >= above
        });
        giving(&tenants, level)
    }

    /// What tenants give so that the index holds no more than `target` entries.
    #[must_use]
    pub fn giving_to_entries(&self, target: usize, of: impl Fn(&WorkerId) -> bool) -> Giving {
        let tenants = self.givers(of);
        let above = self.entry_count().saturating_sub(target);
        let level = level(&tenants, |level| {
            tenants.iter().map(|tenant| gives(tenant, level)).sum::<usize>() >= above
        });
        let mut giving = giving(&tenants, level);
        // The level is in bytes, so the last step may be many entries too far: the last ones keep them.
        let mut more = giving.values().sum::<usize>().saturating_sub(above);
        for entries in giving.values_mut().rev() {
            let kept = more.min(*entries);
            *entries -= kept;
            more -= kept;
        }
        giving.retain(|_, entries| *entries > 0);
        giving
    }

    /// Tenants with what the chosen workers hold of theirs.
    fn givers(&self, of: impl Fn(&WorkerId) -> bool) -> Vec<TenantUsage> {
        let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, owner) in self.registry().owners() {
            if let Some(stream) = self.registry().stream(owner.stream).filter(|stream| of(&stream.id.worker))
            {
                *chosen.entry(&stream.spec.tenant).or_default() += owner.blocks.len();
            }
        }
        let part_of = |usage: TenantUsage| {
            let entries = chosen.get(usage.tenant.as_str()).copied().filter(|entries| *entries > 0)?;
            let bytes = (usage.bytes as u128 * entries as u128 / usage.entries.max(1) as u128) as usize;
            Some(TenantUsage { entries, bytes, ..usage })
        };
        self.usage().tenants.into_iter().filter_map(part_of).collect()
    }
}

fn above_level(tenant: &TenantUsage, level: usize) -> usize {
    tenant.bytes.saturating_sub(level)
}

/// Entries that a tenant gives to get down to a level of bytes.
fn gives(tenant: &TenantUsage, level: usize) -> usize {
    let above = above_level(tenant, level) as u128;
    (tenant.entries as u128 * above).div_ceil(tenant.bytes.max(1) as u128) as usize
}

/// The highest level at which enough is given; 0 when it is not enough that all give everything.
fn level(tenants: &[TenantUsage], enough: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, tenants.iter().map(|tenant| tenant.bytes).max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if enough(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

fn giving(tenants: &[TenantUsage], level: usize) -> Giving {
    let all = tenants.iter().map(|tenant| (tenant.tenant.clone(), gives(tenant, level)));
    all.filter(|(_, entries)| *entries > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, entries: usize, bytes: usize) -> TenantUsage {
        TenantUsage { tenant: name.to_owned(), entries, bytes }
    }

    fn given(tenants: &[TenantUsage], above: usize) -> Vec<(String, usize)> {
        let enough = |level| tenants.iter().map(|tenant| above_level(tenant, level)).sum::<usize>() >= above;
        giving(tenants, level(tenants, enough)).into_iter().collect()
    }

    #[test]
    fn the_richest_in_bytes_give_first() {
        // `b` has most entries, and they cost little: its workers all hold the same.
        let tenants = [tenant("a", 1_000, 50_000), tenant("b", 9_000, 30_000), tenant("c", 10, 500)];
        assert_eq!(given(&tenants, 0), []);
        assert_eq!(given(&tenants, 20_000), [("a".to_owned(), 400)]);
        assert_eq!(given(&tenants, 40_000), [("a".to_owned(), 600), ("b".to_owned(), 3_000)]);
        assert_eq!(given(&tenants, 79_000), [("a".to_owned(), 990), ("b".to_owned(), 8_850)]);
        let all = [("a".to_owned(), 1_000), ("b".to_owned(), 9_000), ("c".to_owned(), 10)];
        assert_eq!(given(&tenants, 1_000_000), all);
        assert_eq!(given(&[], 5), []);
    }
}
