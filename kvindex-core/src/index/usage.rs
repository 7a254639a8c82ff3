//! How many bytes an index occupies, and whose they are: per tenant and per namespace, so that an operator sees who
//! fills it, and a cap knows when to evict. What the allocator adds to each allocation is counted, because with many
//! small runs it is a good part of the whole.
//!
//! Runs and names are counted as they change ([`sizes`](super::sizes), [`naming`](super::naming)), so that asking costs
//! a look at workers and owners and no walk.

use std::collections::BTreeMap;
use std::mem::size_of_val;

use super::naming::{Book, Naming};
use super::owner_blocks::{Map, OwnerBlocks};
use super::reader::IndexReader;
use super::registry::Owner;
use super::tree::Run;
use super::view::View;
use super::{Index, Stream};
use crate::worker::{Namespace, WorkerSpec};

/// What an index occupies: see [`IndexReader::usage`](crate::IndexReader::usage).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// All of it; the same as [`IndexStats::bytes`](crate::IndexStats::bytes). The tenants' bytes and `overhead`
    /// add up to it.
    pub bytes: usize,
    /// What is nobody's: the journal, and tables' room to grow.
    pub overhead: usize,
    /// By tenant, in order of their names.
    pub tenants: Vec<TenantUsage>,
}

/// A tenant's share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantUsage {
    /// Which.
    pub tenant: String,
    /// (Block, owner) entries of its workers.
    pub entries: usize,
    /// Bytes of its namespaces' runs, and of what its workers are known by.
    pub bytes: usize,
}

/// A namespace's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// Which.
    pub namespace: Namespace,
    /// (Block, owner) pairs in its runs.
    pub entries: usize,
    /// Distinct blocks.
    pub blocks: usize,
    /// Runs they are packed into.
    pub runs: usize,
    /// Bytes of these runs, who holds them and what they are called; of an owner's own names as many as lie here.
    pub bytes: usize,
}

/// Bytes that an allocation of so many takes from the system: glibc puts 8 in front, rounds up to 16, and gives no
/// less than 32.
pub(crate) fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { ((bytes + 8).next_multiple_of(16)).max(32) }
}

/// What a vector holds.
pub(crate) fn vec_bytes<T>(capacity: usize) -> usize {
    allocated(capacity * size_of::<T>())
}

/// About what a B-tree holds: nodes of eleven, two thirds full when there are several.
pub(crate) fn tree_bytes<K, V>(len: usize) -> usize {
    let nodes = if len <= 11 { len.min(1) } else { len / 7 };
    nodes * allocated(11 * (size_of::<K>() + size_of::<V>()) + 16)
}

/// Bytes of a worker's description.
pub(crate) fn spec_bytes(spec: &WorkerSpec) -> usize {
    let optional = [&spec.engine_version, &spec.address, &spec.service, &spec.role, &spec.pd_group];
    let optional = optional.into_iter().flatten().map(|text| allocated(text.capacity()));
    let pod = spec.pod.iter().flat_map(|pod| [&pod.namespace, &pod.name, &pod.uid]);
    let labels = spec.labels.iter().flat_map(|(key, value)| [key, value]);
    let texts = [&spec.model, &spec.tenant].into_iter().chain(pod).chain(labels);
    allocated(16 + size_of_val(spec))
        + allocated(16 + spec.id.as_str().len())
        + texts.map(|text| allocated(text.capacity())).sum::<usize>()
        + optional.sum::<usize>()
        + tree_bytes::<String, String>(spec.labels.len())
        + allocated(size_of_val(spec.groups.as_slice()))
}

/// A run's share of one namespace, and of the tables that all runs are found by.
#[derive(Default)]
struct Share {
    entries: usize,
    blocks: usize,
    runs: usize,
    names: usize,
    bytes: usize,
}

