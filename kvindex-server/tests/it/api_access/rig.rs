//! A server with an access file, and every call by either transport, answered in one form.

use kvindex_proto::v1;
use kvindex_proto::v1::cluster_service_client::ClusterServiceClient;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use kvindex_server::config::Config;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::api_server::{Server, config};

/// How a call travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Grpc,
    Http,
}

pub(super) const WAYS: [Way; 2] = [Way::Grpc, Way::Http];

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) retry_after: Option<String>,
}

pub(super) type Answer = Result<Value, Refusal>;

/// An access file in a folder of its own, which goes with it.
pub(super) struct AccessFile {
    pub(super) path: PathBuf,
}

impl AccessFile {
    pub(super) fn new(text: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("kvindex-access-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = Self { path: folder.join("access.toml") };
        file.write(text);
        file
    }

    /// Replaces it as a careful operator does: whole.
    pub(super) fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &self.path).unwrap();
    }
}

impl Drop for AccessFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

/// An entry of a token that is named like its secret.
pub(super) fn token(name: &str, rights: &str, tenants: &str, more: &str) -> String {
    let digest: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let list = |words: &str| json!(words.split(' ').collect::<Vec<_>>());
    let (rights, tenants) = (list(rights), list(tenants));
    format!(
        "[[tokens]]\nname = {name:?}\nsha256 = {digest:?}\nrights = {rights}\ntenants = {tenants}\n{more}\n"
    )
}

pub(super) const ALL: &str = "read publish admin";

pub(super) struct Guarded {
    pub(super) server: Server,
    pub(super) file: AccessFile,
}

impl Guarded {
    pub(super) async fn start(access: &str) -> Self {
        Self::with(access, |_| {}).await
    }

    pub(super) async fn with(access: &str, change: impl FnOnce(&mut Config)) -> Self {
        let file = AccessFile::new(access);
        let config = config(|config| {
            config.access.file = Some(file.path.clone());
            change(config);
        });
        Self { server: Server::with(config).await, file }
    }

