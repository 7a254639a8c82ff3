//! A node in this process, on a port of the system's choice, with one worker whose events are pushed.

use std::time::Duration;

use kvindex_client::{Client, ClientConfig, v1};
use kvindex_server::config::Config;
use kvindex_server::{App, Running};

pub(crate) const BLOCK: u32 = 16;

/// Generous, so that a slow machine fails no test that is not about time.
pub(crate) const PATIENT: Duration = Duration::from_secs(10);

pub(crate) async fn start() -> (Running, Client) {
    let mut config = Config::defaults();
    config.drain = Duration::from_millis(500);
    // Nothing here is about overload, and a busy machine has enough of it.
    config.access.query_wait = PATIENT;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = App::start(config, listener).await.unwrap();
    let client = client_of(&running.local_addr().to_string());
    (running, client)
}

pub(crate) fn client_of(address: &str) -> Client {
    let config = ClientConfig::new(format!("http://{address}"));
    Client::connect(config.routing_timeout(PATIENT).admin_timeout(PATIENT)).unwrap()
}

pub(crate) fn worker(worker_id: &str) -> v1::RegisterRequest {
    v1::RegisterRequest {
        worker_id: worker_id.into(),
        model: "llama".into(),
        ..v1::RegisterRequest::default()
    }
}

pub(crate) fn tokens(count: u32) -> Vec<u32> {
    (0..count).collect()
}

/// Registers `worker_id` and stores the first `blocks` blocks of [`tokens`] on it, with engine block hashes
/// 100, 101 and so on.
pub(crate) async fn store(client: &Client, worker_id: &str, blocks: u32) {
    assert_eq!(client.register(worker(worker_id)).await.unwrap().outcome, "created");
    let stored = v1::PublishEvent {
        r#type: "stored".into(),
        block_hashes: (0..u64::from(blocks)).map(|i| 100 + i).collect(),
        token_ids: tokens(blocks * BLOCK),
        block_size: BLOCK,
        ..v1::PublishEvent::default()
    };
    let batch = v1::PublishRequest {
        worker_id: worker_id.into(),
        generation: 1,
        events: vec![stored],
        ..v1::PublishRequest::default()
    };
    let published = client.publish(batch).await.unwrap();
    assert_eq!((published.applied_seq, published.duplicate), (0, false));
}

pub(crate) fn blocks(answer: &v1::MatchResponse) -> Vec<(&str, u64)> {
    answer.workers.iter().map(|w| (w.worker_id.as_str(), w.matched_blocks)).collect()
}
