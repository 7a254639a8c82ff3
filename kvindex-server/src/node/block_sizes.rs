//! With which block sizes the workers of a model were registered. Counted as workers come and go, because every question
//! by hashes that names none asks for it.

use std::collections::BTreeMap;

use crate::workers::WorkerDefinition;

/// Workers by tenant, model and block size; `None` for those that were told none.
#[derive(Debug, Default)]
pub(super) struct BlockSizes {
    tenants: BTreeMap<String, BTreeMap<String, BTreeMap<Option<u32>, usize>>>,
}

impl BlockSizes {
    /// Counts a worker that came.
    pub(super) fn add(&mut self, worker: &WorkerDefinition) {
        let (tenant, model) = (worker.spec.tenant.clone(), worker.spec.model.clone());
        let sizes = self.tenants.entry(tenant).or_default().entry(model).or_default();
        *sizes.entry(worker.told_block_size()).or_default() += 1;
    }

    /// Counts out one that went. Nothing is kept of a tenant or a model that has no more workers.
    pub(super) fn remove(&mut self, worker: &WorkerDefinition) {
        let (tenant, model, size) = (&worker.spec.tenant, &worker.spec.model, worker.told_block_size());
        let Some(models) = self.tenants.get_mut(tenant) else { return };
        let Some(sizes) = models.get_mut(model) else { return };
        if let Some(count) = sizes.get_mut(&size) {
            *count -= 1;
            if *count == 0 {
                sizes.remove(&size);
            }
        }
        if sizes.is_empty() {
            models.remove(model);
        }
        if models.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Those of a tenant's model, each once; empty where it has no worker.
    pub(super) fn of(&self, tenant: &str, model: &str) -> Vec<Option<u32>> {
        let sizes = self.tenants.get(tenant).and_then(|models| models.get(model));
        sizes.map(|sizes| sizes.keys().copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::workers::{BLOCK_SIZE_LABEL, RawWorker};

    fn worker(id: &str, size: &str) -> WorkerDefinition {
        let labels = [(BLOCK_SIZE_LABEL.to_owned(), size.to_owned())];
        let raw = RawWorker {
            worker_id: id.into(),
            model: "m".into(),
            labels: labels.into_iter().filter(|_| !size.is_empty()).collect(),
            ..RawWorker::default()
        };
        raw.check(kvindex_core::GapPolicy::default()).unwrap()
    }

    #[test]
    fn a_size_is_there_as_long_as_a_worker_of_it() {
        let mut sizes = BlockSizes::default();
        let of = |sizes: &BlockSizes| sizes.of("default", "m");
        assert_eq!(of(&sizes), []);
        for worker in [worker("a", "16"), worker("b", "16"), worker("c", "32"), worker("d", "")] {
            sizes.add(&worker);
        }
        assert_eq!(of(&sizes), [None, Some(16), Some(32)]);
        assert_eq!((sizes.of("default", "n"), sizes.of("other", "m")), (vec![], vec![]));
        sizes.remove(&worker("a", "16"));
        sizes.remove(&worker("c", "32"));
        assert_eq!(of(&sizes), [None, Some(16)]);
        sizes.remove(&worker("b", "16"));
        sizes.remove(&worker("d", ""));
        assert!(of(&sizes).is_empty() && sizes.tenants.is_empty(), "{sizes:?}");
    }
}
