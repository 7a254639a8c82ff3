//! Hit rates by a configured path and form. No contract is public; what is tested is what our page says.
//! `cargo test --workspace --test it -- dialects_hitrate`

use kvindex_proto::v1;
use kvindex_server::config::{Config, HitRateKey, HitRateValue};
use serde_json::json;

use crate::api_server::{BLOCK, Server, config, tokens, worker};
use crate::dialects_workers::{Guarded, blocks_of, has_counted, post};

fn served(config: &mut Config) {
    config.dialects.hitrate.path = "/v2/hitrate".into();
}

/// Prefill pods with three, one and no blocks, and a decode pod with three.
async fn filled(change: impl FnOnce(&mut Config)) -> Server {
    let mut server = Server::with(config(|config| {
        served(config);
        change(config);
    }))
    .await;
    let ids = tokens(3 * BLOCK);
    for (id, role, blocks) in
        [("1", "prefill", 1), ("3", "prefill", 3), ("0", "prefill", 0), ("9", "decode", 3)]
    {
        let request = v1::RegisterRequest {
            address: Some(format!("10.0.0.{id}:8000")),
            role: Some(role.into()),
            pod: Some(v1::Pod { namespace: "ns".into(), name: format!("pod-{id}"), uid: format!("u{id}") }),
            ..worker(id)
        };
        server.register_as(request).await;
        if blocks > 0 {
            server.push(id, 0, vec![blocks_of(&ids, 0, blocks, "GPU")]).await;
        }
    }
    server
}

fn body(more: &serde_json::Value) -> String {
    let mut body = json!({"model": "llama", "token_ids": tokens(4 * BLOCK)});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

async fn ask(server: &Server, body: &str) -> (u16, String) {
    post(server, "/v2/hitrate", &[], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_prefill_pod_has_its_part_of_the_prompt_best_first() {
    let server = filled(|_| {}).await;
    let all = r#"{"10.0.0.3:8000":0.75,"10.0.0.1:8000":0.25,"10.0.0.0:8000":0.0}"#;
    assert_eq!(ask(&server, &body(&json!({}))).await, (200, all.into()));
    let some = body(&json!({"pods": ["10.0.0.1:8000", "10.0.0.9:8000", "x"], "other": {"a": [1]}}));
    assert_eq!(ask(&server, &some).await, (200, r#"{"10.0.0.1:8000":0.25}"#.into()));
    let none = r#"{"10.0.0.0:8000":0.0,"10.0.0.1:8000":0.0,"10.0.0.3:8000":0.0}"#;
    assert_eq!(ask(&server, &body(&json!({"token_ids": []}))).await, (200, none.into()));
    assert!(has_counted(&server, "hitrate").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_values_and_form_follow_the_configuration() {
    let server = filled(|config| {
        let hitrate = &mut config.dialects.hitrate;
        (hitrate.is_list, hitrate.key, hitrate.value) = (true, HitRateKey::PodName, HitRateValue::NotRate);
        hitrate.role = String::new();
        (hitrate.model_field, hitrate.tokens_field) = ("m".into(), "ids".into());
        hitrate.pods_field = "names".into();
    })
    .await;
    let body = json!({"m": "llama", "ids": tokens(4 * BLOCK), "names": ["pod-9", "pod-1"]}).to_string();
    let list = r#"[{"pod":"pod-9","not_hit_rate":0.25},{"pod":"pod-1","not_hit_rate":0.75}]"#;
    assert_eq!(ask(&server, &body).await, (200, list.into()));
    let server = filled(|config| {
        let hitrate = &mut config.dialects.hitrate;
        (hitrate.key, hitrate.value) = (HitRateKey::PodIp, HitRateValue::Tokens);
        config.dialects.model = "llama".into();
    })
    .await;
    let body = json!({"token_ids": tokens(4 * BLOCK)}).to_string();
    assert_eq!(ask(&server, &body).await, (200, r#"{"10.0.0.3":48,"10.0.0.1":16,"10.0.0.0":0}"#.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_its_field() {
    let server = filled(|_| {}).await;
    for (body, says) in [
        (r#"{"token_ids": [1]}"#, "model: is required: neither the request nor dialect_model"),
        (r#"{"model": "llama"}"#, "token_ids: is required"),
        (r#"{"model": "llama", "token_ids": [1, -1]}"#, "token_ids[1]: invalid value"),
        (r#"{"model": "llama", "token_ids": "x"}"#, "token_ids: invalid type"),
        (r#"{"model": 1, "token_ids": []}"#, "model: invalid type"),
        ("[]", "invalid type: sequence, expected an object"),
        (r#"{"model": "llama", "token_ids": [1"#, "EOF while parsing"),
    ] {
        let (status, text) = ask(&server, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(text.contains(says), "{body}: {text}");
    }
    let long = json!({"model": "llama", "token_ids": [1], "pad": "x".repeat(4 << 20)}).to_string();
    let (status, text) = ask(&server, &long).await;
    assert!(
        status == 413 && text.contains("more bytes than the limit of 4194304 (that of this call)"),
        "{text}"
    );
    assert_eq!(server.http("GET", "/v2/hitrate", "").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_have_tokens_and_tenants_as_in_native_calls() {
    let guarded = Guarded::with("hitrate", &[("mine", "a"), ("theirs", "b")], |config| {
        served(config);
        config.dialects.tenant = "a".into();
    })
    .await;
    for (headers, expected) in [
        (&[("authorization", "Bearer mine")][..], 200),
        (&[("authorization", "Bearer theirs")], 403),
        (&[], 401),
    ] {
        assert_eq!(post(&guarded.server, "/v2/hitrate", headers, &body(&json!({}))).await.0, expected);
    }
    assert_eq!(ask(&Server::start().await, &body(&json!({}))).await.0, 404);
}
