//! Tests of what is read from objects as an API server sends them.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::DiscoveryConfig;
use serde_json::json;

fn read(pod: serde_json::Value) -> Pod {
    super::pod(serde_json::from_value(pod).unwrap(), &DiscoveryConfig::default().labels)
}

#[test]
fn a_running_pod_is_read() {
    let pod = read(json!({
        "metadata": {
            "namespace": "ns", "name": "vllm-0", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "vllm"},
            "annotations": {"openfuyao.com/model": "Qwen/Qwen3-8B", "else": "dropped"},
        },
        "spec": {
            "containers": [{"name": "engine", "ports": [
                {"name": "zmq-pub", "containerPort": 5557},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            ]}],
            "initContainers": [{"name": "once"}, {"name": "side", "restartPolicy": "Always"}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "engine", "image": "", "imageID": "", "ready": true, "restartCount": 2,
                "containerID": "containerd://c", "state": {"running": {"startedAt": "2026-01-01T00:00:10Z"}},
            }],
        },
    }));
    assert_eq!(pod.name.to_string(), "ns/vllm-0");
    assert_eq!(pod.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    assert!(pod.ready && !pod.terminating && pod.phase == "Running");
    assert_eq!(pod.annotations.len(), 1);
    let names: Vec<&str> = pod.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["engine", "side"], "a container that only prepares is no engine");
    let engine = &pod.containers[0];
    assert_eq!(engine.ports, [Port { name: "zmq-pub".into(), number: 5557 }]);
    let life = engine.life.as_ref().unwrap();
    assert_eq!((life.started - pod.created, life.restarts, life.id.as_str()), (10, 2, "containerd://c"));
}

#[test]
fn a_container_that_does_not_run_has_no_life_but_a_reason() {
    let status = |state: serde_json::Value| {
        let pod = read(json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "engine"}]},
            "status": {"podIP": "10.0.0.1", "containerStatuses": [{
                "name": "engine", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]},
        }));
        assert!(pod.terminating && !pod.ready && pod.addresses.len() == 1);
        assert_eq!(pod.containers[0].life, None);
        pod.containers[0].waits_for.clone()
    };
    assert_eq!(status(json!({"waiting": {"reason": "CrashLoopBackOff"}})), "CrashLoopBackOff");
    assert_eq!(
        status(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
        "OOMKilled, exit code 137"
    );
    assert_eq!(status(json!({})), "");
}

#[test]
fn a_slice_names_its_service_and_its_pods() {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "p", "uid": "u"}},
            {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Node", "name": "n", "uid": "v"}},
            {"addresses": ["10.0.0.3"]},
        ],
    }))
    .unwrap();
    let slice = super::slice(slice).unwrap();
    assert_eq!((slice.service.as_str(), slice.pods, slice.others), ("s", vec!["u".to_owned()], 2));
    let empty = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "endpoints": null});
    let empty: EndpointSlice = serde_json::from_value(empty).unwrap();
    assert!(super::slice(empty).unwrap().pods.is_empty(), "what a Service without pods has");
    assert!(super::slice(EndpointSlice::default()).is_none(), "it belongs to no Service");
}
