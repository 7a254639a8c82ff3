//! A JSON object whose entries stay in their order, best first: some of those who read them take the first.

use serde::{Serialize, Serializer};

/// Names with values; each name once.
#[derive(Debug, PartialEq)]
pub(super) struct Ordered<V>(pub(super) Vec<(String, V)>);

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Keeps the first of each name. What comes best first, stays so.
pub(super) fn first_of_each<V>(entries: impl IntoIterator<Item = (String, V)>) -> Vec<(String, V)> {
    let mut seen = std::collections::HashSet::new();
    entries.into_iter().filter(|(name, _)| seen.insert(name.clone())).collect()
}
