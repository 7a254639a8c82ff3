//! Pods become workers and stop being workers, over real HTTP, with engines on real sockets.

use kvindex_proto::v1;
use kvindex_server::Running;
use kvindex_server::config::{Config, Setting};
use serde_json::json;
use std::time::Duration;

use crate::api_engine::one_block;
use crate::api_server::{Server, config, prompt, tokens};
use crate::discovery_rig::{EnginePod, Kube, discovered, pods, until};

async fn server(kube: &Kube) -> Server {
    Server::with(config(|config| config.discovery = kube.settings())).await
}

/// An engine's publisher: at a port of the system's choice, or where another one was.
struct Engine {
    socket: zmq::Socket,
    port: u16,
}

impl Engine {
    fn start(port: Option<u16>) -> Self {
        let socket = zmq::Context::new().socket(zmq::PUB).unwrap();
        socket.set_linger(0).unwrap();
        let place = port.map_or_else(|| "*".into(), |port| port.to_string());
        // The port is free again as soon as the former engine's socket is closed, which its thread does later.
        let bound = (0..100).any(|_| {
            let bound = socket.bind(&format!("tcp://127.0.0.1:{place}")).is_ok();
            if !bound {
                std::thread::sleep(Duration::from_millis(50));
            }
            bound
        });
        assert!(bound);
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        let port = endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { socket, port }
    }

    /// Announces the one block until somebody holds it.
    async fn announce(&self, running: &Running) {
        let before = running.node().stats().entries;
        for _ in 0..400 {
            self.socket.send_multipart([&b""[..], &0_u64.to_be_bytes(), &one_block()], 0).unwrap();
            tokio::time::sleep(Duration::from_millis(25)).await;
            if running.node().stats().entries > before {
                return;
            }
        }
        panic!("nobody heard the engine");
    }
}

