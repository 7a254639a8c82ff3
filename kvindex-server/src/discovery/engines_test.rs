//! Tests of which pods are engines, and why others are not.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::discovery::seen::{Container, Life, Port, Service, Slice};
use crate::net::IpFamily;
use crate::workers::WorkerDefinition;

pub(crate) fn settings() -> DiscoveryConfig {
    DiscoveryConfig { pod_selector: Some("app=vllm".parse().unwrap()), ..DiscoveryConfig::default() }
}

pub(crate) fn name(text: &str) -> Name {
    Name { namespace: "ns".into(), name: text.into() }
}

pub(crate) fn port(name: &str, number: u16) -> Port {
    Port { name: name.into(), number }
}

/// A running engine pod.
pub(crate) fn pod(called: &str, address: &str) -> Pod {
    let labels = [("app", "vllm"), ("openfuyao.com/model", "qwen")];
    Pod {
        name: name(called),
        uid: format!("uid-{called}"),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        annotations: BTreeMap::new(),
        addresses: vec![address.parse().unwrap()],
        phase: "Running".into(),
        terminating: false,
        ready: true,
        created: 1000,
        containers: vec![Container {
            name: "engine".into(),
            ports: vec![port("http", 8000), port("zmq-pub", 5557), port("zmq-replay", 5600)],
            life: Some(Life { started: 1010, restarts: 0, id: "containerd://1".into() }),
            waits_for: String::new(),
        }],
    }
}

pub(crate) fn engine(called: &str, role: &str) -> (WorkerId, FoundEngine) {
    let mut pod = pod(called, "10.0.0.1");
    pod.labels.insert("openfuyao.com/pdRole".into(), role.into());
    let found = judge(&seen(vec![pod]), &settings(), GapPolicy::Purge);
    found.engines.into_iter().next().unwrap()
}

pub(crate) fn seen(pods: Vec<Pod>) -> Seen {
    Seen { pods: pods.into_iter().map(Arc::new).collect(), ..Seen::default() }
}

fn found(pods: Vec<Pod>) -> Found {
    judge(&seen(pods), &settings(), GapPolicy::Purge)
}

/// The verdict on one pod after a change of it, and of the settings.
fn verdict(change: impl FnOnce(&mut Pod, &mut DiscoveryConfig)) -> PodReport {
    let (mut pod, mut settings) = (pod("p", "10.0.0.1"), settings());
    change(&mut pod, &mut settings);
    judge(&seen(vec![pod]), &settings, GapPolicy::Purge).pods.remove(0)
}

fn only(found: &Found) -> &WorkerDefinition {
    assert_eq!(found.engines.len(), 1, "{:?}", found.pods);
    &found.engines.values().next().unwrap().definition
}

#[test]
fn labels_and_ports_become_a_worker() {
    let mut pod = pod("vllm-0", "10.0.0.1");
    for (key, value) in [
        ("openfuyao.com/engine", "sglang"),
        ("openfuyao.com/pdRole", "prefill"),
        ("openfuyao.com/pdGroupID", "g1"),
        ("openfuyao.com/dpSize", "2"),
        ("openfuyao.com/tpSize", "8"),
        ("pod-template-hash", "abc"),
    ] {
        pod.labels.insert(key.into(), value.into());
    }
    let found = found(vec![pod]);
    let definition = only(&found);
    let spec = &definition.spec;
    assert_eq!((spec.model.as_str(), spec.engine), ("qwen", kvindex_core::EngineKind::Sglang));
    assert_eq!((spec.role.as_deref(), spec.pd_group.as_deref()), (Some("prefill"), Some("g1")));
    assert_eq!(spec.address.as_deref(), Some("10.0.0.1:8000"));
    assert_eq!(spec.pod.as_ref().unwrap().uid, "uid-vllm-0");
    assert_eq!(spec.labels.get("openfuyao.com/tpSize").map(String::as_str), Some("8"));
    assert!(!spec.labels.contains_key("pod-template-hash"), "a roll-out is no other engine");
    let streams: Vec<_> = definition
        .streams
        .iter()
        .map(|s| (s.dp_rank.0, s.endpoint.as_str(), s.replay_endpoint.as_deref().unwrap()))
        .collect();
    let expected = [
        (0, "tcp://10.0.0.1:5557", "tcp://10.0.0.1:5600"),
        (1, "tcp://10.0.0.1:5558", "tcp://10.0.0.1:5601"),
    ];
    assert_eq!(streams, expected);
    assert!(spec.id.as_str().starts_with("ns.vllm-0."), "{}", spec.id);
}

