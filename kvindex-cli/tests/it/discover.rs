//! `kvindex discover` against a stand-in for Kubernetes, by its kubeconfig alone.

use kubefake::{Access, Fake, Manifest, Resource};
use serde_json::Value;
use std::path::PathBuf;

use crate::node::kvindex;

const PODS: &str = "
kind: Pod
metadata:
  name: vllm-0
  labels: {app: vllm, openfuyao.com/model: qwen, openfuyao.com/pdRole: prefill}
spec:
  containers:
  - name: engine
    ports:
    - {name: http, containerPort: 8000}
    - {name: zmq-pub, containerPort: 5557}
status: {podIP: 10.0.0.7}
---
kind: Pod
metadata:
  name: vllm-1
  labels: {app: vllm}
spec:
  containers: [{name: engine, ports: [{name: zmq-pub, containerPort: 5557}]}]
---
kind: Pod
metadata: {name: proxy, labels: {app: proxy}}
spec:
  containers: [{name: proxy, ports: [{name: http, containerPort: 8000}]}]
---
kind: Service
metadata: {name: pd, labels: {svc: pd}}
spec: {selector: {app: proxy}}
";

/// A stand-in that runs until it is dropped, and the kubeconfig that names it.
pub(crate) struct Kube {
    _runtime: tokio::runtime::Runtime,
    pub(crate) fake: Fake,
    pub(crate) kubeconfig: PathBuf,
}

impl Kube {
    pub(crate) fn start(name: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = runtime.block_on(Fake::start("127.0.0.1:0".parse().unwrap())).unwrap();
        fake.apply(&Manifest::parse(PODS, "ai-inference").unwrap(), &Manifest::default());
        let kubeconfig = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.kubeconfig"));
        fake.write_kubeconfig(&kubeconfig, "ai-inference", None).unwrap();
        Self { _runtime: runtime, fake, kubeconfig }
    }

    fn discover(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = kvindex(&["discover"]);
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn engines_are_shown_and_the_others_explained() {
    let kube = Kube::start("discover-engines");
    let (code, out, err) = kube.discover(&["--discovery-pod-selector", "app=vllm"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("tcp://10.0.0.7:5557") && out.contains("prefill"), "{out}");
    assert!(out.contains("3 pods, 2 selected, 1 engines") && !out.contains("vllm-1"), "{out}");
    let (code, out, _) = kube.discover(&["--discovery-pod-selector", "app=vllm", "--explain"]);
    assert_eq!(code, 0);
    assert!(out.contains("no label or annotation openfuyao.com/model"), "{out}");
    assert!(out.contains("app=vllm: the pod has app=proxy"), "{out}");
}

#[test]
fn programs_get_the_whole_survey() {
    let kube = Kube::start("discover-json");
    let (code, out, _) = kube.discover(&["--discovery-pod-selector", "app=vllm", "--output", "json"]);
    let survey: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, survey["pods"].as_array().unwrap().len()), (0, 3));
    let verdicts: Vec<&str> =
        survey["pods"].as_array().unwrap().iter().map(|pod| pod["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["not_selected", "engine", "refused"]);
}

#[test]
fn a_nodes_file_is_taken_though_its_other_keys_fit_another_place() {
    let kube = Kube::start("discover-file");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("discover-file.toml");
    let text = "peer_listen = \"[::]:9591\"\ndiscovery_pod_selector = \"app=vllm\"\n";
    std::fs::write(&file, text).unwrap();
    let (code, out, err) = kube.discover(&["--config", file.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    std::fs::write(&file, format!("{text}discovery_pod_selektor = \"a\"\n")).unwrap();
    let (code, _, err) = kube.discover(&["--config", file.to_str().unwrap()]);
    assert!(code == 2 && err.contains("is it discovery_pod_selector?"), "{err}");
}

#[test]
fn when_nothing_is_found_it_says_what_there_is() {
    let kube = Kube::start("discover-nothing");
    let (code, out, _) = kube.discover(&["--discovery-pod-selector", "app=vlm"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("no pod matches app=vlm") && out.contains("there is app=vllm (2)"), "{out}");
    for round in 0.. {
        let (code, out, _) = kube.discover(&["--discovery-service-selector", "svc=pd"]);
        if code == 1 && out.contains("Service ai-inference/pd selects 1 pods") {
            assert!(out.contains("discovery_pod_selector"), "{out}");
            break;
        }
        // The controller of endpoint slices takes a moment.
        assert!(round < 50, "{out}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn what_stands_in_the_way_is_named() {
    let mut kube = Kube::start("discover-refused");
    let (code, _, err) = kube.discover(&[]);
    assert_eq!(code, 2);
    assert!(err.contains("--discovery-pod-selector"), "{err}");
    let selector = ["--discovery-pod-selector", "app=vllm"];
    kube.fake.allow(Access { forbidden: vec![("list", Resource::Pods)], ..Access::default() });
    let (code, _, err) = kube.discover(&selector);
    assert_eq!(code, 1);
    assert!(err.contains("403") && err.contains("get, list and watch"), "{err}");
    kube.fake.stop();
    let (code, _, err) = kube.discover(&selector);
    assert_eq!(code, 3, "{err}");
    std::fs::remove_file(&kube.kubeconfig).unwrap();
    let (code, _, err) =
        kube.discover(&["--discovery-pod-selector", "app=vllm", "--discovery-kubeconfig", "/none"]);
    assert_eq!(code, 2);
    assert!(err.contains("/none"), "{err}");
}
