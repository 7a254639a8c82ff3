//! The engines' streams, as steering moves them. In service that is ingest with its threads; a simulation has its
//! own.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use std::sync::Arc;

use kvindex_core::{StreamId, WorkerId};

use crate::ingest::{IngestError, Resume, Subscription};
use crate::node::Node;

/// Follows, leads and leaves streams.
pub trait Streams: Debug + Send + Sync + 'static {
    /// Subscribes, on standby: what is heard is only kept.
    fn follow(&self, source: Subscription) -> BoxFuture<'_, Result<(), IngestError>>;

    /// Unsubscribes. When this is through, no more of the stream's events will be proposed.
    fn leave<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, ()>;

    /// Lets the stream's events go to the log from now on; `resume` is what the index holds.
    fn lead<'a>(&'a self, stream: &'a StreamId, resume: Option<Resume>) -> BoxFuture<'a, ()>;

    /// Only keeps what comes from now on. When this is through, no more of the stream's events will be proposed.
    fn stand_by<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, ()>;
}

/// Those of a node's ingest.
#[derive(Debug)]
pub struct EngineStreams {
    node: Arc<Node>,
}

impl EngineStreams {
    /// Those of `node`, once its ingest runs.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Ingest waits for its threads, which may wait for a proposal.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&crate::ingest::Handle) -> T + Send + 'static,
    ) -> Option<T> {
        let node = Arc::clone(&self.node);
        let done = tokio::task::spawn_blocking(move || node.with_ingest(work)).await;
        done.ok().flatten()
    }
}

impl Streams for EngineStreams {
    fn follow(&self, source: Subscription) -> BoxFuture<'_, Result<(), IngestError>> {
        async move {
            let followed =
                self.blocking(move |ingest| ingest.subscribe(source, crate::ingest::Begin::OnStandby));
            followed.await.unwrap_or(Err(IngestError::ShutDown))
        }
        .boxed()
    }

    fn leave<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, ()> {
        let stream = stream.clone();
        self.blocking(move |ingest| ingest.unsubscribe(&stream)).map(|_| ()).boxed()
    }

    fn lead<'a>(&'a self, stream: &'a StreamId, resume: Option<Resume>) -> BoxFuture<'a, ()> {
        let stream = stream.clone();
        self.blocking(move |ingest| ingest.lead(&stream, resume)).map(|_| ()).boxed()
    }

    fn stand_by<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, ()> {
        let stream = stream.clone();
        self.blocking(move |ingest| ingest.stand_by(&stream)).map(|_| ()).boxed()
    }
}

/// The streams of a known worker, as they are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) worker: WorkerId,
    /// Changes when the streams have to be followed anew.
    pub(super) since: u64,
    pub(super) source: Subscription,
}