#[test]
fn a_worker_is_one_life_of_one_container() {
    let id = |change: &dyn Fn(&mut Pod)| {
        let mut pod = pod("p", "10.0.0.1");
        change(&mut pod);
        only(&found(vec![pod])).spec.id.clone()
    };
    let first = id(&|_| ());
    let same: [&dyn Fn(&mut Pod); 4] = [
        &|_| (),
        &|pod| pod.ready = false,
        &|pod| drop(pod.labels.insert("more".into(), "labels".into())),
        &|pod| pod.addresses = vec!["10.0.0.9".parse().unwrap()],
    ];
    for change in same {
        assert_eq!(id(change), first);
    }
    let others: [&dyn Fn(&mut Pod); 5] = [
        &|pod| pod.uid = "another".into(),
        &|pod| pod.containers[0].life.as_mut().unwrap().restarts = 1,
        &|pod| pod.containers[0].life.as_mut().unwrap().started = 1011,
        &|pod| pod.containers[0].life.as_mut().unwrap().id = "containerd://2".into(),
        &|pod| pod.containers[0].ports[1].number = 5558,
    ];
    let mut all: BTreeSet<WorkerId> = others.into_iter().map(id).collect();
    all.insert(first);
    assert_eq!(all.len(), 6, "each is another life: {all:?}");
}

#[test]
fn long_names_stay_within_a_workers() {
    let mut long = pod("p", "10.0.0.1");
    long.name = Name { namespace: "n".repeat(63), name: "p".repeat(253) };
    let id = only(&found(vec![long])).spec.id.clone();
    assert!(id.as_str().len() <= kvindex_core::limits::MAX_NAME_BYTES, "{}", id.as_str().len());
}

#[test]
fn each_pod_that_is_no_engine_has_its_reason() {
    type Change = fn(&mut Pod, &mut DiscoveryConfig);
    let cases: [(&str, Change, &str, &str); 13] = [
        (
            "not selected",
            |p, _| drop(p.labels.insert("app".into(), "proxy".into())),
            "not_selected",
            "the pod has app=proxy",
        ),
        ("no such label", |p, _| drop(p.labels.remove("app")), "not_selected", "no label app"),
        ("deleted", |p, _| p.terminating = true, "gone", "being deleted"),
        ("failed", |p, _| p.phase = "Failed".into(), "gone", "Failed"),
        ("succeeded", |p, _| p.phase = "Succeeded".into(), "gone", "Succeeded"),
        (
            "a proxy",
            |p, _| drop(p.containers[0].ports.remove(1)),
            "no_port",
            "no port is named zmq-pub (http 8000",
        ),
        ("no ports", |p, _| p.containers[0].ports.clear(), "no_port", "it declares none"),
        (
            "crashed",
            |p, _| {
                p.containers[0].life = None;
                p.containers[0].waits_for = "CrashLoopBackOff".into();
            },
            "not_yet",
            "CrashLoopBackOff",
        ),
        ("no address", |p, _| p.addresses.clear(), "not_yet", "no address"),
        ("no model", |p, _| drop(p.labels.remove("openfuyao.com/model")), "refused", "openfuyao.com/model"),
        (
            "engine",
            |p, _| drop(p.labels.insert("openfuyao.com/engine".into(), "tgi".into())),
            "refused",
            "tgi",
        ),
        (
            "ranks",
            |p, _| drop(p.labels.insert("openfuyao.com/dpSize".into(), "two".into())),
            "refused",
            "dpSize=two",
        ),
        (
            "ports meet",
            |p, _| drop(p.labels.insert("openfuyao.com/dpSize".into(), "100".into())),
            "refused",
            "dpSize: ",
        ),
    ];
    for (case, change, word, part) in cases {
        let report = verdict(change);
        let reason = report.verdict.reason();
        assert_eq!((report.verdict.word(), reason.contains(part)), (word, true), "{case}: {reason}");
    }
}

