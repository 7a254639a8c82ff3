//! What of discovery is measured. Labels are words of this room, never names of pods.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::condition::{Condition, Conditions};
use super::engines::Found;
use super::states::{EngineState, States};
use super::verdict::Verdict;
use crate::roll::Rolled;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    condition: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    change: &'static str,
}

/// Discovery's numbers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    active: Gauge,
    conditions: Family<ConditionLabels, Gauge>,
    pods: Family<VerdictLabels, Gauge>,
    engines: Family<StateLabels, Gauge>,
    changes: Family<ChangeLabels, Counter>,
    kept: Gauge,
    failing: Gauge,
}

impl Gauges {
    pub(crate) fn describe(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("discovery");
        r.register("active", "1 on the node that looks for engines", self.active.clone());
        r.register(
            "condition",
            "1 while a condition holds that keeps engines from being found",
            self.conditions.clone(),
        );
        r.register("pods", "Selected pods by what became of them", self.pods.clone());
        r.register("engines", "Engines that were found, by how they come along", self.engines.clone());
        r.register(
            "changes",
            "Workers that entered, that left, and changes that were not made and are tried again",
            self.changes.clone(),
        );
        r.register(
            "kept_workers",
            "Workers that are kept although they are not seen: a watch fails, or new settings find nothing yet",
            self.kept.clone(),
        );
        r.register(
            "failing_seconds",
            "For how long a watch has failed; 0 when none does",
            self.failing.clone(),
        );
        self.clear();
    }

    pub(crate) fn active(&self, active: bool) {
        self.active.set(i64::from(active));
    }

    pub(crate) fn conditions(&self, conditions: &Conditions) {
        for condition in Condition::ALL {
            let labels = ConditionLabels { condition: condition.name() };
            self.conditions.get_or_create(&labels).set(i64::from(conditions.holds(condition)));
        }
    }

    pub(crate) fn found(&self, found: &Found, kept: usize) {
        for verdict in Verdict::OF_SELECTED {
            let selected = found.pods.iter().filter(|report| report.is_selected());
            let count = selected.filter(|report| report.verdict.word() == verdict).count();
            self.pods.get_or_create(&VerdictLabels { verdict }).set(clamp(count));
        }
        self.kept.set(clamp(kept));
    }

    pub(crate) fn states(&self, states: &States) {
        for state in EngineState::ALL {
            self.engines.get_or_create(&StateLabels { state: state.name() }).set(clamp(states.count(state)));
        }
    }

    pub(crate) fn rolled(&self, rolled: &Rolled) {
        let changes = [("entered", rolled.entered), ("left", rolled.left), ("failed", rolled.failed.len())];
        for (change, count) in changes {
            self.changes.get_or_create(&ChangeLabels { change }).inc_by(count as u64);
        }
    }

    pub(crate) fn failing(&self, failing: Option<Duration>) {
        let seconds = failing.map_or(0, |failing| failing.as_secs().max(1));
        self.failing.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Another node looks now: all but the counts is its to say.
    pub(crate) fn clear(&self) {
        self.active(false);
        self.conditions(&Conditions::default());
        self.states(&States::default());
        for verdict in Verdict::OF_SELECTED {
            self.pods.get_or_create(&VerdictLabels { verdict }).set(0);
        }
        self.kept.set(0);
        self.failing(None);
        self.rolled(&Rolled::default());
    }
}

fn clamp(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
