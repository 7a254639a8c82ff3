//! Admin calls: for people and control loops, which want to know why something failed.

use kvindex_proto::v1;
use tonic::Streaming;

use crate::error::{self, CallError};
use crate::routing::Client;

/// Changes of the index as they happen.
#[derive(Debug)]
pub struct Watcher {
    events: Streaming<v1::WatchEvent>,
}

impl Watcher {
    /// The next change; `None` when the node ends, such as at its shutdown.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Option<v1::WatchEvent>, CallError> {
        self.events.message().await.map_err(|status| CallError::from_status(&status))
    }
}

impl Client {
    /// Where each worker's match ends, and why.
    ///
    /// # Errors
    /// When the node is unreachable or slow, or refuses the prompt.
    pub async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, CallError> {
        error::within(self.config.admin_timeout, self.query().explain(request)).await
    }

    /// The registered workers with their streams.
    ///
    /// # Errors
    /// When the node is unreachable or slow.
    pub async fn list_workers(
        &self,
        request: v1::ListWorkersRequest,
    ) -> Result<v1::ListWorkersResponse, CallError> {
        error::within(self.config.admin_timeout, self.query().list_workers(request)).await
    }

    /// Which prefixes the asked node's questions ask for most.
    ///
    /// # Errors
    /// When the node is unreachable or slow, or the limit is too large.
    pub async fn hot_prefixes(
        &self,
        request: v1::HotPrefixesRequest,
    ) -> Result<v1::HotPrefixesResponse, CallError> {
        error::within(self.config.admin_timeout, self.query().hot_prefixes(request)).await
    }

    /// Makes a worker known. The same definition twice is no error, so this may be repeated.
    ///
    /// ```no_run
    /// use kvindex_client::{CallError, Client, v1::RegisterRequest};
    ///
    /// # async fn register(client: Client) -> Result<(), CallError> {
    /// let worker = RegisterRequest {
    ///     worker_id: "w0".into(),
    ///     model: "llama".into(),
    ///     endpoint: "tcp://10.0.0.7:5557".into(),
    ///     ..RegisterRequest::default()
    /// };
    /// client.register(worker).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the node is unreachable or slow, the definition is wrong, or it differs from the registered one and
    /// `replace` is not set.
    pub async fn register(&self, request: v1::RegisterRequest) -> Result<v1::RegisterResponse, CallError> {
        error::within(self.config.admin_timeout, self.ingest().register(request)).await
    }

    /// Forgets a worker and all its blocks; answers whether it was known.
    ///
    /// # Errors
    /// When the node is unreachable or slow.
    pub async fn unregister(&self, worker_id: impl Into<String>) -> Result<bool, CallError> {
        let request = v1::UnregisterRequest { worker_id: worker_id.into() };
        let response = error::within(self.config.admin_timeout, self.ingest().unregister(request)).await?;
        Ok(response.removed)
    }

    /// Hands in one event batch of an engine that has no ZeroMQ publisher. A batch is applied exactly once, so
    /// this may be repeated.
    ///
    /// # Errors
    /// When the node is unreachable or slow, does not know the worker, or expects another batch.
    pub async fn publish(&self, request: v1::PublishRequest) -> Result<v1::PublishResponse, CallError> {
        error::within(self.config.admin_timeout, self.ingest().publish(request)).await
    }

    /// Watches changes. What happens after this returns is seen.
    ///
    /// # Errors
    /// When the node is unreachable or slow, or has too many watchers.
    pub async fn watch(&self, request: v1::WatchRequest) -> Result<Watcher, CallError> {
        let events = error::within(self.config.admin_timeout, self.query().watch(request)).await?;
        Ok(Watcher { events })
    }
}
