//! From what is seen of a cluster to the workers that shall be known, with a reason for every pod that is none. A
//! pure function: equal views give equal workers on every node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvindex_core::{GapPolicy, WorkerId};

use super::definition::{FoundEngine, engine_of};
use super::seen::{Name, Pod, Seen};
use super::verdict::{PodReport, Selection, ServiceReport, Verdict};
use crate::config::DiscoveryConfig;

/// What discovery makes of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// The workers that shall be known.
    pub engines: BTreeMap<WorkerId, FoundEngine>,
    /// Workers whose pods are there and run, selected or not.
    pub lives: BTreeSet<WorkerId>,
    /// Every pod, with what became of it and why.
    pub pods: Vec<PodReport>,
    /// What the selectors found.
    pub selection: Selection,
}

/// Judges every pod.
#[must_use]
pub(crate) fn judge(seen: &Seen, config: &DiscoveryConfig, gap_policy: GapPolicy) -> Found {
    let behind = pods_behind_services(seen);
    let mut judged: Vec<(PodReport, Option<FoundEngine>)> = Vec::with_capacity(seen.pods.len());
    let mut lives = BTreeSet::new();
    for pod in &seen.pods {
        let services = behind.get(pod.uid.as_str());
        let (report, engine) = judge_pod(pod, services, config, gap_policy);
        lives.extend(engine.as_ref().map(|engine| engine.definition.spec.id.clone()));
        let selected = report.is_selected();
        judged.push((report, engine.filter(|_| selected)));
    }
    give_addresses_to_the_latest(&mut judged);
    let selection = selection(seen, config, &judged);
    let (mut pods, mut engines) = (Vec::with_capacity(judged.len()), BTreeMap::new());
    for (report, engine) in judged {
        pods.push(report);
        engines.extend(engine.map(|engine| (engine.definition.spec.id.clone(), engine)));
    }
    pods.sort_by(|a, b| a.pod.cmp(&b.pod));
    Found { engines, lives, pods, selection }
}

/// The selected services behind which each pod is, by its UID.
fn pods_behind_services(seen: &Seen) -> BTreeMap<&str, BTreeSet<&Name>> {
    let wanted: BTreeMap<(&str, &str), &Name> = seen
        .services
        .iter()
        .map(|service| ((service.name.namespace.as_str(), service.name.name.as_str()), &service.name))
        .collect();
    let mut behind: BTreeMap<&str, BTreeSet<&Name>> = BTreeMap::new();
    for slice in &seen.slices {
        if let Some(service) = wanted.get(&(slice.name.namespace.as_str(), slice.service.as_str())) {
            for pod in &slice.pods {
                behind.entry(pod).or_default().insert(service);
            }
        }
    }
    behind
}

fn judge_pod(
    pod: &Arc<Pod>,
    services: Option<&BTreeSet<&Name>>,
    config: &DiscoveryConfig,
    gap_policy: GapPolicy,
) -> (PodReport, Option<FoundEngine>) {
    let mut report = PodReport::of(pod);
    report.services = services.into_iter().flatten().map(|service| service.name.clone()).collect();
    report.by_pod_selector = config.pod_selector.as_ref().is_some_and(|s| s.matches(&pod.labels));
    if !report.is_selected() {
        report.verdict = Verdict::NotSelected { failed: failed_terms(pod, config) };
    }
    match engine_of(pod, &mut report, config, gap_policy) {
        Ok(engine) => {
            if report.is_selected() {
                report.verdict = Verdict::Engine { worker: engine.definition.spec.id.to_string() };
            }
            (report, Some(engine))
        }
        Err(verdict) => {
            if report.is_selected() {
                report.verdict = verdict;
            }
            (report, None)
        }
    }
}

fn failed_terms(pod: &Pod, config: &DiscoveryConfig) -> Vec<String> {
    let mut failed = Vec::new();
    if let Some(selector) = &config.pod_selector {
        failed.extend(selector.failing(&pod.labels).map(|term| {
            let key = &term.key;
            match pod.labels.get(key) {
                Some(value) => format!("{term}: the pod has {key}={value}"),
                None => format!("{term}: the pod has no label {key}"),
            }
        }));
    }
    if config.service_selector.is_some() {
        failed.push("it is behind no Service that the service selector selects".to_owned());
    }
    failed
}

/// Two pods cannot have one address: what the older one says of itself is what was not told yet.
fn give_addresses_to_the_latest(judged: &mut [(PodReport, Option<FoundEngine>)]) {
    let mut owners: BTreeMap<String, (usize, (i64, i64, String))> = BTreeMap::new();
    for (number, (_, engine)) in judged.iter().enumerate() {
        let Some(engine) = engine else { continue };
        for stream in &engine.definition.streams {
            let claim = (number, engine.since.clone());
            match owners.get(&stream.endpoint) {
                Some((_, since)) if *since >= claim.1 => {}
                _ => drop(owners.insert(stream.endpoint.clone(), claim)),
            }
        }
    }
    for number in 0..judged.len() {
        let Some((_, Some(engine))) = judged.get(number) else { continue };
        let mut endpoints = engine.definition.streams.iter().map(|stream| &stream.endpoint);
        let lost = endpoints.find_map(|endpoint| {
            let (owner, _) = owners.get(endpoint).filter(|(owner, _)| *owner != number)?;
            Some((endpoint.clone(), *owner))
        });
        let Some((endpoint, owner)) = lost else { continue };
        let owner = judged.get(owner).map_or_else(String::new, |(report, _)| report.pod.clone());
        if let Some((report, engine)) = judged.get_mut(number) {
            *engine = None;
            report.verdict =
                Verdict::Refused { reason: format!("{endpoint} belongs to {owner}, which is newer") };
        }
    }
}

fn selection(
    seen: &Seen,
    config: &DiscoveryConfig,
    judged: &[(PodReport, Option<FoundEngine>)],
) -> Selection {
    let reports = || judged.iter().map(|(report, _)| report);
    let services = seen.services.iter().map(|service| {
        let name = &service.name;
        let fronts = |report: &&PodReport| {
            report.namespace() == name.namespace && report.services.contains(&name.name)
        };
        let others = seen
            .slices
            .iter()
            .filter(|slice| slice.name.namespace == name.namespace && slice.service == name.name)
            .map(|slice| slice.others)
            .sum();
        ServiceReport {
            service: name.to_string(),
            pods: reports().filter(fronts).count(),
            engines: reports().filter(fronts).filter(|report| report.is_engine()).count(),
            others,
        }
    });
    let mut services: Vec<ServiceReport> = services.collect();
    services.sort_by(|a, b| a.service.cmp(&b.service));
    Selection {
        pod_selector: config.pod_selector.as_ref().map(ToString::to_string),
        service_selector: config.service_selector.as_ref().map(ToString::to_string),
        pods: seen.pods.len(),
        selected: reports().filter(|report| report.is_selected()).count(),
        engines: judged.iter().filter(|(_, engine)| engine.is_some()).count(),
        services,
    }
}

#[cfg(test)]
#[path = "engines_test.rs"]
pub(crate) mod tests;
