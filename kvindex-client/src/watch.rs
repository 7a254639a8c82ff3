//! Watching that outlives a node: when one ends, fails or falls silent, another is watched, and the caller is told that
//! changes may have been missed.

use std::sync::Arc;
use std::time::Duration;

use kvindex_proto::v1;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Streaming};

use crate::calls::{Repeat, query};
use crate::error::CallError;
use crate::pool::Endpoint;
use crate::routing::Client;

/// First wait after no node could be watched, or a watch ended soon; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest wait. A watch that lasted longer ran well: the next one begins at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often to look whether the watched node is still one to ask. One that stands still ends no connection.
const LOOK: Duration = Duration::from_secs(1);

/// Changes of the index as they happen, from whichever node answers; made by [`Client::follow`].
#[derive(Debug)]
pub struct Follower {
    client: Client,
    request: v1::WatchRequest,
    open: Option<Open>,
    /// Why the next watch begins.
    reason: ResyncReason,
    /// When it may.
    not_before: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Open {
    events: Streaming<v1::WatchEvent>,
    endpoint: Arc<Endpoint>,
    since: Instant,
}

/// What a follower is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Followed {
    /// Something changed.
    Change(v1::WatchEvent),
    /// From here on all changes are seen, and before it some may not have been: whoever keeps a copy of anything makes
    /// it anew now. A watch has no position to go on from, because a watcher reads what one node does at the moment, and
    /// no node keeps what it did.
    Resync {
        /// Which node is watched.
        server: String,
        /// What came before.
        reason: ResyncReason,
    },
}

/// What may have been lost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResyncReason {
    /// Nothing: this is the beginning.
    Began,
    /// Whatever happened between two watches.
    Interrupted {
        /// How the one before ended.
        how: String,
    },
    /// This watcher read too slowly.
    TooSlow {
        /// So many changes were dropped.
        dropped: u64,
    },
}

impl Follower {
    /// The next change, or word that some were missed. Waits for as long as there is none, and while no node answers.
    /// Nothing is lost when it is dropped while it waits.
    ///
    /// # Errors
    /// When a node refuses the watch, so that another attempt would be refused as well.
    pub async fn next(&mut self) -> Result<Followed, CallError> {
        loop {
            let Some(Open { events, endpoint, since }) = &mut self.open else {
                if let Some(begun) = self.begin().await? {
                    return Ok(begun);
                }
                continue;
            };
            let how = match timeout(LOOK, events.message()).await {
                Ok(Ok(Some(change))) if change.kind == "dropped" => {
                    let reason = ResyncReason::TooSlow { dropped: change.count };
                    return Ok(Followed::Resync { server: endpoint.server.clone(), reason });
                }
                Ok(Ok(Some(change))) => return Ok(Followed::Change(change)),
                Ok(Ok(None)) => "the node ended it".to_owned(),
                Ok(Err(status)) => CallError::from_status(&status).to_string(),
                Err(_) if !self.client.pool().is_better_elsewhere(endpoint) => continue,
                Err(_) => "the node is left out".to_owned(),
            };
            tracing::debug!(server = endpoint.server, how, "a watch ended");
            let lasted = since.elapsed();
            self.reason = ResyncReason::Interrupted { how };
            self.open = None;
            if lasted > LONGEST_PAUSE {
                self.pause = FIRST_PAUSE;
            } else {
                self.put_off();
            }
        }
    }

    async fn begin(&mut self) -> Result<Option<Followed>, CallError> {
        sleep_until(self.not_before).await;
        match self.client.open_watch(&self.request).await {
            Ok((events, endpoint)) => {
                let server = endpoint.server.clone();
                self.open = Some(Open { events, endpoint, since: Instant::now() });
                Ok(Some(Followed::Resync { server, reason: self.reason.clone() }))
            }
            Err(error) if !may_pass(&error) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "no node can be watched now");
                self.put_off();
                Ok(None)
            }
        }
    }

    /// The next watch waits, and the one after it longer. Not all followers shall come back in the same moment.
    fn put_off(&mut self) {
        self.not_before = Instant::now() + self.pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A node may have as many watchers as it takes, and one may leave.
fn may_pass(error: &CallError) -> bool {
    error.is_retryable()
        || matches!(error, CallError::Refused { code: Code::ResourceExhausted | Code::Internal, .. })
}

impl Client {
    /// Watches changes, at another node when one ends: what to use for a copy that shall stay right. Begins with a
    /// [`Followed::Resync`], so that there is one place where the copy is made.
    ///
    /// After another one, changes that were seen before may come again: nodes are not at the same point. A change's
    /// `worker_id`, `dp_rank`, `generation` and `seq` tell.
    ///
    /// ```no_run
    /// use kvindex_client::{CallError, Client, Followed, v1};
    ///
    /// # async fn keep_a_copy(client: Client) -> Result<(), CallError> {
    /// let mut changes = client.follow(v1::WatchRequest::default());
    /// let mut workers = Vec::new();
    /// loop {
    ///     match changes.next().await? {
    ///         Followed::Resync { .. } => {
    ///             workers = client.list_workers(v1::ListWorkersRequest::default()).await?.workers;
    ///         }
    ///         Followed::Change(change) if change.kind == "unregistered" => {
    ///             workers.retain(|worker| worker.worker_id != change.worker_id);
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn follow(&self, request: v1::WatchRequest) -> Follower {
        let client = self.clone();
        let reason = ResyncReason::Began;
        Follower { client, request, open: None, reason, not_before: Instant::now(), pause: FIRST_PAUSE }
    }

    pub(crate) async fn open_watch(
        &self,
        request: &v1::WatchRequest,
    ) -> Result<(Streaming<v1::WatchEvent>, Arc<Endpoint>), CallError> {
        let most = self.config.max_answer_bytes;
        let call = |channel| {
            let request = request.clone();
            async move { query(channel, most).watch(request).await }
        };
        self.admin_at(Repeat::Always, call).await
    }
}
