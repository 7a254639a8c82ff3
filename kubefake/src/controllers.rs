//! What else there is in a cluster: the controller that keeps endpoint slices, and a kubelet that starts every pod.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::objects::{Key, Resource, now, text};
use crate::server::World;
use crate::store::{Part, Store};

/// Changes within this time are taken together.
const SETTLE: Duration = Duration::from_millis(20);
/// Endpoints of one slice, as the real controller has it.
const SLICE: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keeps the endpoint slices of all Services that select pods.
pub(crate) async fn run(world: Arc<World>) {
    let mut told = world.store.lock().told.subscribe();
    loop {
        {
            let mut store = world.store.lock();
            let wanted = wanted(&store);
            reconcile(&mut store, wanted);
        }
        told.mark_unchanged();
        if told.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn wanted(store: &Store) -> BTreeMap<Key, Value> {
    let mut wanted = BTreeMap::new();
    for (key, service) in store.all(Resource::Services) {
        let Some(selector) = service.pointer("/spec/selector").and_then(Value::as_object) else { continue };
        let labels = |pod: &Value| {
            selector.iter().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
        };
        let ended = |pod: &Value| matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        let pods: Vec<&Arc<Value>> = store
            .all(Resource::Pods)
            .filter(|(pod_key, pod)| pod_key.namespace == key.namespace && labels(pod) && !ended(pod))
            .map(|(_, pod)| pod)
            .collect();
        for family in ["IPv4", "IPv6"] {
            let endpoints: Vec<Value> = pods.iter().filter_map(|pod| endpoint(pod, family)).collect();
            let mut slice = |number: usize, endpoints: Value| {
                let name = format!("{}-{}-{number}", key.name, family.to_lowercase());
                let slice = json!({
                    "metadata": {"labels": {SERVICE_NAME: key.name,
                        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
                    "addressType": family, "endpoints": endpoints, "ports": [],
                });
                wanted.insert(Key::new(Resource::EndpointSlices, &key.namespace, &name), slice);
            };
            for (number, chunk) in endpoints.chunks(SLICE).enumerate() {
                slice(number, json!(chunk));
            }
            if endpoints.is_empty() && family == "IPv4" {
                // As the real one: a Service without pods has a slice with nothing in it.
                slice(0, Value::Null);
            }
        }
    }
    wanted
}

/// A pod as an endpoint of a family; `None` when it has no address of it.
fn endpoint(pod: &Value, family: &str) -> Option<Value> {
    let listed = pod.pointer("/status/podIPs").and_then(Value::as_array);
    let mut addresses = listed.into_iter().flatten().map(|address| text(address, "/ip"));
    let address = addresses.find(|address| address.contains(':') == (family == "IPv6"))?;
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready =
        |condition: &Value| text(condition, "/type") == "Ready" && text(condition, "/status") == "True";
    let serving = conditions.into_iter().flatten().any(is_ready);
    let terminating = pod.pointer("/metadata/deletionTimestamp").is_some();
    Some(json!({
        "addresses": [address],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "nodeName": text(pod, "/spec/nodeName"),
        "targetRef": {"kind": "Pod", "namespace": text(pod, "/metadata/namespace"),
            "name": text(pod, "/metadata/name"), "uid": text(pod, "/metadata/uid")},
    }))
}

fn reconcile(store: &mut Store, wanted: BTreeMap<Key, Value>) {
    let managed = |slice: &Value| slice["metadata"]["labels"].get(SERVICE_NAME).is_some();
    let known: BTreeSet<Key> = store
        .all(Resource::EndpointSlices)
        .filter(|(_, slice)| managed(slice))
        .map(|(key, _)| key.clone())
        .collect();
    for key in known.iter().filter(|key| !wanted.contains_key(key)) {
        let _ = store.remove(key); // it is there
    }
    for (key, slice) in wanted {
        if known.contains(&key) {
            let _ = store.replace(&key, slice, Part::All);
        } else {
            let _ = store.create(&key, slice);
        }
    }
}

/// A pod of a manifest as it is once it runs: what the manifest says of its status stands, the rest is made up. A
/// container whose `restartCount` differs from what is known has started again.
pub(crate) fn as_kubelet(key: &Key, object: &Value, known: Option<&Value>) -> Value {
    let mut pod = object.clone();
    if key.resource != Resource::Pods {
        return pod;
    }
    if text(&pod, "/spec/nodeName").is_empty() {
        pod["spec"]["nodeName"] = json!("fake-node");
    }
    let said = pod.get("status").cloned().unwrap_or_else(|| json!({}));
    let before = |path: &str| known.and_then(|known| known.pointer(path).cloned());
    let mut status = json!({"phase": "Running"});
    status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    status["podIP"] = before("/status/podIP").unwrap_or_else(|| json!(next_address()));
    status["containerStatuses"] = container_statuses(&pod, &said, known);
    for (field, value) in said.as_object().into_iter().flatten() {
        if field != "containerStatuses" {
            status[field.as_str()] = value.clone();
        }
    }
    if said.get("podIPs").is_none() {
        status["podIPs"] = json!([{"ip": status["podIP"]}]);
    }
    pod["status"] = status;
    pod
}

fn container_statuses(pod: &Value, said: &Value, known: Option<&Value>) -> Value {
    let find = |list: Option<&Value>, name: &str| -> Option<Value> {
        list?.as_array()?.iter().find(|status| text(status, "/name") == name).cloned()
    };
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let statuses = containers.into_iter().flatten().map(|container| {
        let name = text(container, "/name");
        let before = find(known.and_then(|known| known.pointer("/status/containerStatuses")), name);
        let said = find(said.get("containerStatuses"), name).unwrap_or_else(|| json!({}));
        let restarts = said.get("restartCount").and_then(Value::as_u64).unwrap_or(0);
        let same = before.filter(|before| before["restartCount"].as_u64() == Some(restarts));
        let mut status = same.unwrap_or_else(|| fresh(name, restarts));
        for (field, value) in said.as_object().into_iter().flatten() {
            status[field.as_str()] = value.clone();
        }
        status
    });
    Value::Array(statuses.collect())
}

fn fresh(name: &str, restarts: u64) -> Value {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "name": name, "restartCount": restarts, "ready": true, "started": true, "image": "", "imageID": "",
        "containerID": format!("fake://{id:064x}"), "state": {"running": {"startedAt": now()}},
    })
}

fn next_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("10.244.{}.{}", number / 250 % 250, number % 250 + 1)
}