async fn holders(server: &mut Server) -> Vec<(String, u64)> {
    let answer = server.find(prompt(tokens(16))).await;
    answer.workers.into_iter().map(|worker| (worker.worker_id, worker.matched_blocks)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_engine_is_followed_and_leaves_answers_when_it_terminates() {
    let kube = Kube::start().await;
    let engine = Engine::start(None);
    let mut pod = EnginePod::new("vllm-0", engine.port);
    pod.labels["openfuyao.com/pdRole"] = json!("prefill");
    pod.ready = false;
    kube.run(&pod);
    let mut server = server(&kube).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    // Not ready yet: pending, which is no error.
    let listed = server.query.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    let trust = listed.workers[0].streams[0].trust.clone().unwrap();
    assert_eq!(trust.state(), v1::TrustState::Pending, "{trust:?}");
    assert_eq!(server.http("GET", "/readyz", "").await.0, 200);
    engine.announce(&server.running).await;
    let answer = server.find(prompt(tokens(16))).await;
    let found = &answer.workers[0];
    assert_eq!((found.matched_blocks, found.address.as_deref()), (1, Some("127.0.0.1:8000")));
    assert_eq!(
        (found.role.as_deref(), found.pod.as_ref().unwrap().name.as_str()),
        (Some("prefill"), "vllm-0")
    );
    // It goes on for 60 s, but nobody should send it anything from now on.
    kube.delete("vllm-0", 60);
    until("gone", || discovered(&server.running).is_empty()).await;
    assert_eq!(holders(&mut server).await, []);
    assert_eq!(server.running.node().stats().entries, 0);
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_starts_again_in_its_pod_is_another_worker_without_blocks() {
    let kube = Kube::start().await;
    let engine = Engine::start(None);
    let mut pod = EnginePod::new("vllm-0", engine.port);
    kube.run(&pod);
    let mut server = server(&kube).await;
    until("found", || pods(&server.running).len() == 1).await;
    engine.announce(&server.running).await;
    let first = holders(&mut server).await;
    drop(engine);
    pod.restarts = 1;
    kube.run(&pod);
    let before = first[0].0.clone();
    until("another life", || {
        discovered(&server.running).iter().all(|known| known.definition.spec.id.as_str() != before)
    })
    .await;
    until("found again", || pods(&server.running).len() == 1).await;
    assert_eq!(server.running.node().stats().entries, 0, "its cache is empty");
    let again = Engine::start(Some(pod.port));
    again.announce(&server.running).await;
    let second = holders(&mut server).await;
    assert_eq!((second.len(), second[0].1), (1, 1));
    assert_ne!(first[0].0, second[0].0);
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_used_again_carries_no_block_over() {
    let kube = Kube::start().await;
    let engine = Engine::start(None);
    let old = EnginePod::new("old", engine.port);
    kube.run(&old);
    let mut server = server(&kube).await;
    until("found", || pods(&server.running) == ["old"]).await;
    engine.announce(&server.running).await;
    drop(engine);
    // Both changes before the node looks: the new pod has the address at once.
    kube.run(&EnginePod { name: "new".into(), ..old.clone() });
    kube.delete("old", 0);
    until("the new one", || pods(&server.running) == ["new"]).await;
    assert_eq!((server.running.node().stats().entries, holders(&mut server).await[0].1), (0, 0));
    let engine = Engine::start(Some(old.port));
    engine.announce(&server.running).await;
    let holding = holders(&mut server).await;
    assert_eq!(holding.len(), 1);
    assert!(holding[0].0.starts_with("ai-inference.new."), "{holding:?}");
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_change_move_a_pod_in_and_out_and_describe_it_anew() {
    let kube = Kube::start().await;
    let engine = Engine::start(None);
    let mut pod = EnginePod::new("vllm-0", engine.port);
    kube.run(&pod);
    let server = server(&kube).await;
    until("found", || pods(&server.running).len() == 1).await;
    engine.announce(&server.running).await;
    pod.labels["openfuyao.com/pdGroupID"] = json!("g1");
    kube.run(&pod);
    let group = || discovered(&server.running)[0].definition.spec.pd_group.clone();
    until("described anew", || group().as_deref() == Some("g1")).await;
    assert_eq!(server.running.node().stats().entries, 1, "what it holds stays");
    pod.labels["app"] = json!("drained");
    kube.run(&pod);
    until("out", || discovered(&server.running).is_empty()).await;
    pod.labels["app"] = json!("vllm");
    kube.run(&pod);
    until("in again", || pods(&server.running).len() == 1).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fronts_the_proxy_finds_no_engine_and_a_pod_selector_does() {
    let kube = Kube::start().await;
    let mut proxy = EnginePod::new("proxy", 1);
    proxy.labels = json!({"app": "proxy"});
    let mut manifest = proxy.manifest();
    manifest["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8000}]);
    kube.fake.run(&crate::discovery_rig::key("proxy"), &manifest);
    kube.run(&EnginePod::new("prefill-0", 5557));
    kube.service("pd", &json!({"app": "proxy"}));
    let mut settings = kube.settings();
    settings.service_selector = Some("svc=pd".parse().unwrap());
    settings.pod_selector = None;
    let only_service = settings.clone();
    let server = Server::with(config(|config| config.discovery = only_service)).await;
    let condition = "kvindex_discovery_condition{condition=\"finds_no_engine\"} 1";
    for round in 0.. {
        let (_, metrics) = server.http("GET", "/metrics", "").await;
        if metrics.contains(condition) {
            break;
        }
        assert!(round < 200, "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pods(&server.running), [""; 0]);
    server.running.shutdown().await.unwrap();
    let survey = kvindex_server::discovery::survey(&settings).await.unwrap();
    let why = survey.selection.why_nothing().unwrap();
    assert!(why.contains("ai-inference/pd") && why.contains("discovery_pod_selector"), "{why}");
    settings.pod_selector = Some("app=vllm".parse().unwrap());
    let server = Server::with(config(|config| config.discovery = settings)).await;
    until("found", || pods(&server.running) == ["prefill-0"]).await;
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    assert!(metrics.contains("kvindex_discovery_condition{condition=\"finds_no_engine\"} 0"), "{metrics}");
    assert!(metrics.contains("kvindex_discovery_pods{verdict=\"no_port\"} 1"), "{metrics}");
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_selects_engines_finds_them_by_its_slices() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let mut elsewhere = EnginePod::new("other", 5558);
    elsewhere.labels["app"] = json!("other");
    kube.run(&elsewhere);
    kube.service("engines", &json!({"app": "vllm"}));
    let mut settings = kube.settings();
    settings.service_selector = Some("svc=engines".parse().unwrap());
    settings.pod_selector = None;
    let server = Server::with(config(|config| config.discovery = settings)).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    let service = discovered(&server.running)[0].definition.spec.service.clone();
    assert_eq!(service.as_deref(), Some("engines"));
    kube.service("engines", &json!({"app": "other"}));
    until("the other", || pods(&server.running) == ["other"]).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_change_take_effect_while_the_node_runs() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let mut other = EnginePod::new("other-0", 5558);
    other.labels["app"] = json!("other");
    kube.run(&other);
    let mut now = config(|config| config.discovery = kube.settings());
    let server = Server::with(now.clone()).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    let take = |new: &Config, key: &'static str, value: &str| {
        let setting = Setting { key, value: value.into(), origin: "test".into() };
        assert_eq!(server.running.live_config().take(new, &[setting]).taken.len(), 1);
    };
    now.discovery.pod_selector = Some("app=other".parse().unwrap());
    take(&now, "discovery_pod_selector", "\"app=other\"");
    until("found by the other selector", || pods(&server.running) == ["other-0"]).await;
    now.discovery.enabled = false;
    take(&now, "discovery", "\"off\"");
    // It ends with the next look.
    tokio::time::sleep(Duration::from_secs(3)).await;
    kube.delete("other-0", 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pods(&server.running), ["other-0"], "nobody looks, so nobody forgets");
    now.discovery.enabled = true;
    take(&now, "discovery", "\"kubernetes\"");
    until("gone", || pods(&server.running).is_empty()).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_with_a_slip_in_it_forgets_the_fleet_only_after_a_resync() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let mut now = config(|config| {
        config.discovery = kube.settings();
        config.discovery.resync = Duration::from_secs(8);
    });
    let server = Server::with(now.clone()).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    let take = |new: &Config| {
        let value = format!("{:?}", new.discovery.pod_selector);
        let setting = Setting { key: "discovery_pod_selector", value, origin: "test".into() };
        assert_eq!(server.running.live_config().take(new, &[setting]).taken.len(), 1);
    };
    let right = now.discovery.pod_selector.replace("app=vlm".parse().unwrap());
    take(&now);
    let told =
        ["kvindex_discovery_kept_workers 1", "kvindex_discovery_condition{condition=\"selects_nothing\"} 1"];
    for round in 0.. {
        let (_, metrics) = server.http("GET", "/metrics", "").await;
        if told.iter().all(|line| metrics.contains(line)) {
            break;
        }
        assert!(round < 300 && pods(&server.running) == ["vllm-0"], "{metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = discovered(&server.running);
    now.discovery.pod_selector = right;
    take(&now);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(discovered(&server.running), before, "it was put right in time");
    now.discovery.pod_selector = Some("app=vlm".parse().unwrap());
    take(&now);
    until("meant so", || pods(&server.running).is_empty()).await;
    server.running.shutdown().await.unwrap();
}
