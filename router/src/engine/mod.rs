//! An engine without a model: OpenAI's API, a block cache of bounded size, and KV events over ZeroMQ as vLLM sends
//! them. Its prompts are computed at a given pace and its answers are made up; what is real is which blocks it holds,
//! what it tells of them, and what it says was cached.

mod answer;
mod cache;
mod events;
mod http;

use anyhow::Context;
use kvindex_client::v1;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use events::Events;

/// How an engine is.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The model that it says it serves.
    pub model: String,
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks that fit in its cache.
    pub blocks: usize,
    /// What computing one prompt token takes.
    pub prefill: Duration,
    /// What each token of an answer takes.
    pub step: Duration,
    /// Data-parallel ranks, each with a cache of its own and a thread of events; at least one.
    pub ranks: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: "simulated".into(),
            block_size: 16,
            blocks: 4096,
            prefill: Duration::from_micros(20),
            step: Duration::from_millis(5),
            ranks: 1,
        }
    }
}

/// An engine that runs, until it is dropped.
#[derive(Debug)]
pub struct Engine {
    address: SocketAddr,
    /// By data-parallel rank.
    events: Vec<Arc<Events>>,
    serving: JoinHandle<()>,
}

impl Engine {
    /// Starts an engine on ports of the system's choice, on this machine only.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(options: EngineOptions) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("an engine's port")?;
        let address = listener.local_addr()?;
        let start = |rank| Events::start(rank).map(Arc::new).context("an engine's event sockets");
        let events = (0..options.ranks.max(1)).map(start).collect::<anyhow::Result<Vec<_>>>()?;
        let routes = http::routes(options, &events, address);
        let serving = tokio::spawn(async move {
            // Ends when the task is.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, events, serving })
    }

    /// Where it serves, `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where its events are published and where lost batches can be asked for again, by data-parallel rank.
    #[must_use]
    pub fn streams(&self) -> Vec<v1::StreamSource> {
        let source = |(rank, events): (u32, &Arc<Events>)| v1::StreamSource {
            dp_rank: rank,
            endpoint: events.endpoint().to_owned(),
            replay_endpoint: events.replay_endpoint().to_owned(),
            ..v1::StreamSource::default()
        };
        (0..).zip(&self.events).map(source).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
