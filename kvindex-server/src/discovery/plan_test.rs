//! Tests of who enters and who leaves, and on whose word.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::discovery::engines::judge;
use crate::discovery::engines::tests::{pod, seen, settings};
use crate::discovery::seen::Pod;
use kvindex_core::{GapPolicy, Registration};

const CURRENT: Current = Current { pods: true, selection: true };

fn found(pods: Vec<Pod>) -> Found {
    judge(&seen(pods), &settings(), GapPolicy::Purge)
}

fn known(found: &Found, origin: Origin) -> Vec<KnownWorker> {
    let known = |definition: &WorkerDefinition| KnownWorker {
        definition: definition.clone(),
        origin,
        since: 0,
        registration: Registration(1),
    };
    found.engines.values().map(|engine| known(&engine.definition)).collect()
}

/// How many enter, leave and are kept.
fn numbers(plan: &Plan) -> (usize, usize, usize) {
    (plan.enter.len(), plan.leave.len(), plan.kept)
}

#[test]
fn what_was_found_enters_once() {
    let there = found(vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")]);
    assert_eq!(numbers(&plan(&there, &[], CURRENT, false)), (2, 0, 0));
    assert!(plan(&there, &known(&there, Origin::Discovered), CURRENT, false).is_empty());
}

#[test]
fn a_container_that_started_again_leaves_and_enters_at_the_same_address() {
    let before = found(vec![pod("a", "10.0.0.1")]);
    let mut again = pod("a", "10.0.0.1");
    again.containers[0].life.as_mut().unwrap().restarts = 1;
    let plan = plan(&found(vec![again]), &known(&before, Origin::Discovered), CURRENT, false);
    assert_eq!(numbers(&plan), (1, 1, 0));
    assert!(plan.leave[0].endpoints.contains(&plan.enter[0].streams[0].endpoint));
    assert_ne!(plan.leave[0].worker, plan.enter[0].spec.id);
}

#[test]
fn new_words_about_a_worker_replace_the_old_ones() {
    let before = found(vec![pod("a", "10.0.0.1")]);
    let mut relabelled = pod("a", "10.0.0.1");
    relabelled.labels.insert("openfuyao.com/pdRole".into(), "decode".into());
    let plan = plan(&found(vec![relabelled]), &known(&before, Origin::Discovered), CURRENT, false);
    assert_eq!(numbers(&plan), (1, 0, 0));
}

#[test]
fn nobody_leaves_while_the_watch_of_pods_fails() {
    let before = found(vec![pod("a", "10.0.0.1")]);
    let gone = found(vec![pod("b", "10.0.0.1")]);
    let stale = Current { pods: false, selection: true };
    assert_eq!(numbers(&plan(&gone, &known(&before, Origin::Discovered), stale, false)), (0, 0, 1));
    assert_eq!(numbers(&plan(&gone, &known(&before, Origin::Discovered), CURRENT, false)), (1, 1, 0));
}

#[test]
fn while_the_watch_of_services_fails_only_the_dead_leave() {
    let before = found(vec![pod("a", "10.0.0.1")]);
    let known = known(&before, Origin::Discovered);
    let stale = Current { pods: true, selection: false };
    let mut unselected = pod("a", "10.0.0.1");
    unselected.labels.remove("app");
    assert_eq!(numbers(&plan(&found(vec![unselected.clone()]), &known, stale, false)), (0, 0, 1));
    assert_eq!(numbers(&plan(&found(vec![unselected]), &known, CURRENT, false)), (0, 1, 0));
    assert_eq!(numbers(&plan(&found(vec![]), &known, stale, false)), (0, 1, 0));
    let mut deleted = pod("a", "10.0.0.1");
    deleted.terminating = true;
    assert_eq!(numbers(&plan(&found(vec![deleted]), &known, stale, false)), (0, 1, 0));
}

#[test]
fn workers_of_others_are_left_alone() {
    let there = found(vec![pod("a", "10.0.0.1")]);
    for origin in [Origin::Static, Origin::Registered] {
        assert_eq!(numbers(&plan(&found(vec![]), &known(&there, origin), CURRENT, false)), (0, 0, 0));
        let plan = plan(&there, &known(&there, origin), CURRENT, false);
        assert_eq!((numbers(&plan), plan.foreign.len()), ((0, 0, 0), 1));
    }
}

#[test]
fn settings_that_never_found_anything_forget_nobody_but_the_ended() {
    let before = found(vec![pod("a", "10.0.0.1")]);
    let known = known(&before, Origin::Discovered);
    assert_eq!(numbers(&plan(&found(vec![]), &known, CURRENT, true)), (0, 0, 1));
    assert_eq!(numbers(&plan(&found(vec![]), &known, CURRENT, false)), (0, 1, 0));
    let mut unselected = pod("a", "10.0.0.1");
    unselected.labels.remove("app");
    assert_eq!(numbers(&plan(&found(vec![unselected]), &known, CURRENT, true)), (0, 0, 1));
    let mut deleted = pod("a", "10.0.0.1");
    deleted.terminating = true;
    assert_eq!(numbers(&plan(&found(vec![deleted]), &known, CURRENT, true)), (0, 1, 0), "its end is seen");
    let other = found(vec![pod("b", "10.0.0.2")]);
    assert_eq!(numbers(&plan(&other, &known, CURRENT, true)), (1, 1, 0), "they find something");
}
