//! From a pod's ports, labels and life to the definition of its worker, or the reason why there is none.
//!
//! A worker's name holds its life: namespace and pod for people, then a digest of the pod's UID, the container, its
//! start and its port. A container that starts again in the same pod is another worker, because its cache is empty.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kvindex_core::{GapPolicy, PodRef};
use xxhash_rust::xxh3::xxh3_64;

use super::roles;
use super::seen::{Container, Life, Name, Pod, Port};
use super::verdict::{PodReport, Verdict};
use crate::config::DiscoveryConfig;
use crate::workers::{RawWorker, WorkerDefinition};

/// Longest part of a pod's name in a worker's: with a namespace of 63 and the rest it stays below 256 bytes.
const MAX_POD_NAME: usize = 170;
/// Longest label that a worker carries; Kubernetes allows keys of 317 bytes.
const MAX_LABEL: usize = kvindex_core::limits::MAX_NAME_BYTES;

/// An engine that was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoundEngine {
    /// The worker that shall be known.
    pub definition: WorkerDefinition,
    /// Whether its pod says that it can serve.
    pub ready: bool,
    /// Which of two that claim one address is the later one.
    pub(super) since: (i64, i64, String),
}

/// The engine in a pod, or why there is none.
pub(super) fn engine_of(
    pod: &Pod,
    report: &mut PodReport,
    config: &DiscoveryConfig,
    gap_policy: GapPolicy,
) -> Result<FoundEngine, Verdict> {
    if pod.terminating {
        return Err(Verdict::Gone { reason: "it is being deleted".into() });
    }
    if matches!(pod.phase.as_str(), "Succeeded" | "Failed") {
        return Err(Verdict::Gone { reason: format!("its phase is {}", pod.phase) });
    }
    let (container, port) = publisher(pod, config)?;
    let Some(life) = &container.life else {
        let why = if container.waits_for.is_empty() { "is not started yet" } else { &container.waits_for };
        return Err(Verdict::NotYet { reason: format!("container {} does not run: {why}", container.name) });
    };
    let Some(address) = address(pod, config, &mut report.notes) else {
        return Err(Verdict::NotYet { reason: "it has no address yet".into() });
    };
    let raw = raw_worker(pod, container, (address, port, life), config, report)?;
    let definition = raw
        .check(gap_policy)
        .map_err(|error| Verdict::Refused { reason: name_label(&error.field, &error.message, config) })?;
    report.streams = definition.streams.iter().map(|stream| stream.endpoint.clone()).collect();
    Ok(FoundEngine { definition, ready: pod.ready, since: (life.started, pod.created, pod.uid.clone()) })
}

/// The container that publishes, and on which port.
fn publisher<'a>(pod: &'a Pod, config: &DiscoveryConfig) -> Result<(&'a Container, u16), Verdict> {
    let ports = &config.ports;
    let named = |container: &'a Container| {
        let port = container.ports.iter().find(|port| port.name == ports.publish)?;
        Some((container, port.number))
    };
    if let Some(found) = pod.containers.iter().find_map(named) {
        return Ok(found);
    }
    let Some(number) = ports.publish_number else {
        let there: Vec<String> = pod.containers.iter().flat_map(|c| &c.ports).map(port_text).collect();
        let there = if there.is_empty() { "it declares none".into() } else { there.join(", ") };
        let reason = format!(
            "no port is named {} ({there}): name it so, or set discovery_port_name or discovery_port",
            ports.publish
        );
        return Err(Verdict::NoPort { reason });
    };
    let declares = |container: &&Container| container.ports.iter().any(|port| port.number == number);
    match (pod.containers.iter().find(declares), pod.containers.as_slice()) {
        (Some(container), _) | (None, [container]) => Ok((container, number)),
        (None, containers) => {
            let reason = format!(
                "none of its {} containers declares port {number} (discovery_port), so it is not known whose restarts \
                 count",
                containers.len()
            );
            Err(Verdict::NoPort { reason })
        }
    }
}

fn port_text(port: &Port) -> String {
    if port.name.is_empty() { port.number.to_string() } else { format!("{} {}", port.name, port.number) }
}

/// The pod's address of the preferred family, else its primary one.
fn address(pod: &Pod, config: &DiscoveryConfig, notes: &mut Vec<String>) -> Option<IpAddr> {
    let usable = |address: &&IpAddr| {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !address.is_unspecified() && !link_local
    };
    let mut addresses = pod.addresses.iter().filter(usable);
    let first = *addresses.clone().next()?;
    let preferred = addresses.find(|address| config.family.has(address)).copied();
    if preferred.is_none() {
        notes.push(format!("it has no address of the family that ip_family prefers: {first} is taken"));
    }
    Some(preferred.unwrap_or(first))
}