impl<'i> IndexReader<'i> {
    /// What the index occupies, to within a few per cent. Looks at every worker and owner, but at no block or run.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut tenants: BTreeMap<&str, TenantUsage> = BTreeMap::new();
        self.add_runs(&mut tenants);
        self.add_names(&mut tenants);
        for worker in self.registry().workers() {
            tenants.entry(&worker.spec.tenant).or_default().bytes += spec_bytes(&worker.spec);
        }
        for (_, owner) in self.registry().owners() {
            let Some(stream) = self.registry().stream(owner.stream) else { continue };
            let tenant = tenants.entry(&stream.spec.tenant).or_default();
            tenant.bytes += owner.blocks.heap_bytes() + size_of::<Owner>();
            tenant.entries += owner.blocks.len();
        }
        let named = |(name, usage): (&str, TenantUsage)| TenantUsage { tenant: name.to_owned(), ..usage };
        let tenants: Vec<TenantUsage> = tenants.into_iter().map(named).collect();
        let (bytes, given) = (self.bytes(), tenants.iter().map(|tenant| tenant.bytes).sum());
        Usage { bytes, overhead: bytes.saturating_sub(given), tenants }
    }

    /// Adds what tenants' runs take, and their part of the tables in which runs stand.
    fn add_runs(&self, tenants: &mut BTreeMap<&'i str, TenantUsage>) {
        let tree = self.tree();
        let heads = tree.heads_bytes() / tree.run_count().max(1);
        let each = size_of::<Run>() + Naming::RUN_BYTES + size_of::<u32>() + heads;
        for (space, namespace) in (0u32..).zip(self.index().view.spaces.all()) {
            let size = tree.sizes().of(space);
            tenants.entry(&namespace.tenant).or_default().bytes += size.bytes + size.runs * each;
        }
    }

    /// Adds what tenants' shared names take, and their part of the table that finds them.
    fn add_names(&self, tenants: &mut BTreeMap<&'i str, TenantUsage>) {
        let naming = &self.index().naming;
        let mut books: Vec<(&str, &str)> =
            self.index().view.spaces.all().iter().map(|space| (&*space.tenant, &*space.model)).collect();
        books.sort_unstable();
        books.dedup();
        for (tenant, model) in books {
            let (size, all) = naming.sizes(Book::of(tenant, model));
            let found_by = naming.table_bytes() as u128 * size.names as u128 / all.names.max(1) as u128;
            tenants.entry(tenant).or_default().bytes += size.bytes + found_by as usize;
        }
    }

    /// What each namespace takes. Walks all runs.
    #[must_use]
    pub fn namespaces(&self) -> Vec<NamespaceUsage> {
        let shares = self.shares();
        let names = self.index().naming.table_bytes();
        let all_names = shares.iter().map(|share| share.names).sum::<usize>().max(1);
        let mut namespaces = Vec::new();
        for (namespace, share) in self.spaces().all().iter().zip(&shares) {
            let found_by = (names as u128 * share.names as u128 / all_names as u128) as usize;
            let (bytes, namespace) = (share.bytes + found_by, namespace.clone());
            let Share { entries, blocks, runs, .. } = *share;
            namespaces.push(NamespaceUsage { namespace, entries, blocks, runs, bytes });
        }
        for (_, owner) in self.registry().owners() {
            self.divide(&owner.blocks, owner.blocks.heap_bytes(), &mut namespaces);
        }
        namespaces
    }

    /// Divides an owner's bytes among the namespaces in which its own names lie.
    fn divide(&self, blocks: &OwnerBlocks, bytes: usize, namespaces: &mut [NamespaceUsage]) {
        let mut lie: Map<u32, usize> = Map::default();
        let mut all = 0;
        for (run, n) in blocks.stretches() {
            all += n;
            if let Some(run) = run.and_then(|run| self.tree().run(run)) {
                *lie.entry(run.space).or_default() += n;
            }
        }
        for (space, n) in lie {
            if let Some(usage) = namespaces.get_mut(space as usize) {
                usage.bytes += (bytes as u128 * n as u128 / all as u128) as usize;
            }
        }
    }

    /// What runs take, by namespace.
    fn shares(&self) -> Vec<Share> {
        let (tree, naming) = (self.tree(), &self.index().naming);
        let mut shares: Vec<Share> = Vec::new();
        shares.resize_with(self.spaces().all().len(), Share::default);
        let (heads, all) = (tree.heads_bytes(), tree.run_count().max(1));
        for (number, run) in tree.runs() {
            let Some(share) = shares.get_mut(run.space as usize) else { continue };
            let (names, name_bytes) = naming.run_bytes(number);
            share.entries += run.holders.held();
            share.blocks += run.blocks.len();
            share.runs += 1;
            share.names += names;
            share.bytes += size_of_val(run) + run.heap_bytes() + name_bytes + size_of::<u32>();
        }
        for share in &mut shares {
            share.bytes += heads / all * share.runs;
        }
        shares
    }

    /// Bytes of the whole index; costs a look at every worker and owner.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let index = self.index();
        let owners = self.registry().owners().map(|(_, owner)| owner.blocks.heap_bytes());
        size_of::<Index>()
            + allocated(size_of::<View>() + 64)
            + self.tree().heap_bytes()
            + self.spaces().heap_bytes()
            + index.view.slots.heap_bytes()
            + index.naming.heap_bytes()
            + allocated(self.journal().heap_bytes())
            + vec_bytes::<u32>(self.ages().capacity())
            + vec_bytes::<u64>(index.chain.capacity())
            + self.registry().heap_bytes()
            + owners.sum::<usize>()
    }
}

impl Stream {
    pub(crate) fn heap_bytes(&self) -> usize {
        vec_bytes::<u32>(self.slots.capacity())
            + vec_bytes::<super::Incident>(self.incidents.capacity())
            + self.groups.heap_bytes()
            + self.reports.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_take_at_least_thirty_two_bytes() {
        assert_eq!([0, 1, 24, 25, 40, 41].map(allocated), [0, 32, 32, 48, 48, 64]);
    }
}
