//! Bad input: each gets an error that names the field, on both transports, and changes nothing.

use kvindex_proto::v1;
use serde_json::{Value, json};
use tonic::Code;

use crate::api_server::{Server, prompt, stored, tokens};

#[tokio::test(flavor = "multi_thread")]
async fn malformed_prompts_are_refused_by_field() {
    let mut server = Server::start().await;
    let item = |identifier: &str, length| v1::PromptItem { identifier: identifier.into(), offset: 0, length };
    let cases = [
        ("prompt: ", v1::Prompt { ..prompt(Vec::new()) }),
        ("prompt.model: ", v1::Prompt { model: String::new(), ..prompt(tokens(1)) }),
        ("prompt.token_ids_le: ", v1::Prompt { token_ids_le: vec![0; 5].into(), ..prompt(Vec::new()) }),
        ("prompt.token_ids_le: ", v1::Prompt { token_ids_le: vec![0; 4].into(), ..prompt(tokens(1)) }),
        ("prompt.block_size: ", v1::Prompt { sequence_hashes: vec![1], ..prompt(Vec::new()) }),
        ("prompt.block_size: ", v1::Prompt { engine_block_hashes: vec![1], ..prompt(Vec::new()) }),
        ("prompt.block_size: ", v1::Prompt { block_size: 1 << 20, ..prompt(tokens(1)) }),
        (
            "prompt.engine_block_hashes: ",
            v1::Prompt {
                engine_block_hashes: vec![1],
                sequence_hashes: vec![1],
                block_size: 16,
                ..prompt(Vec::new())
            },
        ),
        ("prompt.items[0].identifier: ", v1::Prompt { items: vec![item("", 1)], ..prompt(tokens(9)) }),
        ("prompt.items[0].length: ", v1::Prompt { items: vec![item("x", 0)], ..prompt(tokens(9)) }),
        (
            "prompt.items: ",
            v1::Prompt {
                items: vec![item("x", 1)],
                sequence_hashes: vec![1],
                block_size: 16,
                ..prompt(Vec::new())
            },
        ),
    ];
    for (start, prompt) in cases {
        let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
        let status = server.query.r#match(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(start), "{start} {status}");
        let (code, body) = server.post("/v1/match", &serde_json::to_value(&request).unwrap()).await;
        assert_eq!((code, &body["error"]["code"]), (400, &json!("invalid_argument")));
        assert_eq!(body["error"]["field"], start.trim_end_matches(": "));
    }
    let status = server.query.r#match(v1::MatchRequest::default()).await.unwrap_err();
    assert!(status.message().starts_with("prompt: "), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_json_is_refused_by_field() {
    let server = Server::start().await;
    let tokens = |value: Value| json!({"prompt": {"model": "llama", "token_ids": [0, value]}});
    for (body, field) in [
        (tokens(json!(-1)), "prompt.token_ids[1]"),
        (tokens(json!(1u64 << 32)), "prompt.token_ids[1]"),
        (tokens(json!(1u64 << 63)), "prompt.token_ids[1]"),
        (tokens(json!(1.5)), "prompt.token_ids[1]"),
        (tokens(json!("1")), "prompt.token_ids[1]"),
        (json!({"prompt": {"model": "llama", "tokens": [1]}}), "prompt.tokens"),
        (json!({"promt": {}}), "promt"),
        (json!({"prompt": {"model": "llama", "token_ids_le": "not base64!"}}), "prompt.token_ids_le"),
    ] {
        let (status, answer) = server.post("/v1/match", &body).await;
        assert_eq!((status, answer["error"]["field"].as_str()), (400, Some(field)), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(field));
    }
    for text in ["", "{", "[]", "null x"] {
        let (status, _) = server.http("POST", "/v1/match", text).await;
        assert_eq!(status, 400, "{text:?}");
    }
    let (status, answer) = server.http("GET", "/v1/workers?modle=x", "").await;
    assert!(status == 400 && answer.contains("modle"), "{answer}");
    let (status, answer) = server.http("GET", "/v1/watch?worker=x", "").await;
    assert!(status == 400 && answer.contains("worker"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_batches_are_refused_by_field_and_change_nothing() {
    let mut server = Server::start().await;
    server.register("a").await;
    let event = |change: fn(&mut v1::PublishEvent)| {
        let mut event = stored(2);
        change(&mut event);
        event
    };
    let cases = [
        ("events[0].type", event(|e| e.r#type = "evicted".into())),
        ("events[0].block_size", event(|e| e.block_size = 0)),
        ("events[0].block_size", event(|e| e.block_size = 1 << 20)),
        ("events[0].token_ids", event(|e| e.token_ids.truncate(17))),
        ("events[0].token_ids_le", event(|e| e.token_ids_le = vec![0; 4].into())),
        ("events[0].extra_keys", event(|e| e.extra_keys = vec![v1::BlockExtraKeys::default()])),
        ("events[0].group_idx", event(|e| e.group_idx = 1 << 16)),
    ];
    for (field, event) in cases {
        let request = crate::api_server::batch("a", 1, 0, vec![event]);
        let status = server.ingest.publish(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(field), "{field}: {status}");
    }
    let base = crate::api_server::batch("a", 1, 0, vec![stored(1)]);
    for (field, request) in [
        ("worker_id", v1::PublishRequest { worker_id: String::new(), ..base.clone() }),
        ("generation", v1::PublishRequest { generation: 0, ..base.clone() }),
        ("dp_rank", v1::PublishRequest { dp_rank: 1 << 20, ..base.clone() }),
        ("events", v1::PublishRequest { payload: vec![1].into(), ..base.clone() }),
        ("payload", v1::PublishRequest { payload: b"\xc1garbage"[..].into(), events: Vec::new(), ..base }),
    ] {
        let status = server.ingest.publish(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(field), "{field}: {status}");
    }
    server.push("a", 0, vec![stored(1)]).await;
}
