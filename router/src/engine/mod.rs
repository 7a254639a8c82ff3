//! An engine without a model: OpenAI's API, a block cache of bounded size, and KV events over ZeroMQ as vLLM sends
//! them. Its prompts are computed at a given pace and its answers are made up; what is real is which blocks it holds,
//! what it tells of them, and what it says was cached.

mod answer;
mod cache;
mod events;
mod http;

use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use cache::Cache;
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
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            model: "simulated".into(),
            block_size: 16,
            blocks: 4096,
            prefill: Duration::from_micros(20),
            step: Duration::from_millis(5),
        }
    }
}

/// An engine that runs, until it is dropped.
#[derive(Debug)]
pub struct Engine {
    address: SocketAddr,
    events: Arc<Events>,
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
        let events = Arc::new(Events::start().context("an engine's event sockets")?);
        let cache = Cache::new(options.block_size, options.blocks);
        let routes = http::routes(options, cache, Arc::clone(&events), address);
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

    /// Where its events are published.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.events.endpoint()
    }

    /// Where lost batches can be asked for again.
    #[must_use]
    pub fn replay_endpoint(&self) -> &str {
        self.events.replay_endpoint()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
