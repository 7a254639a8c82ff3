//! Dynamo's standalone indexer over real HTTP, written from its server's source (crate dynamo-kv-router 1.6.1), with
//! blocks from real ZeroMQ events; and how calls that both indexers have are told apart and guarded.

use kvindex_core::BlockHasher;
use kvindex_server::config::MooncakeJson;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api_server::{Server, stored as pushed, worker};
use crate::dialects_rig::{Engine, Stored, call, keys, server, server_with, until};

fn registration(engine: &Engine, instance: u64, rank: u32) -> Value {
    json!({"instance_id": instance, "endpoint": engine.endpoint, "model_name": "m", "block_size": 4,
        "dp_rank": rank})
}

async fn registered(server: &Server, engine: &Engine, body: &Value) {
    assert_eq!(server.post("/register", body).await, (201, json!({"status": "ok"})));
    engine.wait_for_listener();
}

fn stored<'a>(medium: &'a str, hashes: &'a [u64], parent: Option<u64>, tokens: &'a [u32]) -> Stored<'a> {
    Stored { medium, hashes, parent, tokens, block_size: 4, lora: None }
}

fn query(tokens: &[u32]) -> Value {
    json!({"token_ids": tokens, "model_name": "m"})
}

/// As in the indexer's own test: instance 7 has two blocks on the device and one on the host, 8 has two on the device.
async fn two_instances() -> (Server, Vec<Engine>, Vec<u32>) {
    let server = server(None, true).await;
    let mut engines = vec![Engine::start(0), Engine::start(0)];
    for (engine, instance) in engines.iter().zip([7, 8]) {
        registered(&server, engine, &registration(engine, instance, 0)).await;
    }
    let tokens: Vec<u32> = (100..112).collect();
    engines[0]
        .publish(&[stored("GPU", &[1, 2], None, &tokens[..8]), stored("CPU", &[3], Some(2), &tokens[8..])]);
    engines[1].publish(&[stored("GPU", &[1, 2], None, &tokens[..8])]);
    (server, engines, tokens)
}