#[test]
fn ports_without_names_are_found_by_number() {
    let unnamed = |pod: &mut Pod| pod.containers[0].ports = vec![port("", 8000), port("", 7777)];
    let report = verdict(|pod, settings| {
        unnamed(pod);
        settings.ports.publish_number = Some(7777);
        settings.ports.replay_number = Some(7800);
    });
    assert!(report.is_engine(), "{report:?}");
    assert_eq!(report.streams, ["tcp://10.0.0.1:7777"]);
    let report = verdict(|pod, settings| {
        pod.containers[0].ports.clear();
        settings.ports.publish_number = Some(7777);
    });
    assert!(report.is_engine(), "the only container is the engine's: {report:?}");
    let report = verdict(|pod, settings| {
        pod.containers[0].ports.clear();
        pod.containers.push(pod.containers[0].clone());
        settings.ports.publish_number = Some(7777);
    });
    assert!(report.verdict.reason().contains("2 containers"), "{report:?}");
}

#[test]
fn what_an_engine_lacks_is_noted() {
    let report = verdict(|pod, _| pod.containers[0].ports = vec![port("zmq-pub", 5557)]);
    assert!(report.is_engine() && report.notes.len() == 2, "{report:?}");
    let report = verdict(|pod, _| drop(pod.labels.insert("openfuyao.com/pdRole".into(), "router".into())));
    assert_eq!((report.is_engine(), report.role.as_str()), (true, "router"));
    assert!(report.notes[0].contains("no role"), "{report:?}");
}

#[test]
fn a_models_name_with_a_slash_stands_in_an_annotation() {
    let mut pod = pod("p", "10.0.0.1");
    pod.labels.remove("openfuyao.com/model");
    pod.annotations.insert("openfuyao.com/model".into(), "Qwen/Qwen3-8B".into());
    assert_eq!(only(&found(vec![pod])).spec.model, "Qwen/Qwen3-8B");
}

