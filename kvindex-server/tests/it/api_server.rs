//! A server on a port of the system's choice, with clients for both transports, and the events tests push.

use kvindex_proto::v1;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use kvindex_server::config::Config;
use kvindex_server::{App, Running};
use serde_json::Value;
use tonic::transport::Channel;

pub(crate) const BLOCK: u32 = 16;

pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) query: QueryServiceClient<Channel>,
    pub(crate) ingest: IngestServiceClient<Channel>,
}

/// Defaults with one change.
pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::defaults();
    config.drain = std::time::Duration::from_secs(5);
    change(&mut config);
    config
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(config(|_| {})).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = App::start(config, listener).await.unwrap();
        let url = format!("http://{}", running.local_addr());
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let query = QueryServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        Self { running, query, ingest: IngestServiceClient::new(channel) }
    }

    /// An HTTP call; answers status and body.
    pub(crate) async fn http(
        &self,
        method: &'static str,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> (u16, String) {
        let url = format!("http://{}{path}", self.running.local_addr());
        let body = body.into();
        tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent = config.allow_non_standard_methods(true).build().new_agent();
            let request = ureq::http::Request::builder().method(method).uri(url).body(body).unwrap();
            let mut response = agent.run(request).unwrap();
            (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap()
    }

    /// A POST of JSON; answers status and JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.http("POST", path, body.to_string()).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn register(&mut self, worker_id: &str) {
        self.register_as(v1::RegisterRequest { address: Some("10.0.0.1:8000".into()), ..worker(worker_id) })
            .await;
    }

    pub(crate) async fn register_as(&mut self, request: v1::RegisterRequest) {
        let answer = self.ingest.register(request).await.unwrap().into_inner();
        assert_eq!(answer.outcome, "created");
    }

    /// Pushes batch `seq` of generation 1.
    pub(crate) async fn push(&mut self, worker_id: &str, seq: u64, events: Vec<v1::PublishEvent>) {
        let request = batch(worker_id, 1, seq, events);
        let answer = self.ingest.publish(request).await.unwrap().into_inner();
        assert_eq!((answer.applied_seq, answer.duplicate), (seq, false));
    }

    pub(crate) async fn find(&mut self, prompt: v1::Prompt) -> v1::MatchResponse {
        let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
        self.query.r#match(request).await.unwrap().into_inner()
    }
}

pub(crate) fn worker(worker_id: &str) -> v1::RegisterRequest {
    v1::RegisterRequest {
        worker_id: worker_id.into(),
        model: "llama".into(),
        ..v1::RegisterRequest::default()
    }
}

pub(crate) fn batch(
    worker_id: &str,
    generation: u64,
    seq: u64,
    events: Vec<v1::PublishEvent>,
) -> v1::PublishRequest {
    let worker_id = worker_id.to_owned();
    v1::PublishRequest { worker_id, generation, seq, events, ..v1::PublishRequest::default() }
}

/// Token ids 0, 1, 2 and so on.
pub(crate) fn tokens(count: u32) -> Vec<u32> {
    (0..count).collect()
}

/// The first `blocks` blocks of [`tokens`], with engine block hashes 100, 101 and so on.
pub(crate) fn stored(blocks: u32) -> v1::PublishEvent {
    v1::PublishEvent {
        r#type: "stored".into(),
        block_hashes: (0..u64::from(blocks)).map(|i| 100 + i).collect(),
        token_ids: tokens(blocks * BLOCK),
        block_size: BLOCK,
        ..v1::PublishEvent::default()
    }
}

pub(crate) fn removed(hashes: &[u64]) -> v1::PublishEvent {
    let block_hashes = hashes.to_vec();
    v1::PublishEvent { r#type: "removed".into(), block_hashes, ..v1::PublishEvent::default() }
}

/// A prompt of model `llama` by token ids.
pub(crate) fn prompt(token_ids: Vec<u32>) -> v1::Prompt {
    v1::Prompt { model: "llama".into(), token_ids, ..v1::Prompt::default() }
}

/// (worker, matched blocks) of an answer.
pub(crate) fn blocks(answer: &v1::MatchResponse) -> Vec<(&str, u64)> {
    answer.workers.iter().map(|w| (w.worker_id.as_str(), w.matched_blocks)).collect()
}
