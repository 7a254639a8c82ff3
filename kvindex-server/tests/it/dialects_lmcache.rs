//! LMCache's lookup as its controller answers it (lmcache's api_server, its schemas and its framework's error bodies).
//! `cargo test --workspace --test it -- dialects_lmcache`

use kvindex_proto::v1;
use kvindex_server::config::Config;
use serde_json::{Value, json};

use crate::api_server::{BLOCK, Server, config, tokens, worker};
use crate::dialects_workers::{self, Guarded, at, blocks_of, has_counted, post};

fn served(config: &mut Config) {
    config.dialects.lmcache = true;
    config.dialects.model = "llama".into();
}

async fn filled() -> Server {
    let mut server = Server::with(config(served)).await;
    let ids = tokens(3 * BLOCK);
    at(&mut server, "a-one", "10.0.0.1:8000").await;
    at(&mut server, "z-three", "10.0.0.3:8000").await;
    let labels = [("kvindex.io/instance".to_owned(), "pool".to_owned())].into();
    server.register_as(v1::RegisterRequest { labels, ..worker("b-two") }).await;
    at(&mut server, "c-none", "").await;
    server.push("a-one", 0, vec![blocks_of(&ids, 0, 1, "GPU")]).await;
    server.push("b-two", 0, vec![blocks_of(&ids, 0, 1, "GPU"), blocks_of(&ids, 1, 1, "DISK")]).await;
    server.push("z-three", 0, vec![blocks_of(&ids, 0, 2, "GPU"), blocks_of(&ids, 2, 1, "CPU")]).await;
    server
}

async fn lookup(server: &Server, body: &Value) -> (u16, Value) {
    let (status, body) = post(server, "/lookup", &[], &body.to_string()).await;
    (status, dialects_workers::json(&body))
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_come_best_first_with_where_and_how_much() {
    let server = filled().await;
    let body = json!({"tokens": tokens(3 * BLOCK + 5), "unknown": [1]}).to_string();
    let (status, text) = post(&server, "/lookup", &[], &body).await;
    assert_eq!(status, 200, "{text}");
    // Pairs are arrays, and the order of the text counts: who reads it takes the first.
    let layout = r#""layout_info":{"z-three":["LocalCPUBackend",48],"pool":["LocalDiskBackend",32],"a-one":["LocalGPUBackend",16]}}"#;
    assert!(text.ends_with(layout), "{text}");
    let answer = dialects_workers::json(&text);
    assert_eq!(answer.as_object().unwrap().len(), 2);
    assert!(answer["event_id"].as_str().unwrap().starts_with("Lookup"), "{text}");
    assert!(has_counted(&server, "lmcache_lookup").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_held_is_an_empty_map() {
    let server = filled().await;
    for body in [json!({"tokens": [9, 9, 9]}), json!({"tokens": []})] {
        let (status, answer) = lookup(&server, &body).await;
        assert_eq!((status, &answer["layout_info"]), (200, &json!({})), "{body}");
    }
    let (status, text) = post(
        &server,
        "/lookup",
        &[("x-kvindex-model", "other")],
        &json!({"tokens": tokens(BLOCK)}).to_string(),
    )
    .await;
    assert_eq!((status, &dialects_workers::json(&text)["layout_info"]), (200, &json!({})), "{text}");
}

/// It was passed over once, and the answer was about the model of the configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_read_is_refused() {
    let server = filled().await;
    let body = json!({"tokens": tokens(BLOCK)}).to_string();
    let (status, text) = post(&server, "/lookup", &[("x-kvindex-model", "modèle")], &body).await;
    let detail = json!({"detail": "x-kvindex-model: must be of printable ASCII"});
    assert_eq!((status, dialects_workers::json(&text)), (400, detail));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_as_their_framework_does() {
    let server = filled().await;
    let cases = [
        ("{}", json!({"type": "missing", "loc": ["body", "tokens"], "msg": "Field required", "input": {}})),
        ("", json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null})),
        (
            r#"{"tokens": 5}"#,
            json!({"type": "list_type", "loc": ["body", "tokens"], "msg": "Input should be a valid list", "input": 5}),
        ),
        (
            r#"{"tokens": [1, "x"]}"#,
            json!({"type": "int_parsing", "loc": ["body", "tokens", 1], "input": "x",
                   "msg": "Input should be a valid integer, unable to parse string as an integer"}),
        ),
        (
            r#"{"tokens": [1.5]}"#,
            json!({"type": "int_from_float", "loc": ["body", "tokens", 0], "input": 1.5,
                   "msg": "Input should be a valid integer, got a number with a fractional part"}),
        ),
        (
            r#"{"tokens": [null]}"#,
            json!({"type": "int_type", "loc": ["body", "tokens", 0], "msg": "Input should be a valid integer", "input": null}),
        ),
        (
            r#"{"tokens": [0, -1]}"#,
            json!({"type": "int_parsing_size", "loc": ["body", "tokens", 1], "input": -1,
                   "msg": "Input should be an integer from 0 to 4294967295"}),
        ),
        (
            "[1]",
            json!({"type": "model_attributes_type", "loc": ["body"], "input": [1],
                   "msg": "Input should be a valid dictionary or object to extract fields from"}),
        ),
    ];
    for (body, flaw) in cases {
        let (status, text) = post(&server, "/lookup", &[], body).await;
        assert_eq!((status, dialects_workers::json(&text)), (422, json!({"detail": [flaw]})), "{body}");
    }
    let (status, text) = post(&server, "/lookup", &[], r#"{"tokens": [1"#).await;
    let detail = &dialects_workers::json(&text)["detail"][0];
    assert_eq!((status, &detail["type"], &detail["loc"][0]), (422, &json!("json_invalid"), &json!("body")));
    assert!(detail["loc"][1].is_u64() && detail["ctx"]["error"].is_string(), "{text}");
    let (status, text) = server.http("GET", "/lookup", "").await;
    assert_eq!((status, text.as_str()), (405, r#"{"detail":"Method Not Allowed"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_tokens_and_tenants_hold_as_in_native_calls() {
    let small = Server::with(config(|config| {
        served(config);
        config.limits.prompt_tokens = 4;
    }))
    .await;
    let (status, answer) = lookup(&small, &json!({"tokens": [1, 2, 3, 4, 5]})).await;
    assert_eq!((status, &answer["detail"]), (413, &json!("tokens: 5 tokens, the limit is 4")));
    let guarded = Guarded::with("lmcache", &[("mine", "a"), ("theirs", "b")], |config| {
        served(config);
        config.dialects.tenant = "a".into();
    })
    .await;
    for (headers, expected) in [
        (&[("authorization", "Bearer mine")][..], 200),
        (&[("authorization", "Bearer theirs")], 403),
        (&[], 401),
    ] {
        // Even for a question that needs no answer.
        for body in [r#"{"tokens": [1]}"#, r#"{"tokens": []}"#] {
            assert_eq!(post(&guarded.server, "/lookup", headers, body).await.0, expected, "{headers:?}");
        }
    }
    assert_eq!(post(&Server::start().await, "/lookup", &[], r#"{"tokens": [1]}"#).await.0, 404);
}
