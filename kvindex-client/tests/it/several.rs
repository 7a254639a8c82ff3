//! Several nodes, of which some fail: routing calls go on, and those that fail are left out.

use std::time::{Duration, Instant};

use kvindex_client::{Answer, Client, ClientConfig, ClientStats, EndpointState, Hedge, PromptTokens};
use kvindex_server::Running;

use crate::link::{Link, Way};
use crate::node::{self, PATIENT, store, tokens};

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Real nodes, each alone and with the same content, behind links.
pub(crate) async fn nodes(count: usize) -> (Vec<Running>, Vec<Link>) {
    let (mut nodes, mut links) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (running, direct) = node::start().await;
        store(&direct, "a", 2).await;
        links.push(Link::to(running.local_addr()).await);
        nodes.push(running);
    }
    (nodes, links)
}

/// With timeouts that only a fault reaches.
pub(crate) fn config(links: &[Link]) -> ClientConfig {
    ClientConfig::of(links.iter().map(Link::url))
        .routing_timeout(PATIENT)
        .admin_timeout(PATIENT)
        .probe_interval(Duration::from_millis(100))
        .hedge(Hedge::Off)
}

pub(crate) fn prompt() -> PromptTokens {
    PromptTokens::new("llama", &tokens(32))
}

pub(crate) async fn ask(client: &Client) {
    let answer = client.match_tokens(&prompt()).await;
    assert!(matches!(answer, Answer::Known(_)), "{answer:?}: {:#?}", client.stats());
}

/// Asks until the counts are as wanted.
pub(crate) async fn ask_until(client: &Client, what: &str, is_so: impl Fn(&ClientStats) -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so(&client.stats()) {
        assert!(Instant::now() < deadline, "{what}: {:#?}", client.stats());
        ask(client).await;
    }
}

fn state(stats: &ClientStats, link: &Link) -> EndpointState {
    stats.endpoints.iter().find(|endpoint| endpoint.server == link.url()).unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_spread_and_a_killed_node_costs_no_answer() {
    let (_nodes, links) = nodes(3).await;
    let client = Client::connect(config(&links)).unwrap();
    ask_until(&client, "all are asked", |stats| stats.endpoints.iter().all(|e| e.answered > 5)).await;
    links[1].set(Way::Cut);
    for _ in 0..200 {
        ask(&client).await;
    }
    let left_out = |stats: &ClientStats| state(stats, &links[1]) != EndpointState::Asked;
    ask_until(&client, "the killed one is left out", left_out).await;
    let stats = client.stats();
    let failed = stats.endpoints[1].unavailable;
    assert!(stats.retries >= failed && stats.unknown == 0, "{stats:#?}");
    assert!(failed <= 20, "it is left out, not tried with every call: {stats:#?}");
    let before = stats.endpoints[1].answered;
    links[1].set(Way::Open);
    let answers = |stats: &ClientStats| stats.endpoints[1].answered > before + 5;
    ask_until(&client, "it is asked again", answers).await;
    assert_eq!(state(&client.stats(), &links[1]), EndpointState::Asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_stalled_node_are_answered_by_another() {
    let (_nodes, links) = nodes(3).await;
    let hedged = config(&links).hedge(Hedge::After(Duration::from_millis(100)));
    let client = Client::connect(hedged).unwrap();
    ask_until(&client, "all are asked", |stats| stats.endpoints.iter().all(|e| e.answered > 0)).await;
    links[0].set(Way::Held);
    let began = Instant::now();
    let left_out = |stats: &ClientStats| state(stats, &links[0]) == EndpointState::NotReady;
    ask_until(&client, "the stalled one is left out", left_out).await;
    for _ in 0..100 {
        ask(&client).await;
    }
    let stats = client.stats();
    assert_eq!((stats.unknown, stats.endpoints[0].timed_out), (0, 0), "{stats:#?}");
    assert!(began.elapsed() < SOON, "no call waits for its deadline");
    links[0].set(Way::Open);
    let back = |stats: &ClientStats| state(stats, &links[0]) == EndpointState::Asked;
    ask_until(&client, "it is asked again", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_node_is_asked_seldom() {
    let (_nodes, links) = nodes(2).await;
    let client = Client::connect(config(&links)).unwrap();
    links[0].set(Way::Slow(Duration::from_millis(150)));
    ask_until(&client, "both are known", |stats| stats.endpoints.iter().all(|e| e.answered > 0)).await;
    let before = client.stats();
    for _ in 0..200 {
        ask(&client).await;
    }
    let after = client.stats();
    let asked = |at: usize| after.endpoints[at].answered - before.endpoints[at].answered;
    assert!(asked(0) < 50 && asked(0) + asked(1) == 200, "{} and {}", asked(0), asked(1));
    assert_eq!(state(&after, &links[0]), EndpointState::Asked, "slow is no failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_calls_and_streams_go_to_another_node() {
    let (_nodes, links) = nodes(2).await;
    // No probe knows of it, so that the calls themselves must find out.
    let client = Client::connect(config(&links).probe_interval(SOON * 10)).unwrap();
    let mut stream = client.match_stream();
    let mut ask = async || {
        stream.send((&prompt()).into()).await;
        stream.next().await.unwrap().answer.known().is_some()
    };
    assert!(ask().await);
    for (cut, open) in [(0, 1), (1, 0)] {
        links[open].set(Way::Open);
        links[cut].set(Way::Cut);
        // Until the client has noticed: what was sent on a lost connection may have been done.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..4 {
            let listed = client.list_workers(kvindex_client::v1::ListWorkersRequest::default()).await;
            assert_eq!(listed.unwrap().workers.len(), 1);
            assert!(!client.unregister("nobody").await.unwrap());
        }
        // One question may meet the end of the stream.
        let first = ask().await;
        assert!(ask().await, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_leaves_a_node_that_stalls() {
    let (_nodes, links) = nodes(2).await;
    let client = Client::connect(config(&links).routing_timeout(Duration::from_millis(500))).unwrap();
    let mut stream = client.match_stream();
    let mut ask = async || {
        stream.send((&prompt()).into()).await;
        stream.next().await.unwrap().answer.known().is_some()
    };
    let deadline = Instant::now() + SOON;
    while !ask().await {
        assert!(Instant::now() < deadline, "{:#?}", client.stats());
    }
    let held = client.stats().endpoints.iter().position(|endpoint| endpoint.answered > 0).unwrap();
    links[held].set(Way::Held);
    while !ask().await {
        assert!(Instant::now() < deadline, "{:#?}", client.stats());
    }
    assert!(client.stats().endpoints[1 - held].answered > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_of_a_name_is_an_endpoint() {
    let (running, direct) = node::start().await;
    store(&direct, "a", 2).await;
    let url = format!("http://localhost:{}", running.local_addr().port());
    let config = ClientConfig::new(&url).every_address().routing_timeout(PATIENT).hedge(Hedge::Off);
    let client = Client::connect(config.probe_interval(Duration::from_millis(100))).unwrap();
    let deadline = Instant::now() + SOON;
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], running.local_addr().port()));
    loop {
        let answer = client.match_tokens(&prompt()).await;
        let stats = client.stats();
        let found = stats.endpoints.iter().find(|endpoint| endpoint.address == Some(at));
        if found.is_some_and(|endpoint| endpoint.answered > 0) && answer.known().is_some() {
            assert!(
                stats.endpoints.iter().all(|endpoint| endpoint.server == url && endpoint.address.is_some())
            );
            break;
        }
        assert!(Instant::now() < deadline, "{stats:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