fn raw_worker(
    pod: &Pod,
    container: &Container,
    (address, port, life): (IpAddr, u16, &Life),
    config: &DiscoveryConfig,
    report: &mut PodReport,
) -> Result<RawWorker, Verdict> {
    let keys = &config.labels;
    let said = |key: &str| pod.labels.get(key).or_else(|| pod.annotations.get(key)).map(String::as_str);
    let refused = |reason: String| Verdict::Refused { reason };
    let Some(model) = said(&keys.model).filter(|model| !model.is_empty()) else {
        return Err(refused(format!("it has no label or annotation {}, which names the model", keys.model)));
    };
    let engine = roles::engine(said(&keys.engine)).map_err(|text| {
        refused(format!("{}={text}: the engines that are understood are vllm and sglang", keys.engine))
    })?;
    let ranks = match said(&keys.dp_size).unwrap_or("1").trim().parse::<u32>() {
        Ok(ranks) if ranks > 0 => ranks,
        _ => {
            let text = said(&keys.dp_size).unwrap_or_default();
            return Err(refused(format!("{}={text}: must be a number of at least 1", keys.dp_size)));
        }
    };
    let role = roles::role(said(&keys.role));
    if !roles::is_known(&role) {
        report.notes.push(format!("{}={role} is no role that is known here; it is kept as it is", keys.role));
    }
    let replay = replay_port(container, config);
    if replay.is_none() {
        report.notes.push(format!(
            "no port is named {}: batches that are lost cannot be fetched again",
            config.ports.replay
        ));
    }
    let http = http_port(pod, container, config);
    if http.is_none() {
        report.notes.push(format!(
            "no port is named {} (discovery_http_port_name): answers carry no address",
            config.ports.http
        ));
    }
    let host = host(address);
    report.ready = pod.ready;
    report.role.clone_from(&role);
    Ok(RawWorker {
        worker_id: worker_id(pod, container, port, life),
        model: model.to_owned(),
        tenant: config.tenant.clone(),
        engine: engine.to_owned(),
        address: http.map(|port| format!("{host}:{port}")),
        pod: Some(PodRef {
            namespace: pod.name.namespace.clone(),
            name: pod.name.name.clone(),
            uid: pod.uid.clone(),
        }),
        service: report.services.first().cloned(),
        role: Some(role),
        pd_group: said(&keys.group).map(str::to_owned),
        labels: labels(pod),
        endpoint: format!("tcp://{host}:{port}"),
        replay_endpoint: replay.map_or_else(String::new, |port| format!("tcp://{host}:{port}")),
        data_parallel_size: ranks,
        ..RawWorker::default()
    })
}

/// Labels that a question can filter by: not those that say which roll-out made the pod, nor what is too long.
fn labels(pod: &Pod) -> BTreeMap<String, String> {
    const OF_CONTROLLERS: [&str; 3] =
        ["pod-template-hash", "controller-revision-hash", "pod-template-generation"];
    let kept = pod
        .labels
        .iter()
        .filter(|(key, _)| key.len() <= MAX_LABEL && !OF_CONTROLLERS.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn replay_port(container: &Container, config: &DiscoveryConfig) -> Option<u16> {
    let named = container.ports.iter().find(|port| port.name == config.ports.replay);
    named.map(|port| port.number).or(config.ports.replay_number)
}

/// Of the engine's container, else of any: requests may go through a side car.
fn http_port(pod: &Pod, container: &Container, config: &DiscoveryConfig) -> Option<u16> {
    let all = container.ports.iter().chain(pod.containers.iter().flat_map(|container| &container.ports));
    all.into_iter().find(|port| port.name == config.ports.http).map(|port| port.number)
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Readable, and of one life only.
fn worker_id(pod: &Pod, container: &Container, port: u16, life: &Life) -> String {
    let Life { started, restarts, id } = life;
    let whole = format!("{}\0{}\0{id}\0{started}\0{restarts}\0{port}", pod.uid, container.name);
    let digest = xxh3_64(whole.as_bytes()) >> 16;
    let Name { namespace, name } = &pod.name;
    let cut = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_POD_NAME).last().unwrap_or(0);
    let name = if name.len() <= MAX_POD_NAME { name.as_str() } else { &name[..cut] };
    format!("{namespace}.{name}.{digest:012x}")
}

/// A definition's field as the person who labels pods knows it.
fn name_label(field: &str, message: &str, config: &DiscoveryConfig) -> String {
    let keys = &config.labels;
    let label = match field {
        "model" => &keys.model,
        "role" => &keys.role,
        "pd_group" => &keys.group,
        "data_parallel_size" | "endpoint" | "replay_endpoint" => &keys.dp_size,
        "tenant" => "discovery_tenant",
        field => field,
    };
    format!("{label}: {message}")
}
