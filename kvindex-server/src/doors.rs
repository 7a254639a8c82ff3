//! A node's doors for clients: bound where the configuration says, locked with its certificates, and served together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{self, Api};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::net::{self, Door, Gate, Lock, Patience, PublicTls, TlsError};

/// Connections to the metrics' door: a few who scrape or probe.
const METRICS_CONNECTIONS: usize = 256;

/// The listeners of a node for clients.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC and HTTP.
    pub public: TcpListener,
    /// For metrics and probes, where they have a door of their own.
    pub metrics: Option<TcpListener>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; is another kvindex running? ({key})")]
pub struct ListenError {
    /// The key that names it.
    pub key: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Binds an address of the configuration.
pub(crate) fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    net::listen(address).map_err(|source| ListenError { key, address, source })
}

impl Listeners {
    /// Binds what the configuration names. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let public = bind("listen", config.listen)?;
        let metrics = config.net.metrics_listen.map(|address| bind("metrics_listen", address)).transpose()?;
        Ok(Self { public, metrics })
    }
}

impl From<TcpListener> for Listeners {
    fn from(public: TcpListener) -> Self {
        Self { public, metrics: None }
    }
}

/// Reads the certificates of the public port, where there are any.
pub(crate) fn locks(
    config: &Config,
    metrics: &Metrics,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<PublicTls>, TlsError> {
    let load = |tls: &crate::config::PublicTlsConfig| {
        PublicTls::load(&tls.files, tls.client_auth, metrics.net(), stopping.clone())
    };
    config.tls.public.as_ref().map(load).transpose()
}

/// Serves clients until `stopping`; aborting the task cuts open calls off.
pub(crate) fn open(
    config: &Config,
    listeners: Listeners,
    tls: Option<&PublicTls>,
    api: &Arc<Api>,
    metrics: &Metrics,
    stopping: &watch::Receiver<bool>,
) -> JoinHandle<io::Result<()>> {
    let patience = Patience { unread: config.access.body_timeout, ..Patience::default() };
    let lock = |of: fn(PublicTls) -> Lock| tls.cloned().map_or(Lock::Open, of);
    let gate = |door, limit| Gate::new(door, limit, metrics.net().clone());
    let apart = listeners.metrics.is_some();
    let public = Door {
        listener: listeners.public,
        gate: gate("public", config.net.max_connections),
        lock: lock(Lock::Public),
        patience,
    };
    let public = net::serve(public, api::router(api, !apart), stopping.clone());
    let for_metrics = listeners.metrics.map(|listener| {
        let gate = gate("metrics", METRICS_CONNECTIONS);
        let door = Door { listener, gate, lock: lock(Lock::Metrics), patience };
        net::serve(door, api::metrics_router(api), stopping.clone())
    });
    tokio::spawn(async move {
        let for_metrics = async {
            if let Some(serving) = for_metrics {
                serving.await;
            }
        };
        tokio::join!(public, for_metrics);
        Ok(())
    })
}
