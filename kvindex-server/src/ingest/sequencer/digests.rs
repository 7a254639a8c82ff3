//! Digests of the batches applied last: they tell a duplicate from another life's batch of the same number.

use std::collections::VecDeque;

use crate::ingest::limits::DIGEST_WINDOW;

/// Digests of the last applied batches, and of batch 0 for ever, since every life has one.
#[derive(Debug, Default)]
pub(super) struct Digests {
    zero: Option<u64>,
    window: VecDeque<(u64, u64)>,
}

impl Digests {
    /// Notes an applied batch; numbers only ever grow.
    pub(super) fn insert(&mut self, seq: u64, digest: u64) {
        if seq == 0 {
            self.zero = Some(digest);
        }
        if self.window.len() >= DIGEST_WINDOW {
            self.window.pop_front();
        }
        self.window.push_back((seq, digest));
    }

    /// The digest applied as `seq`, if it still is remembered.
    pub(super) fn get(&self, seq: u64) -> Option<u64> {
        if seq == 0 {
            return self.zero;
        }
        let at = self.window.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        self.window.get(at).map(|(_, digest)| *digest)
    }

    /// The last applied batch.
    pub(super) fn last(&self) -> Option<(u64, u64)> {
        self.window.back().copied()
    }
}
