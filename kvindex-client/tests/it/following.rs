//! Watches that outlive their node, and prompts that count where they were routed to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use kvindex_client::{Client, ClientConfig, Followed, Follower, ResyncReason, SPECULATIVE, v1};
use kvindex_server::Running;
use tokio::net::TcpListener;

use crate::link::{Link, Way};
use crate::node::{self, BLOCK, PATIENT, client_of, store, tokens, worker};
use crate::several::{SOON, config, nodes, prompt};

async fn next(follower: &mut Follower) -> Followed {
    tokio::time::timeout(SOON, follower.next()).await.expect("nothing is told").unwrap()
}

async fn resync(follower: &mut Follower) -> (String, ResyncReason) {
    loop {
        if let Followed::Resync { server, reason } = next(follower).await {
            return (server, reason);
        }
    }
}

/// Registers another worker directly at a node.
async fn register_at(node: &Running, worker_id: &str) {
    client_of(&node.local_addr().to_string()).register(worker(worker_id)).await.unwrap();
}

async fn hears_of(follower: &mut Follower, worker_id: &str) {
    loop {
        if matches!(next(follower).await, Followed::Change(change) if change.worker_id == worker_id) {
            return;
        }
    }
}

fn watched(links: &[Link], server: &str) -> usize {
    links.iter().position(|link| link.url() == server).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_node_and_says_that_something_may_be_lost() {
    let (nodes, links) = nodes(2).await;
    let client = Client::connect(config(&links)).unwrap();
    let mut follower = client.follow(v1::WatchRequest::default());
    let (server, reason) = resync(&mut follower).await;
    assert_eq!(reason, ResyncReason::Began);
    let first = watched(&links, &server);
    register_at(&nodes[first], "early").await;
    hears_of(&mut follower, "early").await;
    for way in [Way::Cut, Way::Held] {
        let at = if way == Way::Cut { first } else { 1 - first };
        links[at].set(way);
        let (server, reason) = resync(&mut follower).await;
        assert!(matches!(&reason, ResyncReason::Interrupted { how } if !how.is_empty()), "{reason:?}");
        assert_eq!(watched(&links, &server), 1 - at);
        let late = format!("late-{at}");
        register_at(&nodes[1 - at], &late).await;
        hears_of(&mut follower, &late).await;
        links[at].set(Way::Open);
        // Until both are asked again.
        let deadline = Instant::now() + SOON;
        while client.stats().endpoints.iter().any(|endpoint| endpoint.left_out.is_some()) {
            assert!(Instant::now() < deadline, "{:#?}", client.stats());
            client.match_tokens(&prompt()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_waits_for_its_only_node() {
    let (nodes, links) = nodes(1).await;
    let client = Client::connect(config(&links)).unwrap();
    links[0].set(Way::Cut);
    let mut follower = client.follow(v1::WatchRequest::default());
    assert!(tokio::time::timeout(Duration::from_millis(300), follower.next()).await.is_err());
    links[0].set(Way::Open);
    assert_eq!(resync(&mut follower).await.1, ResyncReason::Began);
    register_at(&nodes[0], "b").await;
    hears_of(&mut follower, "b").await;
}

/// Found by a review: a watch that ended as soon as it began was begun again at once, and again.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_at_once_are_begun_less_and_less_often() {
    // As of a proxy that lets no stream last.
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let end = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready([("content-type", "application/grpc"), ("grpc-status", "0")])
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_of(&listener.local_addr().unwrap().to_string());
    let routes = Router::new().route("/kvindex.v1.QueryService/Watch", post(end));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let mut follower = client.follow(v1::WatchRequest::default());
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_500) {
        // Who gives up waiting and comes back does not shorten the pause.
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(20), follower.next()).await {
            assert!(matches!(told.unwrap(), Followed::Resync { .. }));
        }
    }
    let begun = begun.load(Ordering::Relaxed);
    assert!((2..=8).contains(&begun), "{begun} watches in 1.5 s");
}

/// What a match says of a worker: blocks, and whether it is speculative.
async fn held(client: &Client, worker_id: &str) -> (u64, bool) {
    let answer = client.match_tokens(&prompt()).await.known().unwrap();
    let found = answer.workers.iter().find(|worker| worker.worker_id == worker_id).unwrap();
    (found.matched_blocks, found.doubts.iter().any(|doubt| doubt == SPECULATIVE))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_prompt_counts_until_the_engine_speaks() {
    let (_running, client) = node::start().await;
    store(&client, "a", 1).await;
    client.register(worker("b")).await.unwrap();
    let answer = client.match_tokens(&prompt()).await.known().unwrap();
    let to = answer.workers.iter().find(|worker| worker.worker_id == "b").unwrap();
    client.routed(prompt().message(), to);
    assert_eq!(held(&client, "b").await, (2, true));
    let best = v1::MatchRequest { top_k: Some(1), ..(&prompt()).into() };
    let batch = client.match_batch(vec![best.clone(), best.clone()]).await;
    let mut stream = client.match_stream();
    stream.send(best).await;
    let streamed = stream.next().await.unwrap().answer;
    for answer in batch.into_iter().chain([streamed]) {
        let answer = answer.known().unwrap();
        assert_eq!(node::blocks(&answer), [("b", 2)]);
        assert!(answer.workers[0].ambiguous);
    }
    push(&client, 0, &[stored(2)]).await;
    assert_eq!(held(&client, "b").await, (2, false));
    let removed = v1::PublishEvent {
        r#type: "removed".into(),
        block_hashes: vec![500, 501],
        ..v1::PublishEvent::default()
    };
    push(&client, 1, &[removed]).await;
    assert_eq!(held(&client, "b").await, (0, false), "the engine's word counts, and it is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_prompt_expires_or_is_taken_back() {
    let (running, direct) = node::start().await;
    store(&direct, "a", 1).await;
    let config = ClientConfig::new(format!("http://{}", running.local_addr())).routing_timeout(PATIENT);
    let brief = Client::connect(config.clone().speculative_ttl(Duration::from_millis(200))).unwrap();
    let answer = brief.match_tokens(&prompt()).await.known().unwrap();
    brief.routed(prompt().message(), &answer.workers[0]);
    let deadline = Instant::now() + SOON;
    while held(&brief, "a").await != (1, false) {
        assert!(Instant::now() < deadline, "it does not expire");
    }
    assert_eq!(brief.stats().speculative_prompts, 0);
    let long = Client::connect(config.speculative_ttl(SOON * 10)).unwrap();
    let routed = long.routed(prompt().message(), &answer.workers[0]);
    assert_eq!(held(&long, "a").await, (2, true));
    assert_eq!(held(&brief, "a").await, (1, false), "it is one client's");
    long.clone().not_routed(routed);
    assert_eq!(held(&long, "a").await, (1, false));
}

fn stored(blocks: u32) -> v1::PublishEvent {
    v1::PublishEvent {
        r#type: "stored".into(),
        block_hashes: (0..u64::from(blocks)).map(|i| 500 + i).collect(),
        token_ids: tokens(blocks * BLOCK),
        block_size: BLOCK,
        ..v1::PublishEvent::default()
    }
}

async fn push(client: &Client, seq: u64, events: &[v1::PublishEvent]) {
    let batch = v1::PublishRequest {
        worker_id: "b".into(),
        generation: 1,
        seq,
        events: events.to_vec(),
        ..v1::PublishRequest::default()
    };
    client.publish(batch).await.unwrap();
}
