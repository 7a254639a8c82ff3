//! The conductor's form, in JSON and MessagePack: cumulative counts, and errors that say where.

use kvindex_server::config::MooncakeJson;
use serde_json::{Value, json};

use super::{query, registered, registration, stored};
use crate::api_server::Server;
use crate::dialects_rig::{Engine, call, keys, server, until};

const MSGPACK: &str = "application/msgpack";

/// The same with what the conductor insists on.
fn conducted(engine: &Engine, instance: &str, rank: u32, block_size: u32) -> Value {
    let mut body = registration(engine, instance, rank, block_size);
    body["hash_profile"] = json!({"strategy": "vllm_v1", "algorithm": "sha256_cbor", "python_hash_seed": "0",
        "index_projection": "low64_be"});
    body
}

/// Blocks of 16 tokens, as the conductor's own test has them: two on the GPU, one on the CPU, one on disk.
async fn conducted_server() -> (Server, Vec<Engine>, Vec<u32>) {
    let server = server(Some(MooncakeJson::Conductor), false).await;
    let mut engines = vec![Engine::start(0), Engine::start(1)];
    for rank in 0..2 {
        let engine = &engines[rank as usize];
        registered(&server, engine, &conducted(engine, "vllm-1", rank, 16)).await;
    }
    let tokens: Vec<u32> = (0..64).collect();
    engines[0].publish(&[
        stored("GPU", &[1, 2], None, &tokens[..32]),
        stored("CPU", &[3], Some(2), &tokens[32..48]),
        stored("DISK", &[4], Some(3), &tokens[48..]),
    ]);
    (server, engines, tokens)
}

