//! A stand-in for Kubernetes with engine pods, and nodes that find them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kubefake::{Fake, Key, Resource};
use kvindex_server::Running;
use kvindex_server::config::DiscoveryConfig;
use kvindex_server::node::{KnownWorker, Origin};
use serde_json::{Value, json};

use crate::cluster_rig::Folder;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const NAMESPACE: &str = "ai-inference";

pub(crate) struct Kube {
    pub(crate) fake: Fake,
    folder: Folder,
}

impl Kube {
    pub(crate) async fn start() -> Self {
        let kube =
            Self { fake: Fake::start("127.0.0.1:0".parse().unwrap()).await.unwrap(), folder: Folder::new() };
        kube.write_kubeconfig(None);
        kube
    }

    pub(crate) fn write_kubeconfig(&self, token: Option<&str>) {
        self.fake.write_kubeconfig(&self.kubeconfig(), NAMESPACE, token).unwrap();
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Settings that find pods with the label app=vllm here.
    pub(crate) fn settings(&self) -> DiscoveryConfig {
        DiscoveryConfig {
            enabled: true,
            kubeconfig: Some(self.kubeconfig()),
            pod_selector: Some("app=vllm".parse().unwrap()),
            ..DiscoveryConfig::default()
        }
    }

    /// Runs an engine's pod.
    pub(crate) fn run(&self, pod: &EnginePod) {
        self.fake.run(&key(&pod.name), &pod.manifest());
    }

    pub(crate) fn delete(&self, name: &str, grace_s: u64) {
        assert!(self.fake.delete(&key(name), grace_s));
    }

    pub(crate) fn service(&self, name: &str, selector: &Value) {
        let service = json!({"metadata": {"labels": {"svc": name}}, "spec": {"selector": selector}});
        self.fake.put(&Key::new(Resource::Services, NAMESPACE, name), service);
    }
}

pub(crate) fn key(pod: &str) -> Key {
    Key::new(Resource::Pods, NAMESPACE, pod)
}

/// An engine's pod.
#[derive(Debug, Clone)]
pub(crate) struct EnginePod {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) restarts: u32,
    pub(crate) ready: bool,
    pub(crate) labels: Value,
}

impl EnginePod {
    pub(crate) fn new(name: &str, port: u16) -> Self {
        Self {
            name: name.into(),
            address: Ipv4Addr::LOCALHOST,
            port,
            restarts: 0,
            ready: true,
            labels: json!({"app": "vllm", "openfuyao.com/model": "llama"}),
        }
    }

    pub(crate) fn manifest(&self) -> Value {
        let ready = if self.ready { "True" } else { "False" };
        json!({
            "metadata": {"labels": self.labels},
            "spec": {"containers": [{"name": "engine", "ports": [
                {"name": "http", "containerPort": 8000},
                {"name": "zmq-pub", "containerPort": self.port},
            ]}]},
            "status": {
                "podIP": self.address.to_string(),
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "engine", "restartCount": self.restarts}],
            },
        })
    }
}

/// The workers that were discovered, by name.
pub(crate) fn discovered(running: &Running) -> Vec<KnownWorker> {
    let known = running.node().known_workers();
    known.into_iter().filter(|known| known.origin == Origin::Discovered).collect()
}

/// Pods of the workers that were discovered.
pub(crate) fn pods(running: &Running) -> Vec<String> {
    let pods = discovered(running).into_iter().filter_map(|known| known.definition.spec.pod);
    pods.map(|pod| pod.name).collect()
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
