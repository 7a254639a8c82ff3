//! How this node calls others: one connection to each address in use, kept by its [`Link`].

use bytes::Bytes;
use futures_util::future::BoxFuture;
use kvindex_core::replication::{Transport, TransportError};
use kvindex_proto::peer::v1::PeerRequest;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

use super::link::{Link, LinkSettings, with_causes};
use super::link_socket::MAX_BODY;

/// Calls other nodes over gRPC. Clones share their connections.
#[derive(Debug, Clone, Default)]
pub struct GrpcTransport {
    links: Arc<Links>,
}

#[derive(Debug, Default)]
struct Links {
    settings: LinkSettings,
    open: Mutex<HashMap<String, Arc<Link>>>,
}

impl GrpcTransport {
    /// A transport without connections; each is made by the first call to its address.
    #[must_use]
    pub fn new(settings: LinkSettings) -> Self {
        Self { links: Arc::new(Links { settings, open: Mutex::default() }) }
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
        let answer = tokio::time::timeout(timeout, exchange(&link, body));
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(reason)) => Err(unreachable(reason)),
            Err(_) => Err(TransportError::Timeout { address: address.to_owned(), after: timeout }),
        }
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
}

async fn exchange(link: &Link, body: Bytes) -> Result<Bytes, String> {
    let mut client = link.client().await.map_err(|reason| reason.to_string())?;
    let answered = client.call(PeerRequest { body }).await;
    answered.map(|answer| answer.into_inner().body).map_err(|status| refusal(&status))
}

fn refusal(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            format!("it does not know this call, is it an older version? {}", status.message())
        }
        // What the connection said; the status around it adds nothing.
        _ => std::error::Error::source(status).map_or_else(|| status.message().to_owned(), with_causes),
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
        let link = Arc::new(Link::open(address, self.settings, move || {
            if let Some(links) = links.upgrade() {
                links.drop_if_idle(&name);
            }
        }));
        open.insert(address.to_owned(), Arc::clone(&link));
        link
    }

    fn drop_if_idle(&self, address: &str) {
        let mut open = self.open.lock();
        // A link whose only holder is this map has no call under way, and gets none while the map is locked.
        let idle = |link: &Arc<Link>| Arc::strong_count(link) == 1 && link.idle_for() >= self.settings.idle;
        if open.get(address).is_some_and(idle) {
            open.remove(address);
        }
    }
}