/// Rank 1 has announced nothing, and is there with zeros.
fn conducted_answer() -> Value {
    json!({"instances": {"vllm-1": {"longest_matched": 64, "gpu": 32, "dp": {"0": 32, "1": 0}, "cpu": 48,
        "disk": 64, "rank_matches": {"0": {"gpu": 32, "cpu": 48, "disk": 64},
            "1": {"gpu": 0, "cpu": 0, "disk": 0}}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn conductor_counts_cumulatively_in_json_and_msgpack() {
    let (server, _engines, tokens) = conducted_server().await;
    until(&server, "/query", &query(&tokens, 16), &conducted_answer()).await;
    // The same question packed: a list of numbers, and bytes of little-endian words, which no `Value` has.
    let list = rmp_serde::to_vec_named(&query(&tokens, 16)).unwrap();
    let mut packed = Vec::new();
    rmp::encode::write_map_len(&mut packed, 4).unwrap();
    let words: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    for (name, text) in [("model", Some("llama")), ("token_ids", None), ("cache_salt", Some(""))] {
        rmp::encode::write_str(&mut packed, name).unwrap();
        match text {
            Some(text) => rmp::encode::write_str(&mut packed, text).unwrap(),
            None => {
                rmp::encode::write_bin(&mut packed, &words).unwrap();
            }
        }
    }
    rmp::encode::write_str(&mut packed, "block_size").unwrap();
    rmp::encode::write_uint(&mut packed, 16).unwrap();
    for body in [list, packed] {
        let reply = call(&server, "POST", "/query", (MSGPACK, ""), body).await;
        assert_eq!((reply.status, reply.content_type.as_str()), (200, MSGPACK));
        assert_eq!(reply.msgpack(), conducted_answer());
    }
    // Nobody of that name, and no such context: nothing.
    for (name, value) in
        [("instance_id", "nobody"), ("model", "other"), ("tenant_id", "t"), ("lora_name", "l")]
    {
        let mut other = query(&tokens, 16);
        other[name] = value.into();
        let (status, answer) = server.post("/query", &other).await;
        let has_none = answer["instances"].as_object().unwrap().values().all(|i| i["longest_matched"] == 0);
        assert!(status == 200 && has_none, "{name}: {answer}");
        assert!(name == "lora_name" || answer == json!({"instances": {}}), "{name}: {answer}");
    }
    let zeros = json!({"instances": {"vllm-1": {"longest_matched": 0, "gpu": 0, "dp": {"0": 0, "1": 0},
        "cpu": 0, "disk": 0, "rank_matches": {"0": {"gpu": 0, "cpu": 0, "disk": 0},
            "1": {"gpu": 0, "cpu": 0, "disk": 0}}}}});
    until(&server, "/query", &query(&[], 16), &zeros).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conductor_takes_the_proxys_calls_in_msgpack() {
    let server = server(Some(MooncakeJson::Conductor), false).await;
    let mut engine = Engine::start(0);
    let post = async |path: &'static str, body: Value| {
        let reply = call(&server, "POST", path, (MSGPACK, ""), rmp_serde::to_vec_named(&body).unwrap()).await;
        assert_eq!(reply.content_type, MSGPACK, "{path}");
        (reply.status, reply.msgpack())
    };
    let mut body = conducted(&engine, "p0", 0, 16);
    (body["tenant_id"], body["lora_name"]) = ("".into(), "".into());
    let wanted = json!({"status": "registered successfully", "instance_id": "p0"});
    assert_eq!(post("/register", body.clone()).await, (200, wanted));
    engine.wait_for_listener();
    let tokens: Vec<u32> = (0..16).collect();
    engine.publish(&[stored("GPU", &[1], None, &tokens)]);
    let wanted = json!({"instances": {"p0": {"longest_matched": 16, "gpu": 16, "dp": {"0": 16}, "cpu": 16,
        "disk": 16, "rank_matches": {"0": {"gpu": 16, "cpu": 16, "disk": 16}}}}});
    until(&server, "/query", &query(&tokens, 16), &wanted).await;
    let question = json!({"model": "llama", "block_size": 16, "token_ids": tokens, "tenant_id": "default",
        "lora_name": "", "cache_salt": null});
    assert_eq!(post("/query", question).await, (200, wanted));
    // Another definition, and an endpoint that another rank has.
    body["block_size"] = 32.into();
    let (status, refused) = post("/register", body.clone()).await;
    assert_eq!((status, &refused["reason"]), (400, &json!("invalid_registration")), "{refused}");
    (body["block_size"], body["instance_id"]) = (16.into(), "p1".into());
    let (status, refused) = post("/register", body).await;
    let said = (&refused["reason"], &refused["field"]);
    assert_eq!((status, said), (400, (&json!("invalid_registration"), &json!("endpoint"))), "{refused}");
    let reply = call(&server, "GET", "/services", (MSGPACK, ""), Vec::new()).await;
    let services = reply.msgpack();
    assert_eq!(
        keys(&services["services"][0]),
        [
            "BlockSize",
            "CacheGroup",
            "DPRank",
            "Endpoint",
            "HashProfile",
            "InstanceID",
            "LoraName",
            "ModelName",
            "ReplayEndpoint",
            "TenantID",
            "Type"
        ]
    );
    let view = call(&server, "GET", "/global_view", (MSGPACK, ""), Vec::new()).await.msgpack();
    assert_eq!(view["context_count"], 1);
    let context = &view["contexts"][0];
    assert_eq!((&context["prefix_count"], &context["instances"]), (&json!(1), &json!({"p0": [0]})));
    let leave = json!({"instance_id": "p0", "tenant_id": "default", "dp_rank": 0});
    let wanted = json!({"status": "unregistered successfully", "removed_instances": ["p0|default|0"]});
    assert_eq!(post("/unregister", leave.clone()).await, (200, wanted));
    let (status, refused) = post("/unregister", leave).await;
    assert_eq!((status, &refused["error"]), (404, &json!("service not found: p0|default|0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn conductor_refuses_what_it_does_not_know_and_says_where() {
    let server = server(Some(MooncakeJson::Conductor), false).await;
    let engine = Engine::start(0);
    let with = |name: &str, value: Value| {
        let mut body = conducted(&engine, "a", 0, 16);
        body[name] = value;
        body
    };
    let ask = |name: &str, value: Value| {
        let mut body = query(&[1, 2], 2);
        body[name] = value;
        body
    };
    for (path, body, reason, field) in [
        ("/query", ask("lora_id", json!(1)), "unknown_field", "lora_id"),
        ("/query", ask("surprise", json!(1)), "unknown_field", "surprise"),
        ("/query", ask("tenant_id", json!(null)), "invalid_type", "tenant_id"),
        ("/query", ask("block_size", json!(0)), "out_of_range", "block_size"),
        ("/query", ask("block_size", json!("2")), "invalid_type", "block_size"),
        ("/query", ask("token_ids", json!({})), "not_array", "token_ids"),
        ("/query", json!({"block_size": 2, "token_ids": []}), "missing", "model"),
        ("/register", with("additionalsalt", json!("")), "unknown_field", "additionalsalt"),
        ("/register", with("lora_name", json!(null)), "invalid_type", "lora_name"),
        ("/register", with("instance_id", json!("")), "invalid_value", "instance_id"),
        ("/register", with("hash_profile", json!({"strategy": "x"})), "unsupported", "hash_profile.strategy"),
        ("/register", with("cache_group", json!(1)), "unsupported", "cache_group"),
        ("/unregister", json!({"instance_id": "a", "modelname": "m"}), "unknown_field", "modelname"),
    ] {
        let (status, answer) = server.post(path, &body).await;
        let told = (answer["reason"].as_str(), answer["field"].as_str());
        assert_eq!((status, told), (400, (Some(reason), Some(field))), "{path} {body}: {answer}");
    }
    let (_, answer) = server.post("/query", &ask("token_ids", json!([1, 2, "3"]))).await;
    assert_eq!((&answer["reason"], &answer["index"]), (&json!("invalid_type"), &json!(2)));
    let reasons = [
        (MSGPACK, b"\xc1".to_vec(), "invalid_msgpack"),
        (MSGPACK, b"\x80\x80".to_vec(), "invalid_msgpack"),
        ("application/json", b"{".to_vec(), "invalid_json"),
        ("text/csv", b"{}".to_vec(), "unsupported_content_type"),
    ];
    for (content_type, body, reason) in reasons {
        let reply = call(&server, "POST", "/query", (content_type, ""), body).await;
        let answer = if content_type == MSGPACK { reply.msgpack() } else { reply.json() };
        assert_eq!((reply.status, answer["reason"].as_str()), (400, Some(reason)), "{answer}");
    }
    // Three bytes are no token.
    let mut odd = Vec::new();
    rmp::encode::write_map_len(&mut odd, 3).unwrap();
    for name in ["model", "block_size", "token_ids"] {
        rmp::encode::write_str(&mut odd, name).unwrap();
        match name {
            "model" => rmp::encode::write_str(&mut odd, "llama").unwrap(),
            "block_size" => {
                rmp::encode::write_uint(&mut odd, 16).unwrap();
            }
            _ => rmp::encode::write_bin(&mut odd, &[1, 2, 3]).unwrap(),
        }
    }
    let reply = call(&server, "POST", "/query", (MSGPACK, ""), odd).await;
    let answer = reply.msgpack();
    assert_eq!((reply.status, &answer["field"]), (400, &json!("token_ids")), "{answer}");
}
