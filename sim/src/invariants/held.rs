//! What an index holds of one stream, as the invariants look at it.

use kvindex_core::{EngineBlockHash, Index, StreamId, Tier};
use std::collections::BTreeMap;

use crate::cache::Truth;

/// What an index holds of each stream, by the engine's names.
pub(super) fn by_stream(index: &Index) -> BTreeMap<StreamId, Truth> {
    let mut all: BTreeMap<StreamId, Truth> = BTreeMap::new();
    for (stream, tier, _, name, copies) in index.reader().names() {
        all.entry(stream.clone()).or_default().insert((tier.clone(), name), copies);
    }
    all
}

/// What an index holds of one stream.
#[must_use]
pub(crate) fn of(index: &Index, stream: &StreamId) -> Truth {
    let reader = index.reader();
    let names = reader.names().filter(|(of, ..)| *of == stream);
    names.map(|(_, tier, _, name, copies)| ((tier.clone(), name), copies)).collect()
}

/// The first block that is held and not allowed.
pub(super) fn beyond(
    held: &Truth,
    allowed: impl Fn(&Tier, EngineBlockHash) -> bool,
) -> Option<(Tier, EngineBlockHash)> {
    held.keys().find(|(tier, name)| !allowed(tier, *name)).cloned()
}
