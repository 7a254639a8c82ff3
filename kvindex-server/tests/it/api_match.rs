//! Questions and answers: every prompt form, both transports, batch, stream, filters, explain.

use kvindex_core::{BlockHasher, SequenceHash};
use kvindex_proto::v1;
use serde_json::json;
use tokio_stream::StreamExt;

use crate::api_server::{BLOCK, Server, blocks, prompt, removed, stored, tokens, worker};

/// Two workers: `a` holds three blocks of `tokens(48)`, `b` holds one.
async fn two_workers() -> Server {
    let mut server = Server::start().await;
    server.register("a").await;
    server.register("b").await;
    server.push("a", 0, vec![stored(3)]).await;
    server.push("b", 0, vec![stored(1)]).await;
    server
}

fn sequence_hashes(token_ids: &[u32]) -> Vec<u64> {
    let (mut hasher, mut parent, mut hashes) = (BlockHasher::new(), None, Vec::new());
    for block in token_ids.chunks_exact(BLOCK as usize) {
        let hash = SequenceHash::chain(parent, hasher.local(block, &[]));
        parent = Some(hash);
        hashes.push(hash.0);
    }
    hashes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_prompt_form_gets_the_same_answer() {
    let mut server = two_workers().await;
    let packed: Vec<u8> = tokens(50).iter().flat_map(|t| t.to_le_bytes()).collect();
    let forms = [
        prompt(tokens(50)),
        v1::Prompt { token_ids_le: packed.into(), ..prompt(Vec::new()) },
        v1::Prompt { sequence_hashes: sequence_hashes(&tokens(50)), block_size: BLOCK, ..prompt(Vec::new()) },
        v1::Prompt { engine_block_hashes: vec![100, 101, 102], block_size: BLOCK, ..prompt(Vec::new()) },
    ];
    for form in forms {
        let answer = server.find(form.clone()).await;
        assert_eq!(blocks(&answer), [("a", 3), ("b", 1)], "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_carries_everything_a_router_needs() {
    let mut server = Server::start().await;
    server
        .register_as(v1::RegisterRequest {
            address: Some("10.0.0.1:8000".into()),
            pod: Some(v1::Pod { namespace: "ns".into(), name: "p".into(), uid: "u".into() }),
            service: Some("svc".into()),
            role: Some("prefill".into()),
            pd_group: Some("g1".into()),
            labels: [("zone".to_owned(), "z1".to_owned())].into(),
            ..worker("a")
        })
        .await;
    server.push("a", 0, vec![stored(3)]).await;
    let on_host = v1::PublishEvent { medium: "CPU".into(), ..stored(2) };
    server.push("a", 1, vec![on_host, removed(&[102])]).await;
    let answer = server.find(prompt(tokens(50))).await;
    assert_eq!(answer.prompt_tokens, 50);
    assert!(answer.timing.is_some());
    let found = &answer.workers[0];
    assert_eq!((found.matched_blocks, found.matched_tokens, found.uncached_tokens), (2, 32, 18));
    assert_eq!((found.address.as_deref(), found.service.as_deref()), (Some("10.0.0.1:8000"), Some("svc")));
    assert_eq!((found.role.as_deref(), found.pd_group.as_deref()), (Some("prefill"), Some("g1")));
    assert_eq!(found.pod.as_ref().unwrap().uid, "u");
    assert_eq!((found.model.as_str(), found.dp_rank, found.block_size), ("llama", 0, BLOCK));
    assert_eq!(found.labels["zone"], "z1");
    let tiers: Vec<_> =
        found.tiers.iter().map(|t| (t.tier.as_str(), t.blocks, t.prefix_blocks, t.prefix_tokens)).collect();
    assert_eq!(tiers, [("device", 2, 2, 32), ("host", 2, 2, 32)]);
    let trust = found.trust.as_ref().unwrap();
    assert_eq!(trust.state(), v1::TrustState::Live);
    assert_eq!((trust.generation, trust.applied_seq, trust.lag_ms), (1, Some(1), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_grpc_agree() {
    let mut server = two_workers().await;
    let by_grpc = server.find(prompt(tokens(50))).await;
    let question = json!({"prompt": {"model": "llama", "token_ids": tokens(50)}});
    let (status, by_json) = server.post("/v1/match", &question).await;
    assert_eq!(status, 200, "{by_json}");
    assert_eq!(by_json["workers"][0]["trust"]["state"], "live");
    let by_json: v1::MatchResponse = serde_json::from_value(by_json).unwrap();
    assert_eq!(by_json.workers, by_grpc.workers);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_the_answer() {
    let mut server = Server::start().await;
    for (id, role, group) in [("p1", "prefill", "g1"), ("d1", "decode", "g1"), ("p2", "prefill", "g2")] {
        let (role, pd_group) = (Some(role.to_owned()), Some(group.to_owned()));
        let labels = [("n".to_owned(), id.to_owned())].into();
        let address = Some(format!("{id}:8000"));
        server.register_as(v1::RegisterRequest { role, pd_group, labels, address, ..worker(id) }).await;
    }
    server.push("p1", 0, vec![stored(1)]).await;
    server.push("p2", 0, vec![stored(3)]).await;
    let base = v1::MatchRequest { prompt: Some(prompt(tokens(48))), ..v1::MatchRequest::default() };
    let text = |text: &str| Some(text.to_owned());
    let cases: Vec<(v1::MatchRequest, &[&str])> = vec![
        (v1::MatchRequest { candidates: vec!["p1".into()], ..base.clone() }, &["p1"]),
        (v1::MatchRequest { candidates: vec!["p1:8000".into(), "p2".into()], ..base.clone() }, &["p2", "p1"]),
        (v1::MatchRequest { role: text("prefill"), ..base.clone() }, &["p2", "p1"]),
        (v1::MatchRequest { pd_group: text("g1"), min_matched_blocks: 1, ..base.clone() }, &["p1"]),
        (v1::MatchRequest { labels: [("n".into(), "p2".into())].into(), ..base.clone() }, &["p2"]),
        (v1::MatchRequest { top_k: Some(1), ..base.clone() }, &["p2"]),
        (v1::MatchRequest { min_matched_blocks: 2, ..base.clone() }, &["p2"]),
        (v1::MatchRequest { tier: text("host"), min_matched_blocks: 1, ..base.clone() }, &[]),
    ];
    for (request, expected) in cases {
        let answer = server.query.r#match(request.clone()).await.unwrap().into_inner();
        let ids: Vec<&str> = answer.workers.iter().map(|w| w.worker_id.as_str()).collect();
        assert_eq!(ids, expected, "{request:?}");
    }
    let rollup = v1::MatchRequest { group_rollup: true, top_k: Some(1), ..base };
    let answer = server.query.r#match(rollup).await.unwrap().into_inner();
    assert_eq!(answer.workers.len(), 1);
    let id = |best: &Option<v1::WorkerMatch>| best.as_ref().map(|b| b.worker_id.clone());
    let groups: Vec<_> =
        answer.groups.iter().map(|g| (g.pd_group.as_str(), id(&g.prefill), id(&g.decode))).collect();
    assert_eq!(groups, [("g1", text("p1"), text("d1")), ("g2", text("p2"), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_question_by_itself() {
    let mut server = two_workers().await;
    let good = v1::MatchRequest { prompt: Some(prompt(tokens(16))), ..v1::MatchRequest::default() };
    let bad = v1::MatchRequest { prompt: Some(prompt(Vec::new())), ..v1::MatchRequest::default() };
    let request = v1::MatchBatchRequest { requests: vec![good.clone(), bad, good] };
    let answer = server.query.match_batch(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), 3);
    assert_eq!(blocks(answer.results[2].response.as_ref().unwrap()), [("a", 1), ("b", 1)]);
    let error = answer.results[1].error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), error.field.as_str()), ("invalid_argument", "prompt"));
    let (status, by_json) = server.post("/v1/match_batch", &serde_json::to_value(&request).unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(by_json["results"][1]["error"]["field"], "prompt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_in_order_and_survives_a_bad_question() {
    let mut server = two_workers().await;
    let question = |id, count| v1::MatchStreamRequest {
        id,
        request: Some(v1::MatchRequest {
            prompt: Some(prompt(tokens(count))),
            ..v1::MatchRequest::default()
        }),
    };
    let questions = vec![
        question(7, 48),
        question(8, 0),
        v1::MatchStreamRequest { id: 9, request: None },
        question(10, 16),
    ];
    let mut answers = server.query.match_stream(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        seen.push((
            answer.id,
            answer.response.map(|r| r.workers[0].matched_blocks),
            answer.error.map(|e| e.field),
        ));
    }
    let field = |name: &str| Some(name.to_owned());
    assert_eq!(
        seen,
        [(7, Some(3), None), (8, None, field("prompt")), (9, None, field("request")), (10, Some(1), None)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_removed_from_never_stored() {
    let mut server = two_workers().await;
    server.push("a", 1, vec![removed(&[101])]).await;
    let request = v1::ExplainRequest { prompt: Some(prompt(tokens(48))), ..v1::ExplainRequest::default() };
    let answer = server.query.explain(request.clone()).await.unwrap().into_inner();
    let told: Vec<_> = answer
        .workers
        .iter()
        .map(|w| {
            (w.matched.as_ref().unwrap().worker_id.as_str(), w.reason.as_str(), w.broke_at, w.held_beyond)
        })
        .collect();
    assert_eq!(told, [("a", "removed", Some(1), 1), ("b", "never_stored", Some(1), 0)]);
    let first = &answer.workers[0];
    assert_eq!((first.seq, first.tier.as_deref(), first.prompt_blocks), (Some(1), Some("device"), 3));
    assert!(first.at_ms.is_some() && !first.detail.is_empty());
    let (status, by_json) = server.post("/v1/explain", &serde_json::to_value(&request).unwrap()).await;
    assert_eq!((status, &by_json["workers"][0]["reason"]), (200, &json!("removed")));
}
