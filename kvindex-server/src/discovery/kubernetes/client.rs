//! A connection to the API server, by a kubeconfig or from inside a cluster, and what its errors mean.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Config, Resource};

use crate::config::DiscoveryConfig;
use crate::discovery::condition::Condition;
use crate::discovery::view::Failure;

/// How long the API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Names all namespaces.
const ALL: &str = "*";

/// An API server, and where to look there.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    /// Its address, for people.
    pub(crate) server: String,
    /// `None` for all.
    namespace: Option<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Things of a kind, where they are looked for.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// What the server says of its version.
    pub(crate) async fn version(&self) -> Result<String, Failure> {
        let info = self.client.apiserver_version().await.map_err(|error| failure("version", &error))?;
        Ok(info.git_version)
    }

    /// Where it is looked, for people.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(ALL)
    }
}

/// Finds the API server: the file of the settings, else KUBECONFIG, the user's kubeconfig, or the cluster around this
/// process. Without a namespace in the settings it is the kubeconfig's or the pod's own.
pub(crate) async fn connect(settings: &DiscoveryConfig) -> Result<Connection, Failure> {
    let not_configured = |message: String| Failure { condition: Condition::NotConfigured, message };
    let mut config = match &settings.kubeconfig {
        Some(path) => from_file(path).await.map_err(|error| {
            not_configured(format!("{} cannot be used (discovery_kubeconfig): {error}", path.display()))
        })?,
        None => Config::infer()
            .await
            .map_err(|error| not_configured(format!("no Kubernetes API server is configured: {error}")))?,
    };
    config.connect_timeout = Some(CONNECT);
    // What is retried, and when, is decided here, so that it is seen.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    let own = config.default_namespace.clone();
    let client = Client::try_from(config)
        .map_err(|error| not_configured(format!("the configuration for {server} cannot be used: {error}")))?;
    let namespace = match settings.namespace.as_deref() {
        Some(ALL) => None,
        Some(named) => Some(named.to_owned()),
        None => Some(own),
    };
    Ok(Connection { client, server, namespace })
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// What an error of a call means.
pub(super) fn failure(what: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => refused(what, status),
        kube::Error::Auth(_) => {
            Failure { condition: Condition::Unauthorized, message: format!("{what}: {}", with_causes(error)) }
        }
        _ => {
            Failure { condition: Condition::Unreachable, message: format!("{what}: {}", with_causes(error)) }
        }
    }
}

/// What an error of a watch means; `None` when only the list has to be read again.
pub(super) fn watch_failure(what: &str, error: &watcher::Error) -> Option<Failure> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            let expired = matches!(error, kube::Error::Api(status) if status.code == 410);
            (!expired).then(|| failure(what, error))
        }
        watcher::Error::WatchError(status) => (status.code != 410).then(|| refused(what, status)),
        watcher::Error::NoResourceVersion => {
            Some(Failure { condition: Condition::Unreachable, message: format!("{what}: {error}") })
        }
    }
}

fn refused(what: &str, status: &kube::core::Status) -> Failure {
    let condition = match status.code {
        401 => Condition::Unauthorized,
        403 => Condition::Forbidden,
        _ => Condition::Unreachable,
    };
    Failure { condition, message: format!("{what}: {} ({})", status.message, status.code) }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
