//! Watches of pods, services and endpoint slices, each in a task of its own, told into one [`View`].
//!
//! A watch that fails is begun again with a complete list: only then is it known that nothing was missed. The same is
//! done at every resync, against changes that a watch lost in silence.

use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Api, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::client::{Connection, watch_failure};
use super::convert;
use crate::config::DiscoveryConfig;
use crate::discovery::condition::Condition;
use crate::discovery::view::{Failure, Kind, View};

/// Seconds after which the server ends a watch, which is then resumed; a dead connection is noticed 5 s later.
const WATCH_S: u32 = 60;
/// How long a list may make no progress.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// A watch that lasts for so long, or tells something, is one: a server that lists but does not let watch refuses it
/// sooner.
const LASTS: Duration = Duration::from_secs(5);
/// First and longest pause before a watch is begun again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Watches that run; they end with it.
#[derive(Debug)]
pub(crate) struct Watching {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    view: Mutex<View>,
    /// What keeps failing, by kind.
    failures: Mutex<BTreeMap<&'static str, Failure>>,
    changed: Notify,
}

impl Watching {
    /// Resolves when something changed since it resolved last.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Looks at what is known.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.shared.view.lock())
    }

    /// What keeps failing.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.shared.failures.lock().values().cloned().collect()
    }
}

/// Starts to watch what the settings need: pods always, services and their endpoint slices for a service selector.
pub(crate) fn watch(connection: &Connection, config: &DiscoveryConfig) -> Watching {
    let shared = Arc::new(Shared::default());
    let mut tasks = JoinSet::new();
    let (keys, resync) = (config.labels.clone(), config.resync);
    let all = || watcher::Config::default().timeout(WATCH_S);
    let pods = Watch {
        what: "pods",
        shared: Arc::clone(&shared),
        kind: |view| &mut view.pods,
        convert: Box::new(move |pod| Some(convert::pod(pod, &keys))),
    };
    // Behind a Service any pod may be; without one the server leaves out what is not selected.
    let selected = match (&config.service_selector, &config.pod_selector) {
        (None, Some(selector)) => all().labels(&selector.to_string()),
        _ => all(),
    };
    shared.view.lock().pods.watch();
    tasks.spawn(pods.run(connection.api::<core::Pod>(), selected, resync));
    if let Some(selector) = &config.service_selector {
        let services = Watch {
            what: "services",
            shared: Arc::clone(&shared),
            kind: |view| &mut view.services,
            convert: Box::new(|service| Some(convert::service(&service))),
        };
        let slices = Watch {
            what: "endpointslices",
            shared: Arc::clone(&shared),
            kind: |view| &mut view.slices,
            convert: Box::new(convert::slice),
        };
        shared.view.lock().services.watch();
        shared.view.lock().slices.watch();
        let selected = all().labels(&selector.to_string());
        tasks.spawn(services.run(connection.api::<core::Service>(), selected, resync));
        tasks.spawn(slices.run(connection.api::<EndpointSlice>(), all(), resync));
    }
    Watching { shared, _tasks: tasks }
}

/// One kind of thing that is watched.
struct Watch<K, T> {
    what: &'static str,
    shared: Arc<Shared>,
    kind: fn(&mut View) -> &mut Kind<T>,
    convert: Box<dyn Fn(K) -> Option<T> + Send + Sync>,
}

/// How a watch ended.
enum End {
    /// The time for a complete list has come.
    Due,
    /// The server asks for one.
    Again,
    /// It failed.
    Failed(Failure),
}

impl<K, T> Watch<K, T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send + Sync + 'static,
{
    async fn run(self, api: Api<K>, config: watcher::Config, resync: Duration) {
        let mut failed = 0_u32;
        loop {
            let (lasted, end) = self.follow(&api, &config, resync).await;
            if lasted {
                failed = 0;
            }
            if matches!(end, End::Due) {
                continue;
            }
            failed += 1;
            if let End::Failed(failure) = end {
                tracing::debug!(what = self.what, message = failure.message, failed, "a watch failed");
                (self.kind)(&mut self.shared.view.lock()).failed(Instant::now());
                // A connection that was cut once is no condition: the next list says more.
                if failed > 1 || failure.condition != Condition::Unreachable {
                    self.shared.failures.lock().insert(self.what, failure);
                }
                self.shared.changed.notify_one();
            }
            tokio::time::sleep(pause(failed)).await;
        }
    }

    /// Lists and watches until that fails or the list is due again; answers whether the watch lasted.
    async fn follow(&self, api: &Api<K>, config: &watcher::Config, resync: Duration) -> (bool, End) {
        let mut events = pin!(watcher(api.clone(), config.clone()));
        let mut due = pin!(tokio::time::sleep(resync));
        let (mut whole, mut lasted) = (None, false);
        loop {
            let event = if let Some(since) = whole {
                tokio::select! {
                    event = events.next() => event,
                    () = &mut due => {
                        self.is_over();
                        return (true, End::Due);
                    }
                    () = tokio::time::sleep_until(since + LASTS), if !lasted => {
                        lasted = true;
                        self.is_over();
                        continue;
                    }
                }
            } else {
                match tokio::time::timeout(LIST_PATIENCE, events.next()).await {
                    Ok(event) => event,
                    Err(_) => return (lasted, End::Failed(self.slow())),
                }
            };
            match event {
                Some(Ok(event)) => {
                    if whole.is_some() && !lasted && matches!(event, Event::Apply(_) | Event::Delete(_)) {
                        lasted = true;
                        self.is_over();
                    }
                    if self.take(event) {
                        whole = Some(tokio::time::Instant::now());
                    }
                }
                Some(Err(error)) => {
                    let failure = watch_failure(self.what, &error);
                    return (lasted, failure.map_or(End::Again, End::Failed));
                }
                None => return (lasted, End::Again),
            }
        }
    }

    /// What failed before does not any more.
    fn is_over(&self) {
        if self.shared.failures.lock().remove(self.what).is_some() {
            self.shared.changed.notify_one();
        }
    }

    /// Takes an event into the view; answers whether it completes the list.
    fn take(&self, event: Event<K>) -> bool {
        let mut view = self.shared.view.lock();
        let kind = (self.kind)(&mut view);
        let tells = !matches!(event, Event::Init | Event::InitApply(_));
        let whole = matches!(event, Event::InitDone);
        match event {
            Event::Init => kind.begin_list(),
            Event::InitApply(item) => {
                let name = convert::name(item.meta());
                if let Some(item) = (self.convert)(item) {
                    kind.listed(name, item);
                }
            }
            Event::InitDone => kind.end_list(),
            Event::Apply(item) => {
                let name = convert::name(item.meta());
                match (self.convert)(item) {
                    Some(item) => kind.changed(name, item),
                    None => kind.gone(&name),
                }
            }
            Event::Delete(item) => kind.gone(&convert::name(item.meta())),
        }
        if tells {
            self.shared.changed.notify_one();
        }
        whole
    }

    fn slow(&self) -> Failure {
        let message = format!("{}: the list made no progress for {} s", self.what, LIST_PATIENCE.as_secs());
        Failure { condition: Condition::Unreachable, message }
    }
}

/// Doubles up to the longest; up to a quarter is taken off by chance, so that nodes do not come back all at once.
fn pause(failed: u32) -> Duration {
    let whole = PAUSE.0.saturating_mul(1 << failed.saturating_sub(1).min(10)).min(PAUSE.1);
    let drawn = u32::try_from(RandomState::new().build_hasher().finish() % 256).unwrap_or(0);
    whole - whole * drawn / 1024
}
