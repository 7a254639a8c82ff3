//! Engines that publish over real ZeroMQ, a server that speaks other indexers' calls, and what these calls answer.

use kvindex_server::config::{Config, MooncakeJson};
use serde_json::Value;
use std::time::{Duration, Instant};

use crate::api_server::{Server, config};

/// An engine's publisher, one data-parallel rank.
pub(crate) struct Engine {
    socket: zmq::Socket,
    pub(crate) endpoint: String,
    rank: u32,
    next: u64,
}

/// Blocks that an engine stores: on which medium, behind which block, which tokens.
pub(crate) struct Stored<'a> {
    pub(crate) medium: &'a str,
    pub(crate) hashes: &'a [u64],
    pub(crate) parent: Option<u64>,
    pub(crate) tokens: &'a [u32],
    pub(crate) block_size: u32,
    pub(crate) lora: Option<&'a str>,
}

impl Engine {
    pub(crate) fn start(rank: u32) -> Self {
        // This kind tells when somebody has subscribed, so that nothing is published to nobody.
        let socket = zmq::Context::new().socket(zmq::XPUB).unwrap();
        socket.set_rcvtimeo(10_000).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        Self { socket, endpoint, rank, next: 0 }
    }

    /// Waits until the node listens.
    pub(crate) fn wait_for_listener(&self) {
        let told = self.socket.recv_bytes(0).unwrap();
        assert_eq!(told.first(), Some(&1), "a subscription");
    }

    /// Publishes one batch, as vLLM writes it.
    pub(crate) fn publish(&mut self, stored: &[Stored<'_>]) {
        // With extra keys, which are none: an engine whose events have no place for them may hide a salt.
        let event = |s: &Stored<'_>| {
            let (no_id, no_keys) = (None::<u32>, None::<Vec<u32>>);
            let (medium, lora) = (s.medium.to_owned(), s.lora.map(str::to_owned));
            let (hashes, tokens) = (s.hashes.to_vec(), s.tokens.to_vec());
            ("BlockStored", hashes, s.parent, tokens, s.block_size, no_id, medium, lora, no_keys)
        };
        let events: Vec<_> = stored.iter().map(event).collect();
        let payload = rmp_serde::to_vec(&(1.0, events, self.rank)).unwrap();
        let frames = [Vec::new(), self.next.to_be_bytes().to_vec(), payload];
        self.socket.send_multipart(frames, 0).unwrap();
        self.next += 1;
    }
}

/// A server that speaks Mooncake's in this form, or Dynamo's, or both.
pub(crate) async fn server(mooncake: Option<MooncakeJson>, dynamo: bool) -> Server {
    server_with(mooncake, dynamo, |_| {}).await
}

pub(crate) async fn server_with(
    mooncake: Option<MooncakeJson>,
    dynamo: bool,
    change: impl FnOnce(&mut Config),
) -> Server {
    let config = config(|config| {
        (config.dialects.mooncake, config.dialects.dynamo) = (mooncake, dynamo);
        change(config);
    });
    Server::with(config).await
}

/// An answer with its head.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) trust: String,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn msgpack(&self) -> Value {
        rmp_serde::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no MessagePack: {self:?}"))
    }
}

/// One call with a body of this content type, and a token unless it is empty.
pub(crate) async fn call(
    server: &Server,
    method: &'static str,
    path: &str,
    (content_type, token): (&'static str, &str),
    body: Vec<u8>,
) -> Reply {
    let url = format!("http://{}{path}", server.running.local_addr());
    let bearer = format!("Bearer {token}");
    let has_token = !token.is_empty();
    tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.allow_non_standard_methods(true).build().new_agent();
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        if has_token {
            request = request.header("authorization", bearer);
        }
        let mut response = agent.run(request.body(body).unwrap()).unwrap();
        let header = |name: &str| {
            let value = response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_default()
        };
        let (content_type, trust) = (header("content-type"), header("x-kvindex-trust"));
        let status = response.status().as_u16();
        Reply { status, content_type, trust, bytes: response.body_mut().read_to_vec().unwrap() }
    })
    .await
    .unwrap()
}

/// Asks until the answer is this one: events travel for a moment.
pub(crate) async fn until(server: &Server, path: &str, question: &Value, wanted: &Value) {
    let begun = Instant::now();
    loop {
        let (status, answer) = server.post(path, question).await;
        if (status, &answer) == (200, wanted) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{status} {answer}\nnot {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The keys of an object, in order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
