//! The JSON of the documents: counts by medium, answers by tenant.

use kvindex_core::{BlockHasher, SequenceHash};
use kvindex_server::config::{Config, MooncakeJson};
use serde_json::{Value, json};

use super::{query, registered, registration, stored};
use crate::api_server::Server;
use crate::dialects_rig::{Engine, Stored, call, keys, server, server_with, until};

/// Blocks of two tokens as in the documents' worked example: H1 on GPU (both ranks), CPU and DISK; H2 on GPU (rank 0) and
/// CPU; H3 on DISK. Everything that is not said to be rank 1's is rank 0's.
async fn worked_example() -> (Server, Vec<Engine>) {
    let server = server(Some(MooncakeJson::Rfc), false).await;
    let mut engines = vec![Engine::start(0), Engine::start(1)];
    registered(&server, &engines[0], &registration(&engines[0], "vllm-1", 0, 2)).await;
    registered(&server, &engines[1], &registration(&engines[1], "vllm-1", 1, 2)).await;
    engines[0].publish(&[
        stored("GPU", &[1, 2], None, &[1, 2, 3, 4]),
        // One by one: blocks that an offload tier moves together are taken for a chunk of it.
        stored("CPU", &[1], None, &[1, 2]),
        stored("CPU", &[2], Some(1), &[3, 4]),
        stored("DISK", &[1], None, &[1, 2]),
        stored("DISK", &[3], Some(2), &[5, 6]),
    ]);
    engines[1].publish(&[stored("GPU", &[1], None, &[1, 2])]);
    (server, engines)
}