fn two_answers() -> Value {
    json!({"scores": {"7": {"0": 8}, "8": {"0": 8}}, "frequencies": [], "instances": {
        "7": {"longest_matched": 12, "gpu": 8, "dp": {"0": 8}, "cpu": 12, "disk": 12},
        "8": {"longest_matched": 8, "gpu": 8, "dp": {"0": 8}, "cpu": 8, "disk": 8}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_by_tokens_and_by_local_hashes_agree() {
    let (server, _engines, tokens) = two_instances().await;
    until(&server, "/query", &query(&tokens), &two_answers()).await;
    let mut hasher = BlockHasher::new();
    // Signed, and each for itself.
    let locals: Vec<i64> =
        tokens.chunks_exact(4).map(|block| hasher.local(block, &[]).0.cast_signed()).collect();
    assert!(locals.iter().any(|hash| *hash < 0), "a negative hash is among them: {locals:?}");
    let by_hash = json!({"block_hashes": locals, "model_name": "m"});
    until(&server, "/query_by_hash", &by_hash, &two_answers()).await;
    // A null salt is none; another is refused.
    let mut salted = by_hash.clone();
    salted["cache_salt"] = Value::Null;
    until(&server, "/query_by_hash", &salted, &two_answers()).await;
    salted["cache_salt"] = "pepper".into();
    let (status, answer) = server.post("/query_by_hash", &salted).await;
    let said = "cache_salt is not accepted by /query_by_hash; block_hashes must already include the intended cache salt";
    assert_eq!((status, answer), (400, json!({"error": said})));
    // Instances that hold nothing are left out; so is everyone, for a prompt of nothing.
    let nobody = json!({"scores": {}, "frequencies": [], "instances": {}});
    for prompt in [&[9, 9, 9, 9][..], &[]] {
        until(&server, "/query", &query(prompt), &nobody).await;
    }
    let salted = json!({"token_ids": tokens, "model_name": "m", "cache_salt": "pepper"});
    until(&server, "/query", &salted, &nobody).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_group_is_told_apart_and_a_tenant_id_is_not() {
    let (server, _engines, tokens) = two_instances().await;
    let mut question = query(&tokens);
    question["tenant_id"] = "whoever".into();
    question["routing_group"] = "default".into();
    until(&server, "/query", &question, &two_answers()).await;
    question["routing_group"] = "other".into();
    for path in ["/query", "/query_by_hash"] {
        question["block_hashes"] = json!([1]);
        let wanted = json!({"error": "no indexer for model=m routing_group=other"});
        assert_eq!(server.post(path, &question).await, (404, wanted), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_conflict_with_the_indexers_words() {
    let server = server(None, true).await;
    let engines = [Engine::start(0), Engine::start(1), Engine::start(0)];
    registered(&server, &engines[0], &registration(&engines[0], 7, 0)).await;
    registered(&server, &engines[1], &registration(&engines[1], 7, 1)).await;
    let refused = async |change: Value| {
        let mut body = registration(&engines[2], 7, 2);
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, answer) = server.post("/register", &body).await;
        (status, answer["error"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    };
    let error = |status: u16, text: &str| (status, text.to_owned());
    let twice = error(409, "instance 7 dp_rank 1 already registered");
    assert_eq!(refused(json!({"dp_rank": 1})).await, twice);
    let elsewhere = error(409, "instance 7 is already registered for model=m routing_group=default");
    assert_eq!(refused(json!({"model_name": "n"})).await, elsewhere);
    let size = "block_size mismatch for model=m routing_group=default: existing=4, requested=8";
    assert_eq!(refused(json!({"instance_id": 9, "block_size": 8})).await, error(409, size));
    // The very same again is a conflict too.
    let (status, answer) = server.post("/register", &registration(&engines[0], 7, 0)).await;
    assert_eq!((status, answer), (409, json!({"error": "instance 7 dp_rank 0 already registered"})));
    assert_eq!(refused(json!({"endpoint": "tcp://*:1"})).await.0, 400);
    for wrong in [json!({"instance_id": "seven"}), json!({"block_size": -1}), json!({"endpoint": null})] {
        assert_eq!(refused(wrong.clone()).await.0, 422, "{wrong}");
    }
    assert_eq!(server.http("POST", "/register", "{").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_listed_and_forgotten_rank_by_rank_or_whole() {
    let server = server(None, true).await;
    let engines = [Engine::start(0), Engine::start(1)];
    registered(&server, &engines[0], &registration(&engines[0], 7, 0)).await;
    registered(&server, &engines[1], &registration(&engines[1], 7, 1)).await;
    let (status, listed) = server.http("GET", "/workers?model_name=m&routing_group=default", "").await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((status, listed.as_array().unwrap().len()), (200, 1), "{listed}");
    assert_eq!(
        keys(&listed[0]),
        [
            "block_size",
            "endpoints",
            "instance_id",
            "listeners",
            "model_name",
            "routing_group",
            "source",
            "status"
        ]
    );
    assert_eq!((&listed[0]["instance_id"], &listed[0]["block_size"]), (&json!(7), &json!(4)));
    assert_eq!(listed[0]["endpoints"], json!({"0": engines[0].endpoint, "1": engines[1].endpoint}));
    assert_eq!(keys(&listed[0]["listeners"]["1"]), ["endpoint", "status"]);
    assert_eq!(server.http("GET", "/workers?model_name=n", "").await, (200, "[]".into()));
    assert_eq!(server.http("GET", "/health", "").await, (200, String::new()));
    let leave = |rank: Option<u32>| json!({"instance_id": 7, "model_name": "m", "routing_group": "default", "dp_rank": rank});
    assert_eq!(server.post("/unregister", &leave(Some(1))).await, (200, json!({"status": "ok"})));
    let (status, answer) = server.post("/unregister", &leave(Some(1))).await;
    assert_eq!((status, answer), (404, json!({"error": "instance 7 dp_rank 1 not found"})));
    assert_eq!(server.post("/unregister", &leave(None)).await, (200, json!({"status": "ok"})));
    let (status, answer) = server.post("/unregister", &json!({"instance_id": 7, "model_name": "m"})).await;
    assert_eq!((status, answer), (404, json!({"error": "instance 7 not found"})));
    assert_eq!(server.http("GET", "/workers", "").await, (200, "[]".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_hashes_need_one_known_block_size() {
    let mut server = server(None, true).await;
    server.register_as(kvindex_proto::v1::RegisterRequest { model: "m".into(), ..worker("native") }).await;
    server.push("native", 0, vec![pushed(3)]).await;
    // A worker that was registered natively answers by its own name.
    let (status, answer) = server.post("/query", &query(&(0..48).collect::<Vec<_>>())).await;
    assert_eq!((status, &answer["instances"]["native"]["longest_matched"]), (200, &json!(48)), "{answer}");
    let by_hash = json!({"block_hashes": [1], "model_name": "m"});
    let (status, answer) = server.post("/query_by_hash", &by_hash).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("/register"), "{status} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_that_is_told_is_of_those_that_the_answer_names() {
    let (server, _engines, tokens) = two_instances().await;
    until(&server, "/query", &query(&tokens), &two_answers()).await;
    let trust = async |question: Value| {
        let body = question.to_string().into_bytes();
        call(&server, "POST", "/query", ("application/json", ""), body).await.trust
    };
    assert_eq!(trust(query(&tokens)).await, "live");
    // One that nobody hears yet is not in that answer. That nobody holds a prompt is its word too.
    let silent =
        json!({"instance_id": 9, "endpoint": "tcp://127.0.0.1:1", "model_name": "m", "block_size": 4});
    assert_eq!(server.post("/register", &silent).await.0, 201);
    assert_eq!(trust(query(&tokens)).await, "live");
    assert_eq!(trust(query(&[9, 9, 9, 9])).await, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_field_tells_the_two_indexers_apart() {
    let server = server(Some(MooncakeJson::Rfc), true).await;
    let (mut first, second) = (Engine::start(0), Engine::start(0));
    registered(&server, &first, &registration(&first, 7, 0)).await;
    let mooncakes = json!({"endpoint": second.endpoint, "type": "vLLM", "modelname": "m", "instance_id": "a",
        "block_size": 4, "dp_rank": 0});
    assert_eq!(server.post("/register", &mooncakes).await.0, 200);
    let tokens = [1, 2, 3, 4];
    first.publish(&[stored("GPU", &[1], None, &tokens)]);
    let dynamos = json!({"scores": {"7": {"0": 4}}, "frequencies": [], "instances": {
        "7": {"longest_matched": 4, "gpu": 4, "dp": {"0": 4}, "cpu": 4, "disk": 4}}});
    until(&server, "/query", &query(&tokens), &dynamos).await;
    // One index behind both: each sees what the other registered.
    let asked = json!({"model": "m", "token_ids": tokens, "block_size": 4});
    let (_, answer) = server.post("/query", &asked).await;
    assert_eq!((&answer["default"]["7"]["GPU"], &answer["default"]["a"]["GPU"]), (&json!(4), &json!(0)));
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    for line in [
        r#"kvindex_api_calls_total{method="dynamo_register",transport="http",code="ok"} 1"#,
        r#"kvindex_api_calls_total{method="mooncake_register",transport="http",code="ok"} 1"#,
        r#"kvindex_api_calls_total{method="mooncake_query",transport="http",code="ok"} 1"#,
        r#"kvindex_api_calls_total{method="dynamo_query",transport="http",code="ok"}"#,
    ] {
        assert!(metrics.lines().any(|l| l.starts_with(line)), "{line} not in\n{metrics}");
    }
    assert_eq!(server.post("/unregister", &json!({"instance_id": "a", "dp_rank": 0})).await.0, 200);
    assert_eq!(server.post("/unregister", &json!({"instance_id": 7, "model_name": "m"})).await.0, 200);
}

fn token(name: &str, rights: &str, tenants: &str) -> String {
    let digest: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[tokens]]\nname = {name:?}\nsha256 = {digest:?}\nrights = [{rights}]\ntenants = [{tenants}]\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_stands_before_a_dialects_calls() {
    let folder = std::env::temp_dir().join(format!("kvindex-dialects-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("access.toml");
    let tokens = [token("reader", r#""read""#, r#""a""#), token("admin", r#""read", "admin""#, r#""a""#)];
    std::fs::write(&file, tokens.concat()).unwrap();
    let path = file.clone();
    let server = server_with(Some(MooncakeJson::Rfc), true, |config| config.access.file = Some(path)).await;
    let post = async |token: &'static str, path: &'static str, body: Value| {
        let reply = call(&server, "POST", path, ("application/json", token), body.to_string().into()).await;
        (reply.status, serde_json::from_slice::<Value>(&reply.bytes).unwrap_or_default())
    };
    let register = |tenant: &str| {
        json!({"instance_id": 7, "endpoint": "tcp://127.0.0.1:1", "model_name": "m", "block_size": 4,
            "routing_group": tenant})
    };
    let dynamos = json!({"token_ids": [1], "model_name": "m"});
    let mooncakes = json!({"model": "m", "token_ids": [1], "block_size": 4});
    assert_eq!(post("", "/query", dynamos.clone()).await.0, 401);
    assert_eq!(post("reader", "/register", register("a")).await.0, 403);
    assert_eq!(post("admin", "/register", register("b")).await.0, 403);
    // The caller's one tenant is meant where none is named; another one is refused.
    assert_eq!(post("reader", "/query", mooncakes.clone()).await, (200, json!({})));
    let mut other = mooncakes;
    other["tenant_id"] = "b".into();
    let (status, answer) = post("reader", "/query", other).await;
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("tenant"), "{answer}");
    let (status, answer) = post("reader", "/query", dynamos).await;
    assert_eq!((status, answer), (404, json!({"error": "no indexer for model=m routing_group=a"})));
    // Loopback is no engine of a tenant's: the host is checked as a native registration's is.
    let (status, answer) = post("admin", "/register", register("a")).await;
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("127.0.0.1"), "{status} {answer}");
    assert_eq!(call(&server, "GET", "/health", ("", ""), Vec::new()).await.status, 200);
    assert_eq!(call(&server, "GET", "/workers", ("", ""), Vec::new()).await.status, 401);
    drop(server);
    let _ = std::fs::remove_dir_all(folder);
}
