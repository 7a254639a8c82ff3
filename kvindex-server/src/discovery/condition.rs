//! States of discovery that an operator has to know by name: each is a gauge, and one log line when it begins and one
//! when it ends, however often it is found again.

use std::collections::BTreeMap;

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Condition {
    /// There is no configuration to reach Kubernetes by, or it cannot be used.
    NotConfigured,
    /// The API server does not know who asks (401).
    Unauthorized,
    /// The API server does not allow it (403).
    Forbidden,
    /// The API server cannot be reached, fails or asks for patience.
    Unreachable,
    /// The selectors select no pod.
    SelectsNothing,
    /// The selectors select pods, and none is an engine.
    FindsNoEngine,
    /// More engines are found than may be known, or some are refused.
    NotRegistered,
}

impl Condition {
    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 7] = [
        Self::NotConfigured,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Unreachable,
        Self::SelectsNothing,
        Self::FindsNoEngine,
        Self::NotRegistered,
    ];

    /// Its word.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Unreachable => "unreachable",
            Self::SelectsNothing => "selects_nothing",
            Self::FindsNoEngine => "finds_no_engine",
            Self::NotRegistered => "not_registered",
        }
    }

    /// What an operator can do.
    #[must_use]
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::NotConfigured => {
                "run inside a cluster with a mounted service account token, or set KUBECONFIG"
            }
            Self::Unauthorized => {
                "the token is missing or expired: mount the service account's token, or renew the one in KUBECONFIG"
            }
            Self::Forbidden => {
                "allow get, list and watch of pods, services and endpointslices.discovery.k8s.io in the namespace, by a \
                 Role and a RoleBinding; for namespace * by a ClusterRole"
            }
            Self::Unreachable => "is the API server there, and may this node connect to it (NetworkPolicy)?",
            Self::SelectsNothing | Self::FindsNoEngine => {
                "kvindex discover --explain says for each pod what is missing"
            }
            Self::NotRegistered => "it is tried again; see max_workers and the cluster's state",
        }
    }
}

/// The conditions that hold, each with its message.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    holding: BTreeMap<Condition, String>,
}

impl Conditions {
    /// Says what is found now of one condition; answers whether it began.
    pub(crate) fn set(&mut self, condition: Condition, found: Option<String>) -> bool {
        let name = condition.name();
        match (found, self.holding.contains_key(&condition)) {
            (Some(message), false) => {
                tracing::warn!(condition = name, advice = condition.advice(), "discovery: {message}");
                self.holding.insert(condition, message);
                true
            }
            (Some(message), true) => {
                self.holding.insert(condition, message);
                false
            }
            (None, true) => {
                tracing::info!(condition = name, "discovery: this is over");
                self.holding.remove(&condition);
                false
            }
            (None, false) => false,
        }
    }

    pub(crate) fn holds(&self, condition: Condition) -> bool {
        self.holding.contains_key(&condition)
    }

    /// Nobody looks any more: what held is another node's to say.
    pub(crate) fn clear(&mut self) {
        self.holding.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_begins_once_and_ends_once() {
        let mut conditions = Conditions::default();
        let found = || Some("403".to_owned());
        assert!(conditions.set(Condition::Forbidden, found()));
        assert!(!conditions.set(Condition::Forbidden, found()), "it goes on");
        assert!(conditions.holds(Condition::Forbidden) && !conditions.holds(Condition::Unreachable));
        assert!(!conditions.set(Condition::Forbidden, None));
        assert!(!conditions.holds(Condition::Forbidden));
        assert!(conditions.set(Condition::Forbidden, found()), "it began again");
    }
}
