//! Everything on one machine: an index, simulated engines that it follows, and a router in front of them.

use anyhow::{Context, bail, ensure};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kvindex_client::v1::{self, TrustState};
use kvindex_client::{Answer, Client, ClientConfig, PromptTokens};
use kvindex_server::config::Config;
use kvindex_server::{App, Running};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;

use crate::engine::{Engine, EngineOptions};
use crate::{Router, RouterOptions};

/// How long anything may take to come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine of the stage: its worker id, its role, and its prefill-decode group.
pub type Part = (&'static str, Option<&'static str>, Option<&'static str>);

/// Index, engines and router.
pub struct Stage {
    index: Option<Running>,
    client: Client,
    /// The engines by worker id, in the order in which they were named.
    pub engines: Vec<(&'static str, Engine)>,
    /// The router.
    pub router: Arc<Router>,
    url: String,
    model: String,
}

/// What came of a call.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Head of the answer.
    pub headers: HeaderMap,
    /// The answer's pieces as they came, with when.
    pub pieces: Vec<(Duration, String)>,
}

impl Reply {
    /// The whole answer.
    #[must_use]
    pub fn text(&self) -> String {
        self.pieces.iter().map(|(_, piece)| piece.as_str()).collect()
    }

    /// A header's text, empty without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answers of a stream of server-sent events, without its end.
    ///
    /// # Errors
    /// When it is none, or has no end.
    pub fn events(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.text();
        let text = text.strip_suffix("data: [DONE]\n\n").context("the stream does not end with [DONE]")?;
        let events = text.split_terminator("\n\n").map(|event| {
            let data = event.strip_prefix("data: ").with_context(|| format!("no event: {event}"))?;
            Ok(serde_json::from_str(data)?)
        });
        events.collect()
    }
}

/// An engine as it is registered.
#[must_use]
pub fn registration(id: &str, options: &EngineOptions, engine: &Engine) -> v1::RegisterRequest {
    v1::RegisterRequest {
        worker_id: id.into(),
        model: options.model.clone(),
        engine: "vllm".into(),
        engine_version: Some("0.33.0".into()),
        address: Some(engine.address()),
        streams: engine.streams(),
        hidden_identity: "unused".into(),
        ..v1::RegisterRequest::default()
    }
}

impl Stage {
    /// Starts all of it, and waits until the index follows every engine and the router knows them.
    ///
    /// # Errors
    /// When something does not start in time.
    pub async fn start(parts: &[Part], options: EngineOptions) -> anyhow::Result<Self> {
        Self::with_router(parts, options, RouterOptions::default()).await
    }

    /// The same with a router that works in another way.
    ///
    /// # Errors
    /// When something does not start in time.
    pub async fn with_router(
        parts: &[Part],
        options: EngineOptions,
        how: RouterOptions,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let index = App::start(Config::defaults(), listener).await.context("the index")?;
        // A busy machine answers late, and what is shown here is the index's answer.
        let config = ClientConfig::new(format!("http://{}", index.local_addr()));
        let config = config.routing_timeout(Duration::from_secs(2)).admin_timeout(PATIENCE);
        // Not the router's, which counts its own choices: this one tells what the index says.
        let client = Client::connect(config.clone())?;
        let mut engines = Vec::new();
        for (id, role, group) in parts {
            let engine = Engine::start(options.clone()).await?;
            let worker = v1::RegisterRequest {
                role: role.map(str::to_owned),
                pd_group: group.map(str::to_owned),
                ..registration(id, &options, &engine)
            };
            client.register(worker).await.with_context(|| format!("registering {id}"))?;
            engines.push((*id, engine));
        }
        let router = Router::new(Client::connect(config)?, how);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = router.routes();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let stage = Self { index: Some(index), client, engines, router, url, model: options.model };
        stage.connected(parts.len()).await?;
        Ok(stage)
    }

    /// Makes an engine known that is not one of the stage's: it serves there, and tells of no blocks.
    ///
    /// # Errors
    /// When the index does not take it, or the router does not learn of it in time.
    pub async fn add(&self, id: &str, address: &str) -> anyhow::Result<()> {
        let worker = v1::RegisterRequest {
            worker_id: id.into(),
            model: self.model.clone(),
            address: Some(address.into()),
            ..v1::RegisterRequest::default()
        };
        self.client.register(worker).await.with_context(|| format!("registering {id}"))?;
        self.connected(self.router.fleet().all().len() + 1).await
    }

    async fn connected(&self, count: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let listed = self.client.list_workers(v1::ListWorkersRequest::default()).await?;
            let streams = listed.workers.iter().flat_map(|worker| &worker.streams);
            // Connected and nothing heard: the engine is new and has nothing to tell.
            let waits = |stream: &&v1::WorkerStream| {
                stream.trust.as_ref().is_none_or(|trust| {
                    trust.state() != TrustState::Live && trust.reason.contains("not connected")
                })
            };
            self.router.fleet().refresh().await;
            if streams.filter(waits).count() == 0 && self.router.fleet().all().len() == count {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the index does not follow the engines: {listed:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A user's message in a chat.
    #[must_use]
    pub fn chat(&self, words: &str, stream: bool) -> Value {
        json!({
            "model": self.model,
            "messages": [{"role": "user", "content": words}],
            "stream": stream,
            "stream_options": {"include_usage": true},
            "max_tokens": 8,
        })
    }

    /// Posts to the router.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.post_with(path, &[], body).await
    }

    /// The same with headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<Reply> {
        post(&format!("{}{path}", self.url), headers, body).await
    }

    /// Where the index is, as a URL; `None` when it was stopped.
    #[must_use]
    pub fn index_url(&self) -> Option<String> {
        self.index.as_ref().map(|index| format!("http://{}", index.local_addr()))
    }

    /// Waits until the index says that a worker holds so many tokens of a chat's prompt or more, and answers how many.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn holds(&self, worker: &str, tokens: &[u32], least: u64) -> anyhow::Result<u64> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let prompt = PromptTokens::new(self.model.as_str(), tokens);
            if let Answer::Known(answer) = self.client.match_tokens(&prompt).await {
                let row = answer.workers.iter().find(|row| row.worker_id == worker);
                if let Some(row) = row.filter(|row| row.matched_tokens >= least) {
                    return Ok(row.matched_tokens);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{worker} is not said to hold {least} tokens")
    }

    /// The token ids of a chat's prompt, as an engine tells them.
    ///
    /// # Errors
    /// When no engine does.
    pub async fn tokens(&self, request: &Value) -> anyhow::Result<Vec<u32>> {
        let (_, engine) = self.engines.first().context("no engine")?;
        let client = HttpClient::builder(TokioExecutor::new()).build_http::<Body>();
        let question =
            Request::builder().method(Method::POST).header(header::CONTENT_TYPE, "application/json");
        let question = question.uri(format!("http://{}/tokenize", engine.address()));
        let answer = client.request(question.body(Body::from(request.to_string()))?).await?;
        let bytes = axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await?;
        let mut answer: Value = serde_json::from_slice(&bytes)?;
        Ok(serde_json::from_value(answer["tokens"].take())?)
    }

    /// Stops the index; engines and router go on.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop_index(&mut self) -> anyhow::Result<()> {
        if let Some(index) = self.index.take() {
            index.shutdown().await?;
        }
        Ok(())
    }
}

/// Posts JSON, and takes the answer as it comes.
///
/// # Errors
/// When there is no answer, or it breaks off.
pub async fn post(url: &str, headers: &[(&str, &str)], body: &Value) -> anyhow::Result<Reply> {
    let client = HttpClient::builder(TokioExecutor::new()).build_http::<Body>();
    let mut request = Request::builder().method(Method::POST).uri(url);
    request = request.header(header::CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let began = Instant::now();
    let answer = client.request(request.body(Body::from(body.to_string()))?).await?;
    let (head, body) = answer.into_parts();
    let mut pieces = Vec::new();
    let mut stream = Body::new(body).into_data_stream();
    while let Some(piece) = stream.next().await {
        pieces.push((began.elapsed(), String::from_utf8(piece?.to_vec())?));
    }
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, pieces })
}
