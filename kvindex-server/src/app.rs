//! Composition root: builds metrics, node, ingest and API, in that order, and takes them down the other way
//! round. The only place that knows every part.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::{Access, AccessError, AccessMetrics};
use crate::api::Api;
use crate::cluster::{Cluster, JoinError};
use crate::clustered::{self, Clustered};
use crate::config::{Config, LiveConfig};
use crate::dialects::Tokenizers;
use crate::discovery;
use crate::doors::{self, ListenError, Listeners};
use crate::ingest::IngestError;
use crate::metrics::Metrics;
use crate::net::TlsError;
use crate::node::{LoadError, Node, StoreError};
use crate::open_doors;
use crate::snapshots;
use crate::static_workers::StaticWorkers;
use crate::tokenizer::TokenizerError;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener has no address.
    #[error("the listener is unusable: {0}")]
    Listener(#[source] std::io::Error),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] LoadError),
    /// An address that the configuration names cannot be listened on.
    #[error(transparent)]
    NotBound(#[from] ListenError),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is no address to tell others.
    #[error("no address to tell others: {reason}; set {key}")]
    NoAddress {
        /// The key that would say it.
        key: &'static str,
        /// Why none was found.
        reason: String,
    },
    /// The access file is wrong.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A tokenizer that the configuration names cannot be used.
    #[error("dialect_llmd_tokenizers: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[source] std::io::Error),
    /// It cannot be part of its cluster.
    #[error(transparent)]
    Cluster(#[from] JoinError),
    /// Ingest cannot start.
    #[error("ingest: {0}")]
    Ingest(#[from] IngestError),
}

/// Why a node did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The server failed while it ran.
    #[error("the server failed: {0}")]
    Server(#[source] std::io::Error),
    /// The last snapshot could not be written.
    #[error(transparent)]
    Snapshot(#[from] StoreError),
    /// The node could not keep its part of the cluster's log.
    #[error("this node cannot go on and stops: {0}")]
    Cluster(String),
}

/// The server.
#[derive(Debug)]
pub struct App;

impl App {
    /// Serves on `listeners` until `shutdown` resolves, then stops gracefully.
    ///
    /// # Errors
    /// When the node cannot start, or fails while it runs or stops.
    pub async fn run(
        config: Config,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), AppError> {
        Ok(Self::start(config, listeners).await?.until(shutdown).await?)
    }

    /// Starts a node on bound listeners; it serves when this returns. A door for metrics that the configuration names
    /// and nobody has bound is bound here.
    ///
    /// # Errors
    /// When the snapshot cannot be read, an address cannot be listened on, or another part cannot start.
    pub async fn start(config: Config, listeners: impl Into<Listeners>) -> Result<Running, StartError> {
        let mut listeners = listeners.into();
        let local_addr = listeners.public.local_addr().map_err(StartError::Listener)?;
        let (stop, stopping) = watch::channel(false);
        let node = Arc::new(Node::new(&config, Metrics::new()));
        let counters = AccessMetrics::default();
        node.metrics().describe_room(|registry| counters.describe(registry));
        let access = Arc::new(Access::open(&config.access, counters)?);
        let tokenizers = Tokenizers::open(&config.dialects, config.access.slots())?;
        if let (None, Some(wanted)) = (&listeners.metrics, config.net.metrics_listen) {
            listeners.metrics = Some(doors::bind("metrics_listen", wanted)?);
        }
        let metrics_addr = listeners.metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        let tls = doors::locks(&config, node.metrics(), &stopping)?;
        if let Some(snapshot) = &config.snapshot {
            snapshots::restore(&node, snapshot, &config)?;
        }
        let clustered = match &config.cluster {
            Some(cluster) => Some(clustered::start(&config, cluster, local_addr, &node).await?),
            None => None,
        };
        let cluster = clustered.as_ref().map(|clustered| Arc::clone(&clustered.cluster));
        let live = LiveConfig::new(config.clone());
        let mut listed = StaticWorkers::new(&node, cluster.clone(), live.follow(), stopping.clone());
        if cluster.is_none() {
            listed.begin().await;
            node.start_ingest(config.ingest)?;
        }
        open_doors::tell(&config, local_addr, metrics_addr);
        tokio::spawn(Arc::clone(&access).follow_file(stopping.clone()));
        let api = Api::new(&config, Arc::clone(&node), cluster, access, tokenizers, stopping.clone());
        let api = Arc::new(api);
        let server = doors::open(&config, listeners, tls.as_ref(), &api, node.metrics(), &stopping);
        let mut ending = stopping.clone();
        let timer = snapshots::keep_writing(&node, live.follow(), stopping.clone());
        let looking = clustered.as_ref().map(|clustered| Arc::clone(&clustered.cluster));
        let discovery = discovery::start(&node, looking, live.follow(), stopping.clone());
        let static_workers = listed.keep(stopping);
        match &clustered {
            None => api.set_ready(true),
            Some(clustered) => {
                let (api, ready) = (Arc::downgrade(&api), clustered.ready());
                tokio::spawn(async move {
                    tokio::select! {
                        () = ready => {}
                        // It would hold the log for as long as this process lives.
                        _ = ending.wait_for(|stop| *stop) => return,
                    }
                    if let Some(api) = api.upgrade() {
                        api.set_ready(true);
                    }
                });
            }
        }
        tracing::info!(%local_addr, workers = node.stats().workers, "serving");
        Ok(Running {
            local_addr,
            metrics_addr,
            live,
            node,
            api,
            stop,
            server,
            timer,
            static_workers,
            discovery,
            clustered,
        })
    }
}

/// Why [`App::run`] ended badly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It did not stop well.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// A node that serves.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    live: LiveConfig,
    node: Arc<Node>,
    api: Arc<Api>,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
    timer: JoinHandle<()>,
    static_workers: JoinHandle<()>,
    discovery: JoinHandle<()>,
    clustered: Option<Clustered>,
}

impl Running {
    /// Where it serves.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics are served, if on a port of their own.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// The node, for programs that embed the server.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its part in a cluster, for programs that embed the server; `None` for a node alone.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.clustered.as_ref().map(|clustered| &clustered.cluster)
    }

    /// The configuration it acts by, which may be changed in part while it runs.
    #[must_use]
    pub fn live_config(&self) -> &LiveConfig {
        &self.live
    }

    /// Serves until `shutdown` resolves, then stops gracefully.
    ///
    /// # Errors
    /// When the node fails while it runs or stops.
    pub async fn until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StopError> {
        let failure = tokio::select! {
            () = shutdown => None,
            failure = self.failed() => failure,
        };
        let stopped = self.shutdown().await;
        match failure {
            Some(reason) => Err(StopError::Cluster(reason)),
            None => stopped,
        }
    }

    /// Resolves when the server fails by itself: the listener is broken, or the log, and then it says why.
    async fn failed(&mut self) -> Option<String> {
        let cluster = self.cluster().cloned();
        let cluster_failed = async {
            match cluster {
                Some(cluster) => cluster.until_failed().await,
                None => std::future::pending().await,
            }
        };
        let server_failed = async {
            while !self.server.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            }
        };
        tokio::select! {
            reason = cluster_failed => Some(reason),
            () = server_failed => None,
        }
    }

    /// Stops accepting, lets open calls end, stops ingest, writes the snapshot.
    ///
    /// # Errors
    /// When the server had failed, or the snapshot cannot be written.
    pub async fn shutdown(mut self) -> Result<(), StopError> {
        self.api.set_ready(false);
        if let Some(clustered) = &self.clustered {
            clustered.hand_over().await;
        }
        self.stop.send_replace(true);
        let config = self.live.now();
        let served = match tokio::time::timeout(config.drain, &mut self.server).await {
            Ok(Ok(served)) => served.map_err(StopError::Server),
            Ok(Err(panicked)) => Err(StopError::Server(std::io::Error::other(panicked))),
            Err(_) => {
                tracing::warn!(drain_s = config.drain.as_secs(), "calls were still open and were cut off");
                self.server.abort();
                Ok(())
            }
        };
        // All end by the stop signal; a snapshot that is being written is finished first.
        let _ = self.timer.await;
        let _ = self.static_workers.await;
        let _ = self.discovery.await;
        let node = Arc::clone(&self.node);
        // Joins threads. It can fail only by a panic in there, and the snapshot is to be written even then.
        let _ = tokio::task::spawn_blocking(move || node.stop_ingest()).await;
        if let Some(clustered) = self.clustered.take() {
            clustered.shutdown().await;
        }
        if let Some(snapshot) = &config.snapshot {
            snapshots::store(Arc::clone(&self.node), snapshot.clone()).await?;
        }
        served
    }
}
