//! The public API: gRPC and HTTP/JSON on one port, both thin over the same calls.

mod body;
mod calls;
mod cluster;
mod convert;
mod error;
mod frames;
mod grpc;
mod guard;
mod http;
mod intake;
mod observe;
mod openapi;
mod parts;
mod stream;
mod trace;
mod walker;

use axum::Router;
use kvindex_core::WorkerId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, watch};

use crate::access::{Access, Caller, Gate};
use crate::cluster::Cluster;
use crate::config::{ApiLimits, Config, DialectsConfig};
use crate::dialects::{self, Tokenizers};
use crate::metrics;
use crate::node::Node;
use crate::workers::WorkerDefinition;
pub(crate) use body::{parse as parse_json, question, small};
pub(crate) use calls::{Arrived, blocking};
pub(crate) use convert::{Question, publication, raw_worker};
pub(crate) use error::{ApiError, Kind};
pub(crate) use grpc::{bounded, origin};
pub(crate) use observe::CalledAs;
pub(crate) use parts::check_json;
pub use trace::CALL_TARGET;
pub(crate) use walker::walk as walk_message;

/// What every call has at hand.
#[derive(Debug)]
pub(crate) struct Api {
    node: Arc<Node>,
    /// `None` for a node alone.
    cluster: Option<Arc<Cluster>>,
    access: Arc<Access>,
    /// Which queries run now, and which wait.
    gate: Gate,
    /// Held while metrics are written.
    scrape: tokio::sync::Mutex<()>,
    /// What calls hold.
    intake: Arc<intake::Room>,
    limits: ApiLimits,
    dialects: DialectsConfig,
    /// Of prompts that come as text.
    tokenizers: Tokenizers,
    gap_policy: kvindex_core::GapPolicy,
    /// One permit for each match stream or watcher that may be open.
    streams: Arc<Semaphore>,
    /// Turns true when the server stops: long-lived calls end then.
    stopping: watch::Receiver<bool>,
    ready: AtomicBool,
    /// Whether the status page is served.
    has_page: bool,
    /// Where the node's data lies; `None` for memory only.
    data: Option<PathBuf>,
}

impl Api {
    pub(crate) fn new(
        config: &Config,
        node: Arc<Node>,
        cluster: Option<Arc<Cluster>>,
        access: Arc<Access>,
        tokenizers: Tokenizers,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            node,
            cluster,
            access,
            gate: Gate::new(config.access.slots(), config.access.query_wait),
            scrape: tokio::sync::Mutex::default(),
            intake: intake::Room::new(&config.access),
            limits: config.limits,
            dialects: config.dialects.clone(),
            tokenizers,
            gap_policy: config.ingest.gap_policy,
            streams: Arc::new(Semaphore::new(config.limits.streams)),
            stopping,
            ready: AtomicBool::new(false),
            has_page: config.net.ui,
            data: data_of(config),
        }
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Which other indexers' calls are answered.
    pub(crate) fn dialects(&self) -> &DialectsConfig {
        &self.dialects
    }

    /// Every known worker that a caller sees, without its turn: for what looks at few of them, or changes them.
    pub(crate) fn each_worker(&self, caller: &Caller, mut look: impl FnMut(&WorkerDefinition)) {
        self.node.each_worker(|worker| {
            if caller.sees(&worker.spec.tenant) {
                look(worker);
            }
        });
    }

    /// A known worker, whoever's it is: what is told of it must not depend on that.
    pub(crate) fn definition(&self, worker_id: &str) -> Option<WorkerDefinition> {
        let id = WorkerId::new(worker_id).ok()?;
        self.node.known_worker(&id).map(|known| known.definition)
    }

    /// The block sizes with which a tenant's workers of a model were registered, each once; `None` for those that were
    /// told none. Empty where there is no worker.
    pub(crate) fn block_sizes(&self, tenant: &str, model: &str) -> Vec<Option<u32>> {
        self.node.block_sizes(tenant, model)
    }

    /// Which tokenizers there are.
    pub(crate) fn tokenizers(&self) -> &Tokenizers {
        &self.tokenizers
    }

    /// What callers may ask for.
    pub(crate) fn limits(&self) -> &ApiLimits {
        &self.limits
    }

    /// All metrics as text. Scrapers wait for each other: however many there are, they have one thread.
    async fn render_metrics(&self) -> String {
        let _one_at_a_time = self.scrape.lock().await;
        let mut others = vec![metrics::process::registry(self.data.as_deref())];
        others.extend(self.cluster.as_deref().map(metrics::cluster::registry));
        self.node.render_metrics(&others)
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

fn data_of(config: &Config) -> Option<PathBuf> {
    let folder = config.cluster.as_ref().map(|cluster| cluster.data_dir.clone());
    let beside = || config.snapshot.as_ref()?.path.parent().map(Path::to_path_buf);
    folder.filter(|folder| !folder.as_os_str().is_empty()).or_else(beside)
}

/// Everything that is served on the public port: the status page if it is to be, metrics unless they have a door of their own.
pub(crate) fn router(api: &Arc<Api>, with_metrics: bool) -> Router {
    let metrics = if with_metrics { http::metrics_router(api) } else { Router::new() };
    let page = if api.has_page { http::page_router() } else { Router::new() };
    let native = grpc::router(api).merge(http::router(api));
    guarded(api, native.merge(dialects::router(api)).merge(metrics).merge(page))
}

/// What is served on the metrics' own port: metrics, and what says whether the node lives and is ready.
pub(crate) fn metrics_router(api: &Arc<Api>) -> Router {
    guarded(api, http::metrics_router(api).merge(http::probes_router(api)))
}

/// What stands around every route, on whichever port: the call is observed, and who calls is looked at. A route
/// outside of this has no caller and answers nothing.
fn guarded(api: &Arc<Api>, routes: Router) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(api), guard::guard);
    let observe = axum::middleware::from_fn_with_state(Arc::clone(api), observe::observe);
    // The last layer is the first to see a call.
    routes.layer(guard).layer(observe)
}
