//! From Kubernetes' types to what discovery needs of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::config::LabelKeys;
use crate::discovery::seen::{Container, Life, Name, Pod, Port, Service, Slice};

/// The label by which an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn name(metadata: &ObjectMeta) -> Name {
    Name {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

pub(super) fn pod(pod: core::Pod, keys: &LabelKeys) -> Pod {
    let core::Pod { metadata, spec, status } = pod;
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let addresses = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
    let addresses = addresses.chain(status.pod_ip.as_deref()).filter_map(|text| text.parse().ok());
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let is_true = |kind: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let named = [&keys.engine, &keys.model, &keys.role, &keys.group, &keys.dp_size, &keys.tp_size];
    let annotations: BTreeMap<String, String> = named
        .into_iter()
        .filter_map(|key| Some((key.clone(), metadata.annotations.as_ref()?.get(key)?.clone())))
        .collect();
    Pod {
        name: name(&metadata),
        ready: is_true("Ready"),
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        annotations,
        addresses: unique,
        terminating: metadata.deletion_timestamp.is_some(),
        created: seconds(metadata.creation_timestamp.as_ref()),
        containers: containers(&spec, &status),
        phase: status.phase.unwrap_or_default(),
    }
}

/// The containers that run beside each other: those of the pod, then side cars among the ones that start first.
fn containers(spec: &core::PodSpec, status: &core::PodStatus) -> Vec<Container> {
    let own = spec.containers.iter().map(|container| (container, &status.container_statuses));
    let restarted = |container: &&core::Container| container.restart_policy.as_deref() == Some("Always");
    let beside = spec.init_containers.iter().flatten().filter(restarted);
    let beside = beside.map(|container| (container, &status.init_container_statuses));
    own.chain(beside)
        .map(|(container, statuses)| {
            let status = statuses.iter().flatten().find(|status| status.name == container.name);
            Container {
                name: container.name.clone(),
                ports: container.ports.iter().flatten().filter_map(port).collect(),
                life: status.and_then(life),
                waits_for: status.and_then(waits_for).unwrap_or_default(),
            }
        })
        .collect()
}

fn port(port: &core::ContainerPort) -> Option<Port> {
    let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0 && is_tcp)?;
    Some(Port { name: port.name.clone().unwrap_or_default(), number })
}

fn life(status: &core::ContainerStatus) -> Option<Life> {
    let running = status.state.as_ref()?.running.as_ref()?;
    Some(Life {
        started: seconds(running.started_at.as_ref()),
        restarts: status.restart_count,
        id: status.container_id.clone().unwrap_or_default(),
    })
}

fn waits_for(status: &core::ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        return waiting.reason.clone();
    }
    let ended = state.terminated.as_ref()?;
    Some(format!("{}, exit code {}", ended.reason.as_deref().unwrap_or("it ended"), ended.exit_code))
}

fn seconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_second())
}

pub(super) fn service(service: &core::Service) -> Service {
    Service { name: name(&service.metadata) }
}

pub(super) fn slice(slice: EndpointSlice) -> Option<Slice> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    let (mut pods, mut others) = (Vec::new(), 0);
    for endpoint in slice.endpoints {
        let target = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
        match target.and_then(|target| target.uid) {
            Some(uid) => pods.push(uid),
            None => others += 1,
        }
    }
    Some(Slice { name: name(&slice.metadata), service, pods, others })
}

#[cfg(test)]
#[path = "convert_test.rs"]
mod tests;
