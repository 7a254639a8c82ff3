//! Counts of what the network does. Labels are doors, results and peers that this node has a link to.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::path::PathState;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    door: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MoveLabels {
    peer: String,
    from: &'static str,
    to: &'static str,
}

/// The network's numbers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct NetMetrics {
    connections: Family<DoorLabels, Gauge>,
    refused: Family<DoorLabels, Counter>,
    ends: Family<DoorLabels, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
    paths: Family<PeerLabels, Gauge>,
    moves: Family<MoveLabels, Counter>,
}

const STATES: [PathState; 3] = [PathState::Normal, PathState::Limited, PathState::Blocked];

impl NetMetrics {
    /// Adds them to what `/metrics` shows.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections by door", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections that were closed at once because the door had its most",
            self.refused.clone(),
        );
        registry.register(
            "tls_certificate_expiry_seconds",
            "When the certificate in use ends, in seconds since 1970",
            self.ends.clone(),
        );
        registry.register(
            "tls_reloads",
            "New certificates that were taken into use, or refused",
            self.reloads.clone(),
        );
        registry.register(
            "degrade_state_current",
            "How a peer is reached: 0 normal, 1 limited, 2 blocked",
            self.paths.clone(),
        );
        registry.register(
            "degrade_state_transitions",
            "Moves of a peer's path from one state to another",
            self.moves.clone(),
        );
    }

    pub(super) fn opened(&self, door: &'static str) {
        self.connections.get_or_create(&DoorLabels { door }).inc();
    }

    pub(super) fn closed(&self, door: &'static str) {
        self.connections.get_or_create(&DoorLabels { door }).dec();
    }

    pub(super) fn refused(&self, door: &'static str) {
        self.refused.get_or_create(&DoorLabels { door }).inc();
    }

    pub(super) fn certificate_ends(&self, door: &'static str, at: i64) {
        self.ends.get_or_create(&DoorLabels { door }).set(at);
    }

    pub(super) fn reloaded(&self, door: &'static str, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabels { door, result }).inc();
    }

    /// A link to a peer was opened.
    pub(crate) fn path_begins(&self, peer: &str) {
        self.paths.get_or_create(&PeerLabels { peer: peer.to_owned() }).set(0);
    }

    pub(crate) fn path_moved(&self, peer: &str, (from, to): (PathState, PathState)) {
        self.paths.get_or_create(&PeerLabels { peer: peer.to_owned() }).set(to as i64);
        let labels = MoveLabels { peer: peer.to_owned(), from: from.name(), to: to.name() };
        self.moves.get_or_create(&labels).inc();
    }

    /// A link was dropped: addresses that peers once had must not pile up.
    pub(crate) fn path_ends(&self, peer: &str) {
        self.paths.remove(&PeerLabels { peer: peer.to_owned() });
        for (from, to) in STATES.into_iter().flat_map(|from| STATES.map(|to| (from.name(), to.name()))) {
            self.moves.remove(&MoveLabels { peer: peer.to_owned(), from, to });
        }
    }
}