fn worked_answer() -> Value {
    json!({"default": {"vllm-1":
        {"longest_matched": 6, "GPU": 4, "DP": {"0": 4, "1": 2}, "CPU": 4, "DISK": 4}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc_counts_as_the_documents_worked_example() {
    let (server, _engines) = worked_example().await;
    until(&server, "/query", &query(&[1, 2, 3, 4, 5, 6], 2), &worked_answer()).await;
    // A last block that is not full does not count, and the trust of what the answer rests on is told.
    let partial = query(&[1, 2, 3, 4, 5, 6, 7], 2);
    until(&server, "/query", &partial, &worked_answer()).await;
    let reply = call(&server, "POST", "/query", ("application/json", ""), partial.to_string().into()).await;
    assert_eq!((reply.status, reply.trust.as_str()), (200, "live"));
    // A shorter prompt, and one that nobody holds: the instance is listed with zeros and no rank.
    let one = json!({"default": {"vllm-1":
        {"longest_matched": 2, "GPU": 2, "DP": {"0": 2, "1": 2}, "CPU": 2, "DISK": 2}}});
    until(&server, "/query", &query(&[1, 2, 9], 2), &one).await;
    let none =
        json!({"default": {"vllm-1": {"longest_matched": 0, "GPU": 0, "DP": {}, "CPU": 0, "DISK": 0}}});
    for prompt in [&[9, 9][..], &[1], &[]] {
        until(&server, "/query", &query(prompt, 2), &none).await;
    }
    // Another block size, model or tenant is another context.
    until(&server, "/query", &query(&[1, 2, 3, 4], 4), &json!({})).await;
    let other = json!({"model": "other", "token_ids": [1, 2], "block_size": 2});
    until(&server, "/query", &other, &json!({})).await;
    let tenant = json!({"model": "llama", "token_ids": [1, 2], "block_size": 2, "tenant_id": "t"});
    until(&server, "/query", &tenant, &json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc_asks_of_one_instance_and_by_hash() {
    let (server, _engines) = worked_example().await;
    let prompt = [1, 2, 3, 4, 5, 6];
    until(&server, "/query", &query(&prompt, 2), &worked_answer()).await;
    let mut named = query(&prompt, 2);
    named["instance_id"] = "vllm-1".into();
    until(&server, "/query", &named, &worked_answer()).await;
    named["instance_id"] = "nobody".into();
    let nobody =
        json!({"default": {"nobody": {"longest_matched": 0, "GPU": 0, "DP": {}, "CPU": 0, "DISK": 0}}});
    until(&server, "/query", &named, &nobody).await;
    // Nulls are as good as nothing.
    let nulls = json!({"model": "llama", "token_ids": prompt, "block_size": 2, "tenant_id": null,
        "lora_name": null, "lora_id": -1, "cache_salt": null, "instance_id": null, "what_is_this": [1]});
    until(&server, "/query", &nulls, &worked_answer()).await;
    let (mut hasher, mut parent, mut hashes) = (BlockHasher::new(), None, Vec::new());
    for block in prompt.chunks_exact(2) {
        let hash = SequenceHash::chain(parent, hasher.local(block, &[]));
        parent = Some(hash);
        hashes.push(hash.0);
    }
    for name in ["seq_hashes", "block_hash"] {
        let mut by_hash = json!({"model": "llama", "block_size": 2});
        by_hash[name] = json!(hashes);
        until(&server, "/query_by_hash", &by_hash, &worked_answer()).await;
    }
    let (status, answer) = server.post("/query_by_hash", &json!({"model": "llama", "block_size": 2})).await;
    assert_eq!((status, answer), (400, json!({"error": "seq_hashes: is required"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc_keeps_adapters_and_salts_apart() {
    let server = server(Some(MooncakeJson::Rfc), false).await;
    let mut engine = Engine::start(0);
    registered(&server, &engine, &registration(&engine, "a", 0, 2)).await;
    engine.publish(&[Stored { lora: Some("fr"), ..stored("GPU", &[1], None, &[1, 2]) }]);
    let answer = |tokens: u64| {
        let ranks = if tokens > 0 { json!({"0": tokens}) } else { json!({}) };
        json!({"default": {"a": {"longest_matched": tokens, "GPU": tokens, "DP": ranks, "CPU": 0, "DISK": 0}}})
    };
    let mut question = query(&[1, 2], 2);
    question["lora_name"] = "fr".into();
    until(&server, "/query", &question, &answer(2)).await;
    question["cache_salt"] = "pepper".into();
    until(&server, "/query", &question, &answer(0)).await;
    until(&server, "/query", &query(&[1, 2], 2), &answer(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc_registers_once_lists_and_forgets() {
    let server = server(Some(MooncakeJson::Rfc), false).await;
    let engine = Engine::start(0);
    let body = registration(&engine, "a", 3, 16);
    registered(&server, &engine, &body).await;
    // The same again is no error; another definition is.
    assert_eq!(server.post("/register", &body).await.0, 200);
    let mut other = body.clone();
    other["modelname"] = "mistral".into();
    let (status, answer) = server.post("/register", &other).await;
    assert_eq!((status, keys(&answer)), (400, vec!["error"]), "{answer}");
    // It is listed with its rank before it has announced anything.
    let (_, services) = server.http("GET", "/services", "").await;
    let services: Value = serde_json::from_str(&services).unwrap();
    assert_eq!(
        services,
        json!({"count": 1, "services": [{"Endpoint": engine.endpoint, "ReplayEndpoint": "", "Type": "vLLM",
            "ModelName": "llama", "LoraName": "", "TenantID": "default", "InstanceID": "a", "BlockSize": 16,
            "DPRank": 3, "AdditionalSalt": ""}]})
    );
    let (_, view) = server.http("GET", "/global_view", "").await;
    let view: Value = serde_json::from_str(&view).unwrap();
    assert_eq!(
        view,
        json!({"context_count": 1, "hashmap": [], "model_contexts": [{"model_name": "llama", "lora_name": "",
            "block_size": 16, "additional_salt": "", "tenant_id": "default", "instance_id": "a"}]})
    );
    // A long unregister, as the documents have it; the second finds nobody.
    let leave =
        json!({"type": "vLLM", "modelname": "llama", "instance_id": "a", "block_size": 16, "dp_rank": 3});
    let (status, answer) = server.post("/unregister", &leave).await;
    let wanted = json!({"status": "unregistered successfully", "removed_instances": ["a|default|3"]});
    assert_eq!((status, answer), (200, wanted));
    let (status, answer) = server.post("/unregister", &leave).await;
    assert_eq!((status, answer), (404, json!({"error": "service not found: a|default|3"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_registered_natively_is_not_forgotten_by_a_dialect() {
    let mut server = server(Some(MooncakeJson::Rfc), true).await;
    // Its id is the one that rank 0 of an instance would have; it says of no instance that it is its rank.
    server.register("default/7/0").await;
    let mooncakes = json!({"instance_id": "7", "dp_rank": 0});
    let (status, answer) = server.post("/unregister", &mooncakes).await;
    assert_eq!((status, answer), (404, json!({"error": "service not found: 7|default|0"})));
    let dynamos = json!({"instance_id": 7, "model_name": "llama"});
    assert_eq!(server.post("/unregister", &dynamos).await.0, 404);
    let (_, listed) = server.http("GET", "/v1/workers", "").await;
    assert!(listed.contains("default/7/0"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rfc_refuses_with_the_documents_codes() {
    let server = server(Some(MooncakeJson::Rfc), false).await;
    let engine = Engine::start(0);
    let with = |name: &str, value: Value| {
        let mut body = registration(&engine, "a", 0, 16);
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = registration(&engine, "a", 0, 16);
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (path, body, word) in [
        ("/register", with("type", "Mooncake".into()), "type: "),
        ("/register", with("endpoint", "tcp://*:5557".into()), "endpoint: "),
        ("/register", with("endpoint", "nonsense".into()), "endpoint: "),
        ("/register", with("additionalsalt", "s".into()), "additionalsalt: "),
        ("/register", with("dp_rank", json!(-1)), "dp_rank: "),
        ("/register", with("instance_id", json!("\u{7}")), "instance_id: "),
        ("/register", without("instance_id"), "instance_id: "),
        ("/register", without("modelname"), "modelname: "),
        ("/query", json!({"model": "llama", "token_ids": [1]}), "block_size: "),
        ("/query", json!({"model": "llama", "block_size": 2}), "token_ids: "),
        ("/query", json!({"model": "llama", "block_size": 2, "token_ids": [1, -1]}), "token_ids: value 1 "),
        ("/query", json!({"model": "llama", "block_size": 2, "token_ids": [0.5]}), "token_ids: value 0 "),
        ("/query", json!({"model": "llama", "block_size": 2, "token_ids": "1"}), "token_ids: "),
        ("/query", json!({"model": "llama", "block_size": 2, "token_ids": [1], "lora_id": 3}), "lora_id: "),
        ("/query", json!({"token_ids": [1], "block_size": 2}), "model: "),
    ] {
        let (status, answer) = server.post(path, &body).await;
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && said.starts_with(word), "{path} {body}: {status} {answer}");
        assert_eq!(keys(&answer), ["error"]);
    }
    for body in ["{", "[]", "{} x", r#"{"model":"a","model":"b"}"#] {
        let (status, answer) = server.http("POST", "/query", body).await;
        assert!(status == 400 && answer.contains("Invalid JSON"), "{body}: {status} {answer}");
    }
    assert_eq!(server.http("GET", "/query", "").await.0, 405);
    assert_eq!(server.http("POST", "/services", "").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialect_is_off_unless_asked_for_and_bounded_when_on() {
    let off = Server::start().await;
    for path in ["/query", "/query_by_hash", "/register", "/unregister"] {
        assert_eq!(off.http("POST", path, "{}").await.0, 404, "{path}");
    }
    for path in ["/services", "/global_view", "/workers", "/health"] {
        assert_eq!(off.http("GET", path, "").await.0, 404, "{path}");
    }
    let misspelt = Config::of_text("dialect_mooncake = \"rcf\"").unwrap_err().to_string();
    assert!(
        misspelt.contains("dialect_mooncake = rcf") && misspelt.contains("off, rfc, conductor"),
        "{misspelt}"
    );
    let small = server_with(Some(MooncakeJson::Rfc), false, |config| {
        (config.limits.body_bytes, config.limits.prompt_tokens) = (4096, 8);
    })
    .await;
    let (status, answer) = small.post("/query", &query(&[1; 9], 2)).await;
    assert_eq!(
        (status, answer["error"].as_str().unwrap().contains("the limit is 8")),
        (413, true),
        "{answer}"
    );
    let (status, answer) = small.post("/query", &query(&[1; 4096], 2)).await;
    assert_eq!((status, keys(&answer)), (413, vec!["error"]), "{answer}");
    // Each call has a name of its own.
    let (_, metrics) = small.http("GET", "/metrics", "").await;
    let line =
        r#"kvindex_api_calls_total{method="mooncake_query",transport="http",code="resource_exhausted"} 2"#;
    assert!(metrics.lines().any(|l| l == line), "{line} not in\n{metrics}");
}
