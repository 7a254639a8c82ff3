//! How much each token and each tenant may ask, and the limits on what one call holds, over both transports.

use kvindex_proto::v1;
use serde_json::{Value, json};
use std::time::Duration;

use super::rig::{ALL, Guarded, Refusal, WAYS, Way, query, token};

fn question() -> Value {
    json!({"prompt": {"model": "llama", "token_ids": [1, 2, 3]}})
}

#[track_caller]
fn is_limited(refusal: &Refusal, whose: &str) {
    assert_eq!(refusal.code, "resource_exhausted", "{refusal:?}");
    assert!(refusal.message.contains(whose), "{refusal:?}");
    let retry_after: u64 = refusal.retry_after.as_ref().unwrap().parse().unwrap();
    assert!((1..=7).contains(&retry_after), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_asks_so_many_questions_and_another_is_not_held_up() {
    for way in WAYS {
        let brief = "queries_per_s = 1\nburst = 5";
        let node =
            Guarded::start(&[token("root", ALL, "*", ""), token("brief", "read", "*", brief)].concat()).await;
        let calls = [
            ("match", question()),
            ("explain", question()),
            ("list_workers", json!({})),
            ("match_batch", json!({"requests": [question()]})),
            ("hot_prefixes", json!({})),
        ];
        for (call, request) in &calls {
            node.call(way, "brief", call, request.clone()).await.unwrap();
        }
        for (call, request) in &calls {
            let refusal = node.call(way, "brief", call, request.clone()).await.unwrap_err();
            is_limited(&refusal, "token \"brief\"");
            node.call(way, "root", call, request.clone()).await.unwrap();
        }
        let limited =
            node.metric("root", "kvindex_access_calls_total{token=\"brief\",outcome=\"limited\"}").await;
        let refused = node.metric("root", "kvindex_api_refused_total{reason=\"rate_token\"}").await;
        assert_eq!((limited, refused), (5, 5));
        // A second fills one question in again.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        node.call(way, "brief", "match", question()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_its_questions() {
    for way in WAYS {
        let limit = "queries_per_s = 1\nburst = 10";
        let node = Guarded::start(&token("t", ALL, "*", limit)).await;
        let batch = |questions: usize| json!({"requests": vec![question(); questions]});
        let never = node.call(way, "t", "match_batch", batch(11)).await.unwrap_err();
        assert_eq!((never.code.as_str(), never.retry_after), ("resource_exhausted", None));
        assert!(never.message.contains("11 in one call never fit"), "{}", never.message);
        node.call(way, "t", "match_batch", batch(7)).await.unwrap();
        is_limited(&node.call(way, "t", "match_batch", batch(7)).await.unwrap_err(), "token \"t\"");
        node.call(way, "t", "match_batch", batch(3)).await.unwrap();
        is_limited(&node.call(way, "t", "match", question()).await.unwrap_err(), "token \"t\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_tokens_share_its_rate_and_another_tenants_do_not() {
    for way in WAYS {
        let tenants = "[[tenants]]\nname = \"a\"\nqueries_per_s = 1\nburst = 2\n";
        let tokens = ["a1", "a2"].map(|name| token(name, "read", "a", "")).concat();
        let node = Guarded::start(&[tenants, &tokens, &token("b", "read", "b", "")].concat()).await;
        node.call(way, "a1", "match", question()).await.unwrap();
        node.call(way, "a2", "explain", question()).await.unwrap();
        is_limited(&node.call(way, "a1", "match", question()).await.unwrap_err(), "tenant \"a\"");
        let batch = json!({"requests": [question(), question()]});
        let answer = node.call(way, "a2", "match_batch", batch).await.unwrap();
        for result in answer["results"].as_array().unwrap() {
            assert_eq!(result["error"]["code"], "resource_exhausted", "{answer}");
        }
        for _ in 0..5 {
            node.call(way, "b", "match", question()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_questions_count_and_the_stream_goes_on() {
    let node = Guarded::start(&token("t", "read", "*", "queries_per_s = 1\nburst = 2")).await;
    let prompt = v1::Prompt { model: "llama".into(), token_ids: vec![1], ..v1::Prompt::default() };
    let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
    let ask = |id| v1::MatchStreamRequest { id, request: Some(request.clone()) };
    let mut client = query(node.channel().await, "t");
    let questions = tokio_stream::iter((0..4).map(ask).collect::<Vec<_>>());
    let mut answers = client.match_stream(questions).await.unwrap().into_inner();
    let mut limited = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        limited.push(answer.error.map(|error| (error.code, error.message.contains("retry after"))));
    }
    let refused = Some(("resource_exhausted".to_owned(), true));
    assert_eq!(limited, [None, None, refused.clone(), refused]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_so_many_workers_and_streams() {
    for way in WAYS {
        let tenants = "[[tenants]]\nname = \"a\"\nmax_workers = 2\nmax_streams = 1\n";
        let tokens =
            [token("root", ALL, "*", ""), token("a", ALL, "a", ""), token("b", ALL, "b", "")].concat();
        let node = Guarded::start(&[tenants, &tokens].concat()).await;
        let register = async |token: &str, worker: &str, more: Value| {
            let mut request = json!({"worker_id": worker, "model": "llama"});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            node.call(way, token, "register", request).await
        };
        register("a", "a/1", json!({})).await.unwrap();
        register("a", "a/2", json!({})).await.unwrap();
        let refusal = register("a", "a/3", json!({})).await.unwrap_err();
        assert!(
            refusal.code == "resource_exhausted" && refusal.message.contains("limit is 2"),
            "{refusal:?}"
        );
        let refusal = register("root", "w", json!({"tenant": "a"})).await.unwrap_err();
        assert_eq!(refusal.code, "resource_exhausted");
        register("a", "a/1", json!({"role": "prefill", "replace": true})).await.unwrap();
        register("b", "b/1", json!({})).await.unwrap();
        node.call(way, "a", "unregister", json!({"worker_id": "a/2"})).await.unwrap();
        register("a", "a/3", json!({})).await.unwrap();

        let mut client = query(node.channel().await, "a");
        let open = client.watch(v1::WatchRequest::default()).await.unwrap();
        let status = match way {
            Way::Grpc => client.match_stream(tokio_stream::pending()).await.unwrap_err().message().to_owned(),
            Way::Http => node.raw("a", "GET", "/v1/watch", "").await.2,
        };
        assert!(status.contains("max_streams"), "{status}");
        query(node.channel().await, "b").watch(v1::WatchRequest::default()).await.unwrap();
        drop(open);
        for attempt in 0.. {
            let again = client.watch(v1::WatchRequest::default()).await;
            if again.is_ok() {
                break;
            }
            assert!(attempt < 100, "{again:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Found by a review: calls at one time all saw room for the last worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_has_no_more_workers_when_many_are_registered_at_one_time() {
    let tenants = "[[tenants]]\nname = \"a\"\nmax_workers = 3\n";
    let node = Guarded::start(&[tenants, &token("a", ALL, "a", "")].concat()).await;
    let register = |number: usize| {
        let request = json!({"worker_id": format!("a/{number}"), "model": "llama"});
        node.call(Way::Http, "a", "register", request)
    };
    let answers = futures_util::future::join_all((0..40).map(register)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
}

/// Each limit on what one call says, by both transports.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_limit_is_refused_with_field_and_limit() {
    let node = Guarded::with(&token("root", ALL, "*", ""), |config| {
        config.limits.batch = 2;
        config.limits.candidates = 2;
        config.limits.prompt_tokens = 100;
        config.limits.body_bytes = 1 << 20;
    })
    .await;
    let prompt = |tokens: usize| json!({"model": "llama", "token_ids": vec![1; tokens]});
    let item = |id: &str, length: u64| json!({"identifier": id, "offset": 0, "length": length});
    let with_items = |items| json!({"model": "llama", "token_ids": vec![1; 100], "items": items});
    let long = "n".repeat(5000);
    let labels = json!({"a": "", "b": "", "c": ""});
    let cases = [
        ("match", json!({"prompt": prompt(101)}), "token_ids", "limit is 100"),
        ("explain", json!({"prompt": prompt(101)}), "token_ids", "limit is 100"),
        ("match_batch", json!({"requests": vec![json!({"prompt": prompt(1)}); 3]}), "requests", "limit is 2"),
        ("match", json!({"prompt": prompt(1), "candidates": ["a", "b", "c"]}), "candidates", "limit is 2"),
        ("explain", json!({"prompt": prompt(1), "labels": labels}), "labels", "limit is 2"),
        ("match", json!({"prompt": prompt(1), "role": long}), "role", "limit is"),
        ("match", json!({"prompt": with_items(vec![item(&long, 9)])}), "items[0].identifier", "limit is"),
        (
            "explain",
            json!({"prompt": with_items(vec![item("i", u64::MAX >> 1); 5])}),
            "items",
            "limit is 400",
        ),
        ("register", json!({"worker_id": "w", "model": "m", "role": "r".repeat(2 << 20)}), "", "1048576"),
    ];
    for way in WAYS {
        for (call, request, field, limit) in &cases {
            let refusal = node.call(way, "root", call, request.clone()).await.unwrap_err();
            let what = format!("{way:?} {call} {field}: {:?}", refusal.message);
            assert_eq!(refusal.code, "resource_exhausted", "{what}");
            assert!(refusal.message.contains(field) && refusal.message.contains(limit), "{what}");
        }
    }
    let path = "/v1/watch?worker_ids=a,b,c";
    let (status, _, body) = node.raw("root", "GET", path, "").await;
    assert!(status == 413 && body.contains("worker_ids") && body.contains("limit is 2"), "{status} {body}");
}

/// A rate must not be passed by with another method for the same call.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_is_made_by_post_and_nothing_else() {
    let node = Guarded::with(&token("root", ALL, "*", ""), |config| config.dialects.sglang = true).await;
    for (method, path) in [
        ("PUT", "/kvindex.v1.QueryService/Match"),
        ("GET", "/kvindex.v1.QueryService/MatchStream"),
        ("PUT", "/kv_indexer.v1.KVIndexer/MatchExternalKvPrefix"),
        ("GET", "/kv_indexer.v1.KVIndexer/MatchExternalKvPrefix"),
    ] {
        let (status, _, body) = node.raw("root", method, path, "").await;
        assert_eq!(status, 405, "{method} {path}: {body}");
    }
    // A probe's HEAD is a question about health as its GET is.
    let (status, ..) = node.raw("", "HEAD", "/healthz", "").await;
    assert_eq!(status, 200);
}
