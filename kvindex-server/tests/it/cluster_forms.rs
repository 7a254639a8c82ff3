//! Three nodes found a cluster, and every one of them takes changes and gives the same answers.

use kvindex_proto::v1;
use serde_json::json;
use tonic::Code;

use crate::api_server::{batch, blocks, prompt, removed, stored, tokens, worker};
use crate::cluster_rig::{Rig, SHARDS};

/// A match at a level.
async fn ask(
    rig: &mut Rig,
    seat: usize,
    count: u32,
    consistency: &str,
) -> Result<v1::MatchResponse, tonic::Status> {
    let request = v1::MatchRequest {
        prompt: Some(prompt(tokens(count))),
        consistency: consistency.into(),
        report_applied: true,
        ..v1::MatchRequest::default()
    };
    rig.node(seat).query.r#match(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_found_one_cluster_and_are_ready_only_then() {
    let mut rig = Rig::of(3);
    rig.start(0).await;
    rig.start(1).await;
    // Two of three: nobody belongs to anything yet, and everybody says so.
    rig.wait("two nodes see each other", |rig| {
        let waits = |seat| rig.waits_for(seat).contains("2 of 3 nodes");
        waits(0) && waits(1)
    })
    .await;
    let (code, text) = rig.node(0).http("GET", "/readyz", "").await;
    assert!(code == 503 && text.contains("2 of 3 nodes"), "{code} {text}");
    assert_eq!(rig.node(0).http("GET", "/healthz", "").await.0, 200);
    let refused = rig.node(0).ingest.register(worker("a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("not joined"), "{refused}");
    let status = rig.status(0).await;
    assert!(status.cluster_id.is_empty() && status.waits_for.contains("2 of 3 nodes"), "{status:?}");
    rig.start(2).await;
    rig.wait_ready().await;
    rig.wait_members(&[(1, true), (2, true), (3, true)]).await;
    rig.wait_equal().await;
    let statuses = [rig.status(0).await, rig.status(1).await, rig.status(2).await];
    assert_eq!(statuses[0].cluster_id.len(), 32);
    for status in &statuses {
        assert_eq!(status.cluster_id, statuses[0].cluster_id);
        assert_eq!(status.nodes, statuses[0].nodes);
        assert_eq!((status.shards.len(), status.waits_for.as_str()), (usize::from(SHARDS), ""));
        let (code, body) = rig.node(0).http("GET", "/v1/cluster", "").await;
        let body: v1::ClusterStatusResponse = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &body.nodes), (200, &status.nodes));
    }
    let ids: Vec<u64> = statuses.iter().map(|status| status.node_id).collect();
    assert_eq!([1, 2, 3].map(|id| ids.iter().filter(|found| **found == id).count()), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_changes_and_every_node_answers() {
    let mut rig = Rig::founded().await;
    // Workers of every shard, each registered and fed through each node in turn.
    for number in 0..9 {
        let (name, seat) = (format!("w{number}"), number % 3);
        rig.node(seat).register(&name).await;
        // A publish that was acknowledged is seen at once by whoever asks for it, anywhere.
        rig.node((seat + 1) % 3).push(&name, 0, vec![stored(3)]).await;
        let answer = ask(&mut rig, (seat + 2) % 3, 48, "linearizable").await.unwrap();
        let held = blocks(&answer).into_iter().find(|(worker, _)| *worker == name);
        assert_eq!(held, Some((name.as_str(), 3)));
        let freshness = answer.freshness.unwrap();
        assert_eq!(freshness.applied.len(), usize::from(SHARDS));
        assert!(freshness.age_ms.is_some_and(|age| age < 5000), "{freshness:?}");
    }
    rig.wait_equal().await;
    for seat in 0..3 {
        for level in ["", "local", "lease"] {
            let answer = ask(&mut rig, seat, 48, level).await.unwrap();
            assert!(blocks(&answer).iter().all(|(_, held)| *held == 3), "{level}: {answer:?}");
            assert_eq!(answer.workers.len(), 9);
        }
        let status = ask(&mut rig, seat, 48, "nonsense").await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("consistency: must be local, lease or linearizable"), "{status}");
    }
    // Forgotten through one node, gone from all.
    let gone = v1::UnregisterRequest { worker_id: "w4".into() };
    assert!(rig.node(2).ingest.unregister(gone.clone()).await.unwrap().into_inner().removed);
    assert!(!rig.node(0).ingest.unregister(gone).await.unwrap().into_inner().removed);
    let answer = ask(&mut rig, 1, 48, "linearizable").await.unwrap();
    assert!(answer.workers.len() == 8 && blocks(&answer).iter().all(|(worker, _)| *worker != "w4"));
}

/// What `tests/it/api_publish.rs` says of a node alone, through every node of a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_those_of_a_node_alone() {
    let mut rig = Rig::founded().await;
    rig.node(0).register("a").await;
    for seat in 0..3 {
        let seen = ask(&mut rig, seat, 16, "linearizable").await.unwrap();
        assert_eq!(blocks(&seen), [("a", 0)]);
        let status = rig.node(seat).ingest.publish(batch("a", 1, 5, vec![])).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("expected 0"), "{status}");
        let status = rig.node(seat).ingest.publish(batch("nobody", 1, 0, vec![])).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
    }
    rig.node(1).push("a", 0, vec![stored(2)]).await;
    rig.node(2).push("a", 1, vec![stored(2)]).await;
    for seat in 0..3 {
        let again =
            rig.node(seat).ingest.publish(batch("a", 1, 1, vec![stored(2)])).await.unwrap().into_inner();
        assert_eq!((again.applied_seq, again.duplicate), (1, true));
        let gap = json!({"worker_id": "a", "generation": 1, "seq": 3});
        let (code, body) = rig.node(seat).post("/v1/publish", &gap).await;
        assert_eq!((code, &body["error"]["field"]), (412, &json!("seq")));
        assert!(body["error"]["message"].as_str().unwrap().contains("expected 2"), "{body}");
    }
    // Two copies were stored, however often the batch was sent.
    rig.node(0).push("a", 2, vec![removed(&[100, 101])]).await;
    assert_eq!(blocks(&ask(&mut rig, 1, 32, "linearizable").await.unwrap()), [("a", 2)]);
    rig.node(1).ingest.publish(batch("a", 2, 0, vec![stored(1)])).await.unwrap();
    for seat in 0..3 {
        assert_eq!(blocks(&ask(&mut rig, seat, 32, "linearizable").await.unwrap()), [("a", 1)]);
        let status = rig.node(seat).ingest.publish(batch("a", 1, 3, vec![])).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().starts_with("generation: "), "{status}");
        // A definition that differs is refused, wherever it is handed in.
        let other = v1::RegisterRequest { model: "qwen".into(), ..worker("a") };
        let status = rig.node(seat).ingest.register(other).await.unwrap_err();
        assert!(status.message().starts_with("worker_id: "), "{status}");
    }
}
