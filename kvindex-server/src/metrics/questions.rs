//! What questions asked for and what their answers were worth: the hit ratio of a fleet, and how much of it rests on
//! streams that are not live.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::trust::TrustState;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Clones share the numbers.
#[derive(Debug)]
pub(super) struct Questions {
    tokens: Family<KindLabels, Counter>,
    answers: Family<StateLabels, Counter>,
    /// The families' members, so that a question takes no lock to find them.
    asked: Counter,
    matched: Counter,
    by_state: [Counter; TrustState::ALL.len()],
}

impl Default for Questions {
    fn default() -> Self {
        let (tokens, answers) =
            (Family::<KindLabels, Counter>::default(), Family::<StateLabels, Counter>::default());
        let (asked, matched) = (
            tokens.get_or_create_owned(&KindLabels { kind: "asked" }),
            tokens.get_or_create_owned(&KindLabels { kind: "matched" }),
        );
        let by_state =
            TrustState::ALL.map(|state| answers.get_or_create_owned(&StateLabels { state: state.name() }));
        Self { tokens, answers, asked, matched, by_state }
    }
}

impl Questions {
    pub(super) fn count(&self, asked: u64, best: u64, states: impl Iterator<Item = TrustState>) {
        self.asked.inc_by(asked);
        self.matched.inc_by(best);
        let mut counts = [0; TrustState::ALL.len()];
        for state in states {
            let place = TrustState::ALL.iter().zip(&mut counts).find(|(known, _)| **known == state);
            if let Some((_, count)) = place {
                *count += 1;
            }
        }
        for (counter, count) in self.by_state.iter().zip(counts) {
            counter.inc_by(count);
        }
    }

    pub(super) fn describe(&self, registry: &mut Registry) {
        registry.register(
            "query_tokens",
            "Tokens of the prompts that were asked for, and of them those that the best worker of each answer holds",
            self.tokens.clone(),
        );
        registry.register(
            "query_workers",
            "Workers in answers, by the state of their stream",
            self.answers.clone(),
        );
    }
}