    pub(super) async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.server.running.local_addr());
        Channel::from_shared(url).unwrap().connect().await.unwrap()
    }

    /// One call with a token (none when empty).
    pub(super) async fn call(&self, way: Way, token: &str, name: &str, request: Value) -> Answer {
        match way {
            Way::Grpc => grpc(self.channel().await, token, name, request).await,
            Way::Http => self.http(token, name, request).await,
        }
    }

    async fn http(&self, token: &str, name: &str, request: Value) -> Answer {
        let query = |path: &str| {
            let pairs = request.as_object().unwrap().iter();
            let pairs = pairs.map(|(key, value)| match value {
                Value::String(text) => format!("{key}={text}"),
                other => format!("{key}={other}"),
            });
            format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
        };
        let (method, path) = match name {
            "list_workers" => ("GET", query("/v1/workers")),
            "hot_prefixes" => ("GET", query("/v1/hot")),
            "cluster_status" => ("GET", query("/v1/cluster")),
            "register" => ("POST", "/v1/workers".into()),
            "unregister" => ("DELETE", format!("/v1/workers/{}", request["worker_id"].as_str().unwrap())),
            "match" | "match_batch" | "explain" | "publish" => ("POST", format!("/v1/{name}")),
            _ => ("POST", format!("/v1/cluster/{name}")),
        };
        let body = if method == "POST" { request.to_string() } else { String::new() };
        let (status, headers, text) = self.raw(token, method, &path, body).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status == 200 {
            return Ok(answer);
        }
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let error = |field: &str| answer["error"][field].as_str().unwrap_or_default().to_owned();
        let expected = match error("code").as_str() {
            "unauthenticated" => 401,
            "permission_denied" => 403,
            "resource_exhausted" => 429,
            _ => status,
        };
        assert!(status == expected || status == 413, "{status} {answer}");
        assert_eq!(header("www-authenticate").is_some(), status == 401, "{status} {headers:?}");
        Err(Refusal { code: error("code"), message: error("message"), retry_after: header("retry-after") })
    }

    /// An HTTP exchange with a token; answers status, headers, body.
    pub(super) async fn raw(
        &self,
        token: &str,
        method: &'static str,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> (u16, ureq::http::HeaderMap, String) {
        let url = format!("http://{}{path}", self.server.running.local_addr());
        let (token, body) = (token.to_owned(), body.into());
        tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent = config.allow_non_standard_methods(true).build().new_agent();
            let mut request = ureq::http::Request::builder().method(method).uri(url);
            if !token.is_empty() {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let mut response = agent.run(request.body(body).unwrap()).unwrap();
            let headers = response.headers().clone();
            (response.status().as_u16(), headers, response.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap()
    }

    /// The value of a series.
    pub(super) async fn metric(&self, token: &str, series: &str) -> u64 {
        let (status, _, text) = self.raw(token, "GET", "/metrics", "").await;
        assert_eq!(status, 200, "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

/// Puts a token on every call.
#[derive(Clone)]
pub(super) struct Bearer(String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        }
        Ok(request)
    }
}

pub(super) type Query = QueryServiceClient<InterceptedService<Channel, Bearer>>;

pub(super) fn query(channel: Channel, token: &str) -> Query {
    QueryServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
}

async fn grpc(channel: Channel, token: &str, name: &str, request: Value) -> Answer {
    fn read<T: DeserializeOwned>(request: Value) -> T {
        serde_json::from_value(request).unwrap()
    }
    fn told<T: Serialize>(answer: Result<Response<T>, Status>) -> Answer {
        let answer = answer.map_err(|status| refusal(&status))?;
        Ok(serde_json::to_value(answer.into_inner()).unwrap())
    }
    let bearer = Bearer(token.to_owned());
    let mut query = query(channel.clone(), token);
    let mut ingest = IngestServiceClient::with_interceptor(channel.clone(), bearer.clone());
    let mut cluster = ClusterServiceClient::with_interceptor(channel, bearer);
    match name {
        "match" => told(query.r#match(read::<v1::MatchRequest>(request)).await),
        "match_batch" => told(query.match_batch(read::<v1::MatchBatchRequest>(request)).await),
        "explain" => told(query.explain(read::<v1::ExplainRequest>(request)).await),
        "list_workers" => told(query.list_workers(read::<v1::ListWorkersRequest>(request)).await),
        "hot_prefixes" => told(query.hot_prefixes(read::<v1::HotPrefixesRequest>(request)).await),
        "register" => told(ingest.register(read::<v1::RegisterRequest>(request)).await),
        "unregister" => told(ingest.unregister(read::<v1::UnregisterRequest>(request)).await),
        "publish" => told(ingest.publish(read::<v1::PublishRequest>(request)).await),
        "cluster_status" => told(cluster.cluster_status(read::<v1::ClusterStatusRequest>(request)).await),
        "remove_node" => told(cluster.remove_node(read::<v1::RemoveNodeRequest>(request)).await),
        "set_voter" => told(cluster.set_voter(read::<v1::SetVoterRequest>(request)).await),
        "hand_over" => told(cluster.hand_over(read::<v1::HandOverRequest>(request)).await),
        other => panic!("no call {other}"),
    }
}

pub(super) fn refusal(status: &Status) -> Refusal {
    let mut code = String::new();
    for (i, letter) in format!("{:?}", status.code()).chars().enumerate() {
        if letter.is_uppercase() && i > 0 {
            code.push('_');
        }
        code.push(letter.to_ascii_lowercase());
    }
    let retry_after = status.metadata().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(retry_after.is_some(), status.metadata().contains_key("grpc-retry-pushback-ms"));
    Refusal { code, message: status.message().to_owned(), retry_after }
}

/// Every call, with a request that is in order by itself.
pub(super) fn every_call() -> Vec<(&'static str, Value)> {
    let prompt = json!({"model": "llama", "tenant": "a", "token_ids": [1, 2, 3]});
    vec![
        ("match", json!({"prompt": prompt})),
        ("match_batch", json!({"requests": [{"prompt": prompt}]})),
        ("explain", json!({"prompt": prompt})),
        ("list_workers", json!({})),
        ("hot_prefixes", json!({})),
        ("register", json!({"worker_id": "a/w", "model": "llama", "tenant": "a"})),
        ("publish", json!({"worker_id": "a/w", "generation": 1, "seq": 0})),
        ("unregister", json!({"worker_id": "a/w"})),
        ("cluster_status", json!({})),
        ("remove_node", json!({"node_id": 9})),
        ("set_voter", json!({"node_id": 9, "voter": true})),
        ("hand_over", json!({"shard": 0, "node_id": 9})),
    ]
}

/// What may differ between two runs: the time.
pub(super) fn without_times(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            for gone in ["timing", "at_ms", "lag_ms", "share", "per_s", "questions_per_s"] {
                fields.remove(gone);
            }
            for value in fields.values_mut() {
                *value = without_times(value.take());
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = without_times(value.take());
            }
        }
        _ => {}
    }
    answer
}
