//! How this node calls others: one connection to each address in use, kept by its [`Link`].

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kvindex_core::replication::{Transport, TransportError};
use kvindex_proto::peer::v1::PeerRequest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

use super::link::{Link, LinkSettings, is_silence, with_causes};
use super::link_wire::MAX_BODY;
use crate::net::{self, NetMetrics, PeerTls, Signal};

/// Calls other nodes over gRPC. Clones share their connections.
#[derive(Debug, Clone, Default)]
pub struct GrpcTransport {
    links: Arc<Links>,
}

#[derive(Debug)]
struct Links {
    settings: LinkSettings,
    tls: Option<PeerTls>,
    metrics: NetMetrics,
    open: Mutex<HashMap<String, Arc<Link>>>,
    /// What the times of paths count from.
    origin: Instant,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            settings: LinkSettings::default(),
            tls: None,
            metrics: NetMetrics::default(),
            open: Mutex::default(),
            origin: Instant::now(),
        }
    }
}

impl GrpcTransport {
    /// A transport without connections; each is made by the first call to its address.
    #[must_use]
    pub fn new(settings: LinkSettings) -> Self {
        Self { links: Arc::new(Links { settings, ..Links::default() }) }
    }

    /// The same, encrypted where the node has certificates for it, and counted.
    #[must_use]
    pub fn with(settings: LinkSettings, tls: Option<PeerTls>, metrics: NetMetrics) -> Self {
        Self { links: Arc::new(Links { settings, tls, metrics, ..Links::default() }) }
    }

    /// How many addresses it keeps a link to, connected or not.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.open.lock().len()
    }

    async fn exchange_with(
        &self,
        address: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let unreachable = |reason| TransportError::Unreachable { address: address.to_owned(), reason };
        if body.len() > MAX_BODY {
            return Err(unreachable(format!("the message has {} bytes, more than {MAX_BODY}", body.len())));
        }
        let link = self.links.get(address);
        let began = Instant::now();
        let answer = tokio::time::timeout(timeout, exchange(&link, body)).await;
        let (signal, answer) = match answer {
            Ok(Ok(answer)) => (Signal::Answered(began.elapsed()), Ok(answer)),
            Ok(Err(Failed { reason, path: None })) => {
                (Signal::Answered(began.elapsed()), Err(unreachable(reason)))
            }
            Ok(Err(Failed { reason, path: Some(signal) })) => (signal, Err(unreachable(reason))),
            Err(_) => {
                (Signal::Silent, Err(TransportError::Timeout { address: address.to_owned(), after: timeout }))
            }
        };
        self.links.note(address, &link, signal);
        answer
    }
}

impl Transport for GrpcTransport {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(self.exchange_with(address, request, timeout))
    }

    fn admits(&self, address: &str) -> bool {
        // An address that was never called, or not for long, has no state.
        let link = self.links.open.lock().get(address).cloned();
        link.is_none_or(|link| link.path.admits(self.links.now_ms()))
    }
}

/// A call without an answer.
struct Failed {
    reason: String,
    /// What that says of the path; `None` where the other node answered, with a refusal.
    path: Option<Signal>,
}

async fn exchange(link: &Link, body: Bytes) -> Result<Bytes, Failed> {
    let signal = |silent| Some(if silent { Signal::Silent } else { Signal::Refused });
    let mut client = link
        .client()
        .await
        .map_err(|failure| Failed { reason: failure.reason.to_string(), path: signal(failure.silent) })?;
    match client.call(PeerRequest { body }).await {
        Ok(answer) => Ok(answer.into_inner().body),
        Err(status) => {
            // What the connection said is behind the status; what the other node said is not.
            let path = std::error::Error::source(&status).and_then(|error| signal(is_silence(error)));
            Err(Failed { reason: refusal(&status), path })
        }
    }
}

fn refusal(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            format!("it does not know this call, is it an older version? {}", status.message())
        }
        // What the connection said; the status around it adds nothing.
        _ => std::error::Error::source(status).map_or_else(
            || status.message().to_owned(),
            |error| net::explained(error).unwrap_or_else(|| with_causes(error)),
        ),
    }
}

impl Links {
    fn get(self: &Arc<Self>, address: &str) -> Arc<Link> {
        let mut open = self.open.lock();
        if let Some(link) = open.get(address) {
            link.touch();
            return Arc::clone(link);
        }
        let (links, name) = (Arc::downgrade(self), address.to_owned());
        let link = Arc::new(Link::open(address, (self.settings, self.tls.clone()), move || {
            if let Some(links) = links.upgrade() {
                links.drop_if_idle(&name);
            }
        }));
        open.insert(address.to_owned(), Arc::clone(&link));
        self.metrics.path_begins(address);
        link
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, address: &str, link: &Link, signal: Signal) {
        let Some(moved) = link.path.note(signal, self.now_ms()) else { return };
        self.metrics.path_moved(address, moved);
        let (from, to) = (moved.0.name(), moved.1.name());
        tracing::info!(peer = address, from, to, "peer path");
    }

    fn drop_if_idle(&self, address: &str) {
        let mut open = self.open.lock();
        // A link whose only holder is this map has no call under way, and gets none while the map is locked.
        let idle = |link: &Arc<Link>| Arc::strong_count(link) == 1 && link.idle_for() >= self.settings.idle;
        if open.get(address).is_some_and(idle) {
            open.remove(address);
            self.metrics.path_ends(address);
        }
    }
}
