//! What has to change so that the workers that are known are those that were found. Pure: who registers, and how,
//! is [`crate::roll`]'s business.

use std::collections::BTreeSet;

use kvindex_core::WorkerId;

use super::engines::Found;
use super::view::Current;
use crate::node::{KnownWorker, Origin};
use crate::roll::Leaving;
use crate::workers::WorkerDefinition;

/// Changes, in the order in which they are to be made: who leaves an address leaves before another enters it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// Workers to be forgotten, with where they publish.
    pub(crate) leave: Vec<Leaving>,
    /// Workers to become known, or known by another definition.
    pub(crate) enter: Vec<WorkerDefinition>,
    /// Workers that would leave if what is seen were current, or the settings had found anything before.
    pub(crate) kept: usize,
    /// Workers that somebody else registered under the name of one that was found: they stay as they are.
    pub(crate) foreign: Vec<WorkerId>,
}

#[cfg(test)]
impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.leave.is_empty() && self.enter.is_empty()
    }
}

/// Compares what was found with what is known. Somebody leaves only on the word of a watch that is current: a pod that
/// is not there any more on that of the pods', a pod that no Service selects any more also on that of the services'.
/// While the settings are `untried` and find no engine, only those leave whose pods are seen to have ended: the rest may
/// be there and not be asked for.
pub(crate) fn plan(found: &Found, known: &[KnownWorker], current: Current, untried: bool) -> Plan {
    let mut plan = Plan::default();
    let holds = untried && found.engines.is_empty();
    let mut unchanged = BTreeSet::new();
    for known in known {
        let id = &known.definition.spec.id;
        match (found.engines.get(id), known.origin) {
            (Some(engine), Origin::Discovered) if engine.definition == known.definition => {
                unchanged.insert(id);
            }
            (Some(_), Origin::Discovered) | (None, Origin::Static | Origin::Registered) => {}
            (Some(_), Origin::Static | Origin::Registered) => {
                unchanged.insert(id);
                plan.foreign.push(id.clone());
            }
            (None, Origin::Discovered) => {
                let lives = found.lives.contains(id);
                let is_held = holds && (lives || !is_seen(found, &known.definition));
                if current.pods && (current.selection || !lives) && !is_held {
                    plan.leave.push(Leaving::of(&known.definition));
                } else {
                    plan.kept += 1;
                }
            }
        }
    }
    if current.pods {
        let entering = found.engines.iter().filter(|(id, _)| !unchanged.contains(id));
        plan.enter = entering.map(|(_, engine)| engine.definition.clone()).collect();
    }
    plan
}

/// Whether the worker's pod is there, as an engine or as none.
fn is_seen(found: &Found, definition: &WorkerDefinition) -> bool {
    let Some(pod) = &definition.spec.pod else { return false };
    let name = format!("{}/{}", pod.namespace, pod.name);
    found.pods.iter().any(|report| report.pod == name)
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
