//! Admin calls: for people and control loops, which want to know why something failed.

use kvindex_proto::v1;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use tonic::Streaming;

use crate::calls::Repeat;
use crate::error::CallError;
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
    /// ```no_run
    /// use kvindex_client::{CallError, Client, PromptTokens, v1::ExplainRequest};
    ///
    /// # async fn why(client: Client) -> Result<(), CallError> {
    /// let prompt = PromptTokens::new("llama", &[1, 2, 3]);
    /// let request = ExplainRequest { prompt: Some(prompt.message().clone()), ..ExplainRequest::default() };
    /// for worker in client.explain(request).await?.workers {
    ///     println!("{}", worker.detail);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, or it refuses the prompt.
    pub async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse, CallError> {
        let most = self.config.max_answer_bytes;
        let call = |channel| {
            let request = request.clone();
            async move { crate::calls::query(channel, most).explain(request).await }
        };
        self.admin(Repeat::Always, call).await
    }

    /// The registered workers with their streams.
    ///
    /// # Errors
    /// When no node is reachable, or the asked one slow.
    pub async fn list_workers(
        &self,
        request: v1::ListWorkersRequest,
    ) -> Result<v1::ListWorkersResponse, CallError> {
        let most = self.config.max_answer_bytes;
        let call = |channel| {
            let request = request.clone();
            async move { crate::calls::query(channel, most).list_workers(request).await }
        };
        self.admin(Repeat::Always, call).await
    }

    /// Which prefixes the asked node's questions ask for most.
    ///
    /// # Errors
    /// When the node is unreachable or slow, or the limit is too large.
    pub async fn hot_prefixes(
        &self,
        request: v1::HotPrefixesRequest,
    ) -> Result<v1::HotPrefixesResponse, CallError> {
        let most = self.config.max_answer_bytes;
        let call = |channel| {
            let request = request.clone();
            async move { crate::calls::query(channel, most).hot_prefixes(request).await }
        };
        self.admin(Repeat::Always, call).await
    }

    /// Makes a worker known. The same definition twice is no error, so this may be repeated, and is where a node fails
    /// and there is another.
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
    /// When no node is reachable or the asked one slow, the definition is wrong, or it differs from the registered one
    /// and `replace` is not set.
    pub async fn register(&self, request: v1::RegisterRequest) -> Result<v1::RegisterResponse, CallError> {
        let call = |channel| {
            let request = request.clone();
            async move { IngestServiceClient::new(channel).register(request).await }
        };
        self.admin(Repeat::Always, call).await
    }

    /// Forgets a worker and all its blocks; answers whether it was known.
    ///
    /// # Errors
    /// When no node is reachable, or the asked one slow.
    pub async fn unregister(&self, worker_id: impl Into<String>) -> Result<bool, CallError> {
        let request = v1::UnregisterRequest { worker_id: worker_id.into() };
        let call = |channel| {
            let request = request.clone();
            async move { IngestServiceClient::new(channel).unregister(request).await }
        };
        // Made twice, it would say that the worker was unknown.
        Ok(self.admin(Repeat::IfUnsent, call).await?.removed)
    }

    /// Hands in one event batch of an engine that has no ZeroMQ publisher. A batch is applied exactly once, so
    /// this may be repeated, and is where a node fails and there is another.
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, does not know the worker, or expects another batch.
    pub async fn publish(&self, request: v1::PublishRequest) -> Result<v1::PublishResponse, CallError> {
        let call = |channel| {
            let request = request.clone();
            async move { IngestServiceClient::new(channel).publish(request).await }
        };
        self.admin(Repeat::Always, call).await
    }

    /// Watches changes at one node, and ends with it; [`Client::follow`] goes on at another. What happens after this
    /// returns is seen.
    ///
    /// # Errors
    /// When no node is reachable or the asked one slow, or it has too many watchers.
    pub async fn watch(&self, request: v1::WatchRequest) -> Result<Watcher, CallError> {
        let (events, _) = self.open_watch(&request).await?;
        Ok(Watcher { events })
    }
}
