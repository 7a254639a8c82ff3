//! A tenant's callers do not learn of another tenant: whatever they ask of a node where the other one is, they hear
//! what they would hear if it were not there.

use serde_json::{Value, json};

use super::rig::{ALL, Answer, Guarded, WAYS, Way, token, without_times};

fn tokens() -> String {
    [
        token("root", ALL, "*", ""),
        token("a", ALL, "a", ""),
        token("b", ALL, "b", ""),
        token("a-and-b", ALL, "a b", ""),
        token("default-and-a", ALL, "default a", ""),
    ]
    .concat()
}

fn tokens_of(count: u32) -> Vec<u32> {
    (0..count).collect()
}

fn stored(worker: &str, seq: u64) -> Value {
    let event = json!({"type": "stored", "block_hashes": [100, 101, 102], "token_ids": tokens_of(48),
        "block_size": 16});
    json!({"worker_id": worker, "generation": 1, "seq": seq, "events": [event]})
}

async fn do_as(node: &Guarded, token: &str, call: &str, request: Value) {
    node.call(Way::Grpc, token, call, request).await.unwrap();
}

/// A node with tenant a's worker, which holds two blocks of three; and with tenant b's, if b is there.
async fn node(b_is_there: bool) -> Guarded {
    let node = Guarded::start(&tokens()).await;
    let described = |id: &str, tenant: &str| {
        json!({"worker_id": id, "model": "llama", "tenant": tenant, "address": "10.0.0.1:8000",
            "role": "prefill", "pd_group": "g", "labels": {"rack": tenant}})
    };
    do_as(&node, "a", "register", described("a/w", "a")).await;
    let mut two = stored("a/w", 0);
    two["events"][0]["block_hashes"] = json!([100, 101]);
    two["events"][0]["token_ids"] = json!(tokens_of(32));
    do_as(&node, "a", "publish", two).await;
    if b_is_there {
        do_as(&node, "b", "register", described("b/w", "b")).await;
        do_as(&node, "b", "publish", stored("b/w", 0)).await;
        // As an operator's file may name them: not after the tenant.
        do_as(&node, "root", "register", described("w-of-b", "b")).await;
        do_as(&node, "root", "publish", stored("w-of-b", 0)).await;
        // Of what is asked for most nothing is a's.
        for _ in 0..5 {
            do_as(&node, "b", "match", json!({"prompt": prompt(&json!({}))})).await;
        }
    }
    node
}

fn prompt(more: &Value) -> Value {
    let mut prompt = json!({"model": "llama", "token_ids": tokens_of(48)});
    prompt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    prompt
}

