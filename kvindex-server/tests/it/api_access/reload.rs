//! The access file changes while the node runs.

use serde_json::json;
use std::time::Duration;

use super::rig::{ALL, Guarded, Way, token};

/// The file is looked at every two seconds.
const SOON: u64 = 100;

async fn until<T: PartialEq + std::fmt::Debug>(wanted: T, mut look: impl AsyncFnMut() -> T) {
    for attempt in 0.. {
        let found = look().await;
        if found == wanted {
            return;
        }
        assert!(attempt < SOON, "{found:?} is not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn status(node: &Guarded, token: &str) -> u16 {
    node.raw(token, "GET", "/v1/workers", "").await.0
}

async fn reloads(node: &Guarded, result: &str) -> u64 {
    node.metric("root", &format!("kvindex_access_reloads_total{{result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_takes_effect_and_a_wrong_one_does_not() {
    let root = token("root", ALL, "*", "");
    let node = Guarded::start(&[root.clone(), token("old", "read", "*", "")].concat()).await;
    assert_eq!((status(&node, "old").await, status(&node, "new").await), (200, 401));
    assert_eq!(reloads(&node, "taken").await, 0, "the file of the start is no change");

    node.file.write(&[root.clone(), token("new", "read", "*", "")].concat());
    until(200, async || status(&node, "new").await).await;
    assert_eq!((status(&node, "old").await, reloads(&node, "taken").await), (401, 1));
    let (_, _, text) = node.raw("root", "GET", "/metrics", "").await;
    assert!(
        text.contains("token=\"new\"") && !text.contains("token=\"old\""),
        "gone with its token:\n{text}"
    );

    for (wrongs, wrong) in ["[[tokens]]\nname = 1\n", "no toml", ""].into_iter().enumerate() {
        // An empty file has no tokens: nobody could ever mend it through this node, but it is not wrong.
        if wrong.is_empty() {
            continue;
        }
        node.file.write(wrong);
        until(wrongs as u64 + 1, async || reloads(&node, "refused").await).await;
        assert_eq!((status(&node, "new").await, status(&node, "root").await), (200, 200));
    }
    std::fs::remove_file(&node.file.path).unwrap();
    until(3, async || reloads(&node, "refused").await).await;
    assert_eq!(status(&node, "new").await, 200);
    node.file.write(&root);
    until(401, async || status(&node, "new").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_gives_nothing_used_up_back() {
    let root = token("root", ALL, "*", "");
    let limited = token("limited", "read", "*", "queries_per_s = 1\nburst = 1000");
    let node = Guarded::start(&[root.clone(), limited.clone()].concat()).await;
    let batch = |questions: usize| json!({"requests": vec![json!({"prompt": {"model": "m", "token_ids": [1]}}); questions]});
    for _ in 0..4 {
        node.call(Way::Grpc, "limited", "match_batch", batch(250)).await.unwrap();
    }
    node.file.write(&[root, limited, token("new", "read", "*", "")].concat());
    until(200, async || status(&node, "new").await).await;
    let refusal = node.call(Way::Grpc, "limited", "match_batch", batch(250)).await.unwrap_err();
    assert_eq!(refusal.code, "resource_exhausted");
}
