//! A server to talk to, and watches whose events are waited for.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use kubefake::Fake;
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, and a label of its own for what this test makes there.
pub(crate) struct Rig {
    /// `None` when the server is a real one.
    pub(crate) fake: Option<Fake>,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) run: String,
}

impl Rig {
    /// The server that `KVINDEX_TEST_KUBECONFIG` names, or a stand-in.
    pub(crate) async fn any() -> Self {
        match std::env::var("KVINDEX_TEST_KUBECONFIG") {
            Ok(path) => Self::at(None, Kubeconfig::read_from(path).unwrap()).await,
            Err(_) => Self::fake().await,
        }
    }

    /// A stand-in.
    pub(crate) async fn fake() -> Self {
        let fake = Fake::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&fake.kubeconfig("test", None)).unwrap();
        Self::at(Some(fake), kubeconfig).await
    }

    async fn at(fake: Option<Fake>, kubeconfig: Kubeconfig) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let run = format!("r{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { fake, client: Client::try_from(config).unwrap(), namespace, run }
    }

    pub(crate) fn the_fake(&mut self) -> &mut Fake {
        self.fake.as_mut().unwrap()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }

    /// Labels of this test's objects.
    pub(crate) fn selector(&self) -> String {
        format!("run={}", self.run)
    }

    pub(crate) fn pod(&self, name: &str) -> Pod {
        let (name, run) = (self.name(name), &self.run);
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"run": run, "app": "a"}},
            "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "none.invalid/none:0"}]},
        }))
        .unwrap()
    }

    pub(crate) async fn create(&self, name: &str) -> Pod {
        self.pods().create(&PostParams::default(), &self.pod(name)).await.unwrap()
    }

    pub(crate) fn watch(&self, config: watcher::Config) -> Watched {
        Watched { events: watcher::watcher(self.pods(), config).boxed(), prefix: format!("{}-", self.run) }
    }
}

/// A watch of pods.
pub(crate) struct Watched {
    events: BoxStream<'static, watcher::Result<Event<Pod>>>,
    prefix: String,
}

impl Watched {
    /// The next event, as `begin`, `listed a`, `whole`, `changed a`, `gone a` or `error: …`.
    pub(crate) async fn next(&mut self) -> String {
        let event = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("no event").unwrap();
        let name = |pod: &Pod| pod.name_any().trim_start_matches(&self.prefix).to_owned();
        match event {
            Ok(Event::Init) => "begin".into(),
            Ok(Event::InitApply(pod)) => format!("listed {}", name(&pod)),
            Ok(Event::InitDone) => "whole".into(),
            Ok(Event::Apply(pod)) => format!("changed {}", name(&pod)),
            Ok(Event::Delete(pod)) => format!("gone {}", name(&pod)),
            Err(error) => format!("error: {error}"),
        }
    }

    /// So many events.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.next().await);
        }
        events
    }

    /// Whether nothing is told for a while.
    pub(crate) async fn is_quiet(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.events.next()).await.is_err()
    }
}
