//! Which prefixes are asked for most, over both transports.

use kvindex_proto::v1;
use serde_json::{Value, json};

use crate::api_server::{BLOCK, Server, batch, prompt, stored, tokens, worker};

/// The first `shared` blocks of what workers hold, then two that only this prompt has.
fn going_on(shared: u32, number: u32) -> v1::Prompt {
    let own = (0..2 * BLOCK).map(|i| 1_000_000 + number * 1000 + i);
    prompt(tokens(shared * BLOCK).into_iter().chain(own).collect())
}

async fn hot(server: &Server, query: &str) -> Value {
    let (status, text) = server.http("GET", &["/v1/hot", query].concat(), "").await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Blocks and holders of each.
fn told(answer: &Value) -> Vec<(u64, u64)> {
    let prefixes = answer["prefixes"].as_array().unwrap().iter();
    prefixes.map(|p| (p["blocks"].as_u64().unwrap(), p["held_by"].as_u64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_that_prompts_share_is_told_with_who_holds_it() {
    let mut server = Server::start().await;
    for (name, blocks) in [("a", 6), ("b", 6), ("c", 9)] {
        server.register(name).await;
        server.push(name, 0, vec![stored(blocks)]).await;
    }
    assert_eq!(hot(&server, "").await, json!({"prefixes": [], "questions_per_s": 0.0}), "nobody has asked");
    for number in 0..8 {
        server.find(going_on(6, number)).await;
    }
    server.find(going_on(9, 8)).await;
    server.find(prompt(vec![7; 64])).await;
    // Asking why is no question of a router.
    let why = v1::ExplainRequest { prompt: Some(going_on(6, 9)), ..v1::ExplainRequest::default() };
    server.query.explain(why).await.unwrap();

    let answer = hot(&server, "").await;
    assert_eq!(told(&answer), [(6, 3), (9, 1)], "{answer}");
    let first = &answer["prefixes"][0];
    assert!((first["share"].as_f64().unwrap() - 0.9).abs() < 0.01, "nine of ten: {answer}");
    assert_eq!((&first["tokens"], &first["block_size"]), (&json!(96), &json!(16)), "{answer}");
    assert_eq!((&first["tenant"], &first["model"]), (&json!("default"), &json!("llama")), "{answer}");
    assert!(answer["questions_per_s"].as_f64().unwrap() > 0.1, "{answer}");
    // It is the hash by which the index and `watch` name the sixth block.
    let by_hash =
        v1::Prompt { sequence_hashes: hashes_of(&server).await, block_size: BLOCK, ..prompt(Vec::new()) };
    assert_eq!(by_hash.sequence_hashes.get(5), first["sequence_hash"].as_u64().as_ref(), "{answer}");
    assert_eq!(server.find(by_hash).await.workers[0].matched_blocks, 9);

    let request = v1::HotPrefixesRequest { limit: Some(1), ..v1::HotPrefixesRequest::default() };
    let by_grpc = server.query.hot_prefixes(request).await.unwrap().into_inner();
    assert_eq!(by_grpc.prefixes.iter().map(|hot| hot.blocks).collect::<Vec<_>>(), [6]);
    // The one that was watched holds it too, by now.
    assert_eq!(told(&hot(&server, "?limit=1&tenant=default&model=llama").await), [(6, 4)]);
    for none in ["?model=other", "?tenant=other"] {
        assert!(told(&hot(&server, none).await).is_empty(), "{none}");
    }
}

/// The sequence hashes of the longest chain, as whoever watches is told of it.
async fn hashes_of(server: &Server) -> Vec<u64> {
    let mut query = server.query.clone();
    let mut events = query.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let mut ingest = server.ingest.clone();
    ingest.register(worker("watched")).await.unwrap();
    ingest.publish(batch("watched", 1, 0, vec![stored(9)])).await.unwrap();
    loop {
        let event = events.message().await.unwrap().unwrap();
        if event.kind == "stored" {
            return event.sequence_hashes;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_beyond_what_is_counted_is_refused_and_named() {
    let server = Server::start().await;
    let (status, text) = server.http("GET", "/v1/hot?limit=257", "").await;
    assert!(status == 413 && text.contains("limit: 257 prefixes, the limit is 256"), "{status} {text}");
    let (status, text) = server.http("GET", "/v1/hot?limt=1", "").await;
    assert!(status == 400 && text.contains("limt"), "{status} {text}");
}
