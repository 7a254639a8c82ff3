//! More questions than can be answered: those that would wait too long are refused, and nothing else is held up.

use kvindex_proto::v1;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Code;

use super::rig::{ALL, Guarded, Way, query, token};

fn long_question() -> v1::MatchRequest {
    let prompt =
        v1::Prompt { model: "llama".into(), token_ids_le: vec![7; 4 << 20].into(), ..v1::Prompt::default() };
    v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn some_questions_are_refused_and_health_and_events_are_not() {
    let node = Guarded::with(&token("root", ALL, "*", ""), |config| {
        config.access.running_queries = 1;
        config.access.query_wait = Duration::from_millis(1);
    })
    .await;
    let worker = json!({"worker_id": "w", "model": "llama"});
    node.call(Way::Grpc, "root", "register", worker).await.unwrap();
    let event = json!({"type": "stored", "block_hashes": [1], "token_ids": [1, 2, 3, 4], "block_size": 4});
    let batch = json!({"worker_id": "w", "generation": 1, "seq": 0, "events": [event]});
    node.call(Way::Grpc, "root", "publish", batch).await.unwrap();

    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let mut client = query(node.channel().await, "root");
        asking.spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            for _ in 0..20 {
                match client.r#match(long_question()).await {
                    Ok(_) => answered += 1,
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        assert!(status.message().contains("max_query_wait_us"), "{status}");
                        assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
                        refused += 1;
                    }
                }
            }
            (answered, refused)
        });
    }
    let mut seq = 1;
    while !asking.is_empty() {
        let began = Instant::now();
        assert_eq!(node.raw("", "GET", "/healthz", "").await.0, 200);
        assert_eq!(node.raw("", "GET", "/readyz", "").await.0, 200);
        let batch = json!({"worker_id": "w", "generation": 1, "seq": seq, "events": []});
        node.call(Way::Http, "root", "publish", batch).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        seq += 1;
        if let Ok(Some(done)) = tokio::time::timeout(Duration::from_millis(20), asking.join_next()).await {
            let (answered, refused) = done.unwrap();
            assert!(answered + refused == 20);
        }
    }
    let refused = node.metric("root", "kvindex_api_refused_total{reason=\"overload\"}").await;
    assert!(refused > 0, "eight at one time are too many for one slot");
    node.call(Way::Http, "root", "match", json!({"prompt": {"model": "m", "token_ids": [1]}})).await.unwrap();
}
