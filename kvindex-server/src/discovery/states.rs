//! How each engine that was found comes along: still loading, ready and heard, or ready and strangely silent. One log
//! line when that changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kvindex_core::WorkerId;

use super::definition::FoundEngine;
use super::roles::DECODE;

/// Silence of a ready engine after which it is worth a word. Nothing is wrong if no request came yet.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// How an engine comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EngineState {
    /// Its pod is not ready, or has been for a moment only.
    Loading,
    /// Its events come.
    Emitting,
    /// It is ready, and nothing was ever heard of it.
    Silent,
    /// It decodes, and says nothing: its prefix cache is off, as it should be.
    SilentDecode,
    /// It decodes, and announces blocks: its prefix cache is on, and answers will name it.
    EmittingDecode,
}

impl EngineState {
    pub(crate) const ALL: [Self; 5] =
        [Self::Loading, Self::Emitting, Self::Silent, Self::SilentDecode, Self::EmittingDecode];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Emitting => "emitting",
            Self::Silent => "silent",
            Self::SilentDecode => "silent_decode",
            Self::EmittingDecode => "emitting_decode",
        }
    }
}

/// The states of all engines that are found now.
#[derive(Debug, Default)]
pub(crate) struct States {
    engines: BTreeMap<WorkerId, Seen>,
}

#[derive(Debug)]
struct Seen {
    state: EngineState,
    /// Since when its pod is ready.
    ready: Option<Instant>,
}

impl States {
    /// Looks at every engine; `is_heard` says whether anything of a worker was ever applied.
    pub(crate) fn look(
        &mut self,
        found: &BTreeMap<WorkerId, FoundEngine>,
        is_heard: impl Fn(&FoundEngine) -> bool,
        now: Instant,
    ) {
        self.engines.retain(|worker, _| found.contains_key(worker));
        for (worker, engine) in found {
            let known = self.engines.get(worker);
            let ready = engine.ready.then(|| known.and_then(|seen| seen.ready).unwrap_or(now));
            let state = judge(engine, is_heard(engine), ready.map(|since| now.duration_since(since)));
            if known.map(|seen| seen.state) != Some(state) {
                tell(worker, state);
            }
            self.engines.insert(worker.clone(), Seen { state, ready });
        }
    }

    pub(crate) fn count(&self, state: EngineState) -> usize {
        self.engines.values().filter(|seen| seen.state == state).count()
    }

    pub(crate) fn clear(&mut self) {
        self.engines = BTreeMap::new();
    }
}

fn judge(engine: &FoundEngine, is_heard: bool, ready: Option<Duration>) -> EngineState {
    let decodes = engine.definition.spec.role.as_deref() == Some(DECODE);
    match (is_heard, decodes, ready) {
        (true, true, _) => EngineState::EmittingDecode,
        (true, false, _) => EngineState::Emitting,
        (false, true, Some(_)) => EngineState::SilentDecode,
        (false, false, Some(ready)) if ready >= SILENT_AFTER => EngineState::Silent,
        (false, _, _) => EngineState::Loading,
    }
}

fn tell(worker: &WorkerId, state: EngineState) {
    let name = state.name();
    match state {
        EngineState::Loading | EngineState::Emitting | EngineState::SilentDecode => {
            tracing::info!(%worker, state = name, "engine");
        }
        EngineState::Silent => tracing::warn!(
            %worker,
            state = name,
            "the engine is ready and has announced nothing for a minute: did no request come yet, or are its KV events off?"
        ),
        EngineState::EmittingDecode => tracing::warn!(
            %worker,
            state = name,
            "a decode engine announces blocks: its prefix cache is on, which prefill-decode mode does not want"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::discovery::engines::tests::engine;

    /// The state after each of `steps`: seconds, ready, heard.
    fn states(role: &str, steps: &[(u64, bool, bool)]) -> Vec<EngineState> {
        let (mut states, start) = (States::default(), Instant::now());
        let mut told = Vec::new();
        for (seconds, ready, heard) in steps {
            let (id, mut engine) = engine("p", role);
            engine.ready = *ready;
            let found = BTreeMap::from([(id, engine)]);
            states.look(&found, |_| *heard, start + Duration::from_secs(*seconds));
            told.push(states.engines.values().next().unwrap().state);
        }
        told
    }

    #[test]
    fn an_engine_loads_then_speaks_or_is_found_silent() {
        use EngineState::{Emitting, Loading, Silent};
        let steps = [(0, false, false), (500, false, false), (501, true, false), (560, true, false)];
        assert_eq!(states("prefill", &steps), [Loading; 4], "counted from when it became ready");
        let steps = [(0, true, false), (60, true, false), (61, true, true), (62, false, true)];
        assert_eq!(states("prefill", &steps), [Loading, Silent, Emitting, Emitting]);
        let steps = [(0, true, false), (30, false, false), (60, true, false), (100, true, false)];
        assert_eq!(states("prefill", &steps), [Loading; 4], "it was not ready in between");
    }

    #[test]
    fn a_decode_engine_is_silent_as_it_should_be() {
        use EngineState::{EmittingDecode, SilentDecode};
        let steps = [(0, true, false), (600, true, false), (601, true, true)];
        assert_eq!(states("decode", &steps), [SilentDecode, SilentDecode, EmittingDecode]);
    }

    #[test]
    fn who_is_not_found_any_more_is_counted_no_more() {
        let mut states = States::default();
        let found = BTreeMap::from([engine("p", "prefill")]);
        states.look(&found, |_| true, Instant::now());
        assert_eq!(states.count(EngineState::Emitting), 1);
        states.look(&BTreeMap::new(), |_| true, Instant::now());
        assert_eq!(states.count(EngineState::Emitting), 0);
    }
}
