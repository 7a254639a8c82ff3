//! The routes around the calls: OpenAPI, metrics, health, and what is no route.

use kvindex_proto::v1;
use serde_json::Value;
use tonic::Code;

use crate::api_server::{Server, prompt, stored, tokens};

const ROUTES: [(&str, &str); 17] = [
    ("post", "/v1/match"),
    ("post", "/v1/match_batch"),
    ("post", "/v1/explain"),
    ("get", "/v1/workers"),
    ("get", "/v1/hot"),
    ("post", "/v1/workers"),
    ("delete", "/v1/workers/{worker_id}"),
    ("post", "/v1/publish"),
    ("get", "/v1/watch"),
    ("get", "/v1/cluster"),
    ("post", "/v1/cluster/remove_node"),
    ("post", "/v1/cluster/set_voter"),
    ("post", "/v1/cluster/hand_over"),
    ("get", "/openapi.json"),
    ("get", "/metrics"),
    ("get", "/healthz"),
    ("get", "/readyz"),
];

#[tokio::test(flavor = "multi_thread")]
async fn openapi_lists_every_route_and_describes_the_messages() {
    let server = Server::start().await;
    let (status, text) = server.http("GET", "/openapi.json", "").await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    let mut listed: Vec<_> = paths
        .iter()
        .flat_map(|(path, calls)| {
            calls.as_object().unwrap().keys().map(|call| (call.as_str(), path.as_str()))
        })
        .collect();
    let mut expected = ROUTES.to_vec();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    for (method, path) in ROUTES {
        let (method, path) = (method.to_uppercase(), path.replace("{worker_id}", "w"));
        let method: &'static str = method.leak();
        if path != "/v1/watch" {
            let (status, body) = server.http(method, &path, "{}").await;
            assert!(status != 404 && status != 405, "{method} {path}: {status} {body}");
        }
    }
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Prompt"]["properties"]["token_ids_le"]["format"], "byte");
    let described = schemas["WorkerMatch"]["properties"]["uncached_tokens"]["description"].as_str();
    assert!(described.is_some_and(|text| text.contains("compute")), "{described:?}");
    let states = schemas["TrustState"]["enum"].as_array().unwrap();
    assert!(states.contains(&"live".into()), "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_says_so() {
    let server = Server::start().await;
    let (status, body) = server.http("GET", "/v2/match", "").await;
    assert!(status == 404 && body.contains("/v2/match"), "{body}");
    let (status, body) = server.http("GET", "/v1/match", "").await;
    assert!(status == 405 && body.contains("unimplemented"), "{status} {body}");
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.running.local_addr()));
    let channel = channel.unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/kvindex.v1.QueryService/Guess");
    let codec = tonic_prost::ProstCodec::<v1::MatchRequest, v1::MatchResponse>::default();
    let request = tonic::Request::new(v1::MatchRequest::default());
    let status = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness() {
    let server = Server::start().await;
    assert_eq!(server.http("GET", "/healthz", "").await.0, 200);
    assert_eq!(server.http("GET", "/readyz", "").await.0, 200);
}

fn unix_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_calls_index_and_streams() {
    let mut server = Server::start().await;
    server.register("a").await;
    server.push("a", 0, vec![stored(3)]).await;
    server.find(prompt(tokens(48))).await;
    server.query.r#match(v1::MatchRequest::default()).await.unwrap_err();
    server.http("POST", "/v1/match", "{").await;
    server.http("GET", "/made/up", "").await;
    let (status, text) = server.http("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    for line in [
        r#"kvindex_api_calls_total{method="match",transport="grpc",code="ok"} 1"#,
        r#"kvindex_api_calls_total{method="match",transport="grpc",code="invalid_argument"} 1"#,
        r#"kvindex_api_calls_total{method="match",transport="http",code="invalid_argument"} 1"#,
        r#"kvindex_api_calls_total{method="other",transport="http",code="not_found"} 1"#,
        r#"kvindex_index_effects_total{effect="stored"} 3"#,
        "kvindex_index_entries 3",
        "kvindex_index_workers 1",
        r#"kvindex_stream_state{worker="a",dp_rank="0",state="live"} 1"#,
        r#"kvindex_stream_generation{worker="a",dp_rank="0"} 1"#,
        r#"kvindex_query_tokens_total{kind="asked"} 48"#,
        r#"kvindex_query_tokens_total{kind="matched"} 48"#,
        r#"kvindex_query_workers_total{state="live"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
    let ours = |line: &str| ["#", "kvindex_", "process_"].iter().any(|start| line.starts_with(start));
    assert!(text.lines().all(ours), "{text}");
    let used = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{name} not in\n{text}"))
    };
    assert!(used("process_resident_memory_bytes ") > 1e6 && used("process_open_fds ") > 3.0, "{text}");
    let age = unix_seconds() - used("process_start_time_seconds ");
    assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    server.http("DELETE", "/v1/workers/a", "").await;
    let (_, text) = server.http("GET", "/metrics", "").await;
    assert!(!text.contains(r#"worker="a""#), "a worker that left leaves no series:\n{text}");
}
