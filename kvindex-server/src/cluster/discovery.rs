//! Where other nodes may be: the configured list, with names of many addresses taken apart.

use std::collections::BTreeSet;

use crate::net::canonical;

/// Marks an entry whose name stands for many nodes.
const MANY: &str = "dns:";

/// Every address to greet. A name that cannot be resolved now is left out: it may resolve later.
pub(super) async fn addresses(peers: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for peer in peers {
        let Some(name) = peer.strip_prefix(MANY) else {
            found.insert(peer.clone());
            continue;
        };
        match tokio::net::lookup_host(name).await {
            Ok(addresses) => found.extend(addresses.map(|address| canonical(address).to_string())),
            Err(error) => tracing::debug!(name, %error, "the peers' name does not resolve"),
        }
    }
    found
}