#[test]
fn the_preferred_family_is_taken_where_there_is_one() {
    let mut both = pod("p", "10.0.0.1");
    both.addresses.push("fd00::1".parse().unwrap());
    for (family, endpoint) in [
        (IpFamily::Any, "tcp://10.0.0.1:5557"),
        (IpFamily::Ipv4, "tcp://10.0.0.1:5557"),
        (IpFamily::Ipv6, "tcp://[fd00::1]:5557"),
    ] {
        let settings = DiscoveryConfig { family, ..settings() };
        let found = judge(&seen(vec![both.clone()]), &settings, GapPolicy::Purge);
        assert_eq!(only(&found).streams[0].endpoint, endpoint);
    }
    let report = verdict(|_, settings| settings.family = IpFamily::Ipv6);
    assert_eq!(report.streams, ["tcp://10.0.0.1:5557"], "a preference, no condition");
    assert!(report.notes[0].contains("ip_family"), "{report:?}");
    let report =
        verdict(|pod, _| pod.addresses = vec!["fe80::1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
    assert_eq!(report.streams, ["tcp://10.0.0.2:5557"], "a link-local address has no zone here");
}

fn service(called: &str, pods: &[&str]) -> (Service, Slice) {
    let slice = Slice {
        name: name(&format!("{called}-x")),
        service: called.into(),
        pods: pods.iter().map(|pod| format!("uid-{pod}")).collect(),
        others: 0,
    };
    (Service { name: name(called) }, slice)
}

fn behind(services: Vec<(Service, Slice)>, pods: Vec<Pod>, settings: &DiscoveryConfig) -> Found {
    let (services, slices): (Vec<_>, Vec<_>) = services.into_iter().unzip();
    let seen = Seen {
        services: services.into_iter().map(Arc::new).collect(),
        slices: slices.into_iter().map(Arc::new).collect(),
        ..seen(pods)
    };
    judge(&seen, settings, GapPolicy::Purge)
}

#[test]
fn pods_behind_a_selected_service_and_pods_that_match_are_engines() {
    let mut other = pod("other", "10.0.0.2");
    other.labels.insert("app".into(), "else".into());
    let both = DiscoveryConfig { service_selector: Some("svc=yes".parse().unwrap()), ..settings() };
    let services = || vec![service("engines", &["other"])];
    let found = behind(services(), vec![pod("p", "10.0.0.1"), other.clone()], &both);
    assert_eq!(found.engines.len(), 2, "{:?}", found.pods);
    let of_service: Vec<_> = found.engines.values().map(|e| e.definition.spec.service.as_deref()).collect();
    assert_eq!(of_service, [Some("engines"), None]);
    let services_only = DiscoveryConfig { pod_selector: None, ..both };
    let found = behind(services(), vec![pod("p", "10.0.0.1"), other], &services_only);
    assert_eq!(found.engines.len(), 1, "{:?}", found.pods);
    assert_eq!(found.lives.len(), 2, "the one that is not selected lives all the same");
}

#[test]
fn a_slice_of_another_service_selects_nothing() {
    let settings = DiscoveryConfig {
        service_selector: Some("svc=yes".parse().unwrap()),
        pod_selector: None,
        ..settings()
    };
    let (mine, _) = service("mine", &[]);
    let (_, others) = service("others", &["p"]);
    let found = behind(vec![(mine, others)], vec![pod("p", "10.0.0.1")], &settings);
    assert_eq!((found.engines.len(), found.selection.selected), (0, 0));
    assert_eq!(found.selection.why_nothing().unwrap(), "no pod is behind Service ns/mine");
}

#[test]
fn a_service_that_fronts_only_the_proxy_says_so() {
    let mut proxy = pod("proxy", "10.0.0.2");
    proxy.containers[0].ports = vec![port("http", 8000)];
    let settings = DiscoveryConfig {
        service_selector: Some("svc=yes".parse().unwrap()),
        pod_selector: None,
        ..settings()
    };
    let pods = || vec![proxy.clone(), pod("prefill", "10.0.0.3")];
    let found = behind(vec![service("pd", &["proxy"])], pods(), &settings);
    assert_eq!((found.engines.len(), found.selection.selected), (0, 1));
    let why = found.selection.why_nothing().unwrap();
    assert!(why.contains("ns/pd") && why.contains("discovery_pod_selector"), "{why}");
    let with_pods = DiscoveryConfig { pod_selector: Some("app=vllm".parse().unwrap()), ..settings };
    let found = behind(vec![service("pd", &["proxy"])], pods(), &with_pods);
    assert_eq!((found.engines.len(), found.selection.why_nothing()), (1, None));
}

#[test]
fn of_two_pods_with_one_address_the_later_one_has_it() {
    let (old, mut new) = (pod("old", "10.0.0.1"), pod("new", "10.0.0.1"));
    new.containers[0].life.as_mut().unwrap().started = 2000;
    for pods in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]] {
        let found = found(pods);
        assert!(only(&found).spec.id.as_str().starts_with("ns.new."), "{:?}", found.pods);
        let old = found.pods.iter().find(|report| report.pod == "ns/old").unwrap();
        assert!(old.verdict.reason().contains("belongs to ns/new"), "{old:?}");
    }
    // Ranks count ports up, so one rank may meet another engine's port.
    let mut two_ranks = pod("ranks", "10.0.0.1");
    two_ranks.labels.insert("openfuyao.com/dpSize".into(), "2".into());
    new.containers[0].ports[1].number = 5558;
    assert!(only(&found(vec![two_ranks, new])).spec.id.as_str().starts_with("ns.new."));
}