/// Everything that a may try, in order.
fn attempts() -> Vec<(&'static str, Value)> {
    let ours = prompt(&json!({}));
    let theirs = prompt(&json!({"tenant": "b"}));
    let hashes = json!({"model": "llama", "engine_block_hashes": [100, 101, 102], "block_size": 16});
    let question = |prompt: &Value| json!({"prompt": prompt});
    let with = |more: Value| {
        let mut question = json!({"prompt": ours, "group_rollup": true});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        question
    };
    vec![
        ("match", question(&ours)),
        ("match", question(&theirs)),
        ("match", question(&prompt(&json!({"tenant": "no-such"})))),
        ("match", question(&hashes)),
        ("match", with(json!({"candidates": ["b/w", "w-of-b", "10.0.0.1:8000"]}))),
        ("match", with(json!({"labels": {"rack": "b"}}))),
        ("match", with(json!({"report_applied": true}))),
        ("match_batch", json!({"requests": [question(&ours), question(&theirs), with(json!({"top_k": 9}))]})),
        ("explain", question(&ours)),
        ("explain", question(&theirs)),
        ("explain", with(json!({})).as_object().map(|_| question(&hashes)).unwrap()),
        ("hot_prefixes", json!({})),
        ("hot_prefixes", json!({"tenant": "a"})),
        ("hot_prefixes", json!({"tenant": "b"})),
        ("list_workers", json!({})),
        ("list_workers", json!({"tenant": "a"})),
        ("list_workers", json!({"tenant": "b"})),
        ("publish", stored("b/w", 0)),
        ("publish", stored("b/w", 7)),
        ("publish", stored("w-of-b", 0)),
        ("publish", stored("no-such", 0)),
        ("register", json!({"worker_id": "b/w", "model": "llama"})),
        ("register", json!({"worker_id": "b/w", "model": "llama", "replace": true})),
        ("register", json!({"worker_id": "b/new", "model": "llama"})),
        ("register", json!({"worker_id": "w-of-b", "model": "llama", "replace": true})),
        ("register", json!({"worker_id": "no-such", "model": "llama", "replace": true})),
        ("register", json!({"worker_id": "a/x", "model": "llama", "tenant": "b"})),
        ("register", json!({"worker_id": "a/y", "model": "llama", "endpoint": "tcp://*:1"})),
        ("register", json!({"worker_id": "a/y", "model": "llama", "endpoint": "ipc:///tmp/x"})),
        ("register", json!({"worker_id": "a/x", "model": "llama"})),
        ("unregister", json!({"worker_id": "b/w"})),
        ("unregister", json!({"worker_id": "w-of-b"})),
        ("unregister", json!({"worker_id": "no-such"})),
        ("unregister", json!({"worker_id": "a/x"})),
        ("cluster_status", json!({})),
        ("list_workers", json!({})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_tenant_answers_as_one_without() {
    for way in WAYS {
        let (with_b, without_b) = (node(true).await, node(false).await);
        for (call, request) in attempts() {
            let beside = node_answer(&with_b, way, call, &request).await;
            let alone = node_answer(&without_b, way, call, &request).await;
            assert_eq!(beside, alone, "{way:?} {call} {request}");
            let told =
                format!("{beside:?}").replace("token \\\"a\\\" has no right over tenant \\\"b\\\"", "");
            assert!(!told.contains("w-of-b\"") || call == "publish", "{way:?} {call} {request}: {told}");
        }
        let mine = with_b.call(way, "b", "match", json!({"prompt": prompt(&json!({}))})).await.unwrap();
        assert_eq!(mine["workers"].as_array().unwrap().len(), 2, "what is b's is untouched: {mine}");
        assert_eq!(mine["workers"][0]["matched_blocks"], 3, "{mine}");
    }
}

async fn node_answer(node: &Guarded, way: Way, call: &str, request: &Value) -> Answer {
    node.call(way, "a", call, request.clone()).await.map(without_times)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_worker_is_as_unknown_as_one_that_never_was() {
    let node = node(true).await;
    for way in WAYS {
        let refused = async |worker: &str| {
            let answer = node.call(way, "a", "publish", stored(worker, 0)).await;
            let refusal = answer.unwrap_err();
            (refusal.code, refusal.message.replace(worker, "it"))
        };
        assert_eq!(refused("b/w").await, refused("never-was").await);
        for worker in ["b/w", "never-was"] {
            let answer = node.call(way, "a", "unregister", json!({"worker_id": worker})).await.unwrap();
            assert_eq!(answer, json!({"removed": false}));
            let question = json!({"worker_id": worker, "model": "llama", "replace": true});
            let refusal = node.call(way, "a", "register", question).await.unwrap_err();
            assert_eq!(refusal.code, "permission_denied");
            assert!(refusal.message.contains("begin with a/"), "{refusal:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_worker_in_a_tenants_names_is_not_the_tenants() {
    let node = Guarded::start(&tokens()).await;
    let of_b = json!({"worker_id": "a/odd", "model": "llama", "tenant": "b"});
    do_as(&node, "root", "register", of_b).await;
    for way in WAYS {
        let taken = json!({"worker_id": "a/odd", "model": "llama", "replace": true});
        let refusal = node.call(way, "a", "register", taken).await.unwrap_err();
        assert_eq!(
            (refusal.code.as_str(), refusal.message.as_str()),
            ("already_exists", "worker_id: is in use")
        );
        let gone = node.call(way, "a", "unregister", json!({"worker_id": "a/odd"})).await.unwrap();
        assert_eq!(gone, json!({"removed": false}));
    }
    let listed = node.call(Way::Grpc, "b", "list_workers", json!({})).await.unwrap();
    assert_eq!(listed["workers"][0]["worker_id"], "a/odd");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_a_tenant_is_about_the_tokens_only_one() {
    let node = node(true).await;
    let found = async |way, token: &str| {
        let answer = node.call(way, token, "match", json!({"prompt": prompt(&json!({}))})).await?;
        let workers = answer["workers"].as_array().unwrap().iter();
        Ok(workers.map(|worker| worker["worker_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    for way in WAYS {
        assert_eq!(found(way, "a").await, Ok(vec!["a/w".to_owned()]));
        assert_eq!(found(way, "b").await, Ok(vec!["b/w".to_owned(), "w-of-b".to_owned()]));
        assert_eq!(found(way, "root").await, Ok(vec![]), "the default tenant has no workers");
        assert_eq!(found(way, "default-and-a").await, Ok(vec![]));
        let refused: super::rig::Refusal = found(way, "a-and-b").await.unwrap_err();
        assert_eq!(refused.code, "permission_denied");
        assert!(refused.message.contains("name one"), "{refused:?}");
        let listed = node.call(way, "a-and-b", "list_workers", json!({})).await.unwrap();
        assert_eq!(listed["workers"].as_array().unwrap().len(), 3);
        let listed = node.call(way, "a", "list_workers", json!({})).await.unwrap();
        assert_eq!(listed["workers"].as_array().unwrap().len(), 1);
    }
}
