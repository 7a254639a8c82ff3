//! What a client does to nodes that have enough to do already: breakers, second calls and repeated ones, counted where
//! they arrive.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kvindex_client::{Answer, Client, ClientConfig, EndpointState, Hedge, UnknownReason};
use kvindex_server::config::Config;
use kvindex_server::{App, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::link::Way;
use crate::node::PATIENT;
use crate::several::{SOON, ask_until, config, nodes, prompt};

/// Finished match calls, as the node counts them.
async fn matches_at(node: &Running) -> u64 {
    let mut http = TcpStream::connect(node.local_addr()).await.unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    http.read_to_string(&mut text).await.unwrap();
    let counted = text.lines().filter(|line| line.starts_with("kvindex_api_calls_total{method=\"match\""));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn matches_at_all(nodes: &[Running]) -> u64 {
    join_all(nodes.iter().map(matches_at)).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_answers_at_once_and_closes_again() {
    let (nodes, links) = nodes(1).await;
    let client = Client::connect(config(&links).routing_timeout(Duration::from_millis(500))).unwrap();
    ask_until(&client, "it answers", |stats| stats.endpoints[0].answered > 0).await;
    links[0].set(Way::Held);
    let deadline = Instant::now() + SOON;
    let reason = loop {
        let answer = client.match_tokens(&prompt()).await;
        match answer {
            Answer::Unknown { reason: UnknownReason::Unreachable { reason } } => break reason,
            _ => assert!(Instant::now() < deadline, "{:#?}", client.stats()),
        }
    };
    assert!(reason.contains("no node is left to ask") && reason.contains("no answer in time"), "{reason}");
    let stats = client.stats();
    let timed_out = stats.endpoints[0].timed_out;
    assert!(stats.endpoints[0].state == EndpointState::Broken && timed_out >= 5, "{stats:#?}");
    let (before, began) = (matches_at(&nodes[0]).await, Instant::now());
    for _ in 0..1_000 {
        client.match_tokens(&prompt()).await;
    }
    // A call that tries may be made meanwhile, and takes its deadline.
    assert!(began.elapsed() < SOON && matches_at(&nodes[0]).await - before < 50, "{:?}", began.elapsed());
    assert!(client.stats().endpoints[0].timed_out < timed_out + 50, "{:#?}", client.stats());
    links[0].set(Way::Open);
    let deadline = Instant::now() + SOON;
    while client.match_tokens(&prompt()).await.known().is_none() {
        assert!(Instant::now() < deadline, "{:#?}", client.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.stats().endpoints[0].state, EndpointState::Asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_calls_are_bounded_where_they_arrive() {
    const CALLS: usize = 300;
    let (nodes, links) = nodes(2).await;
    let hedged = config(&links).hedge(Hedge::After(Duration::from_millis(1)));
    let client = Client::connect(hedged).unwrap();
    ask_until(&client, "both are known", |stats| stats.endpoints.iter().all(|e| e.answered > 0)).await;
    links.iter().for_each(|link| link.set(Way::Slow(Duration::from_millis(60))));
    // Nodes count a call a little after its answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, counted) = (client.stats(), matches_at_all(&nodes).await);
    for _ in 0..CALLS / 20 {
        let answers = join_all((0..20).map(|_| client.match_prompt((&prompt()).into()))).await;
        assert!(answers.into_iter().all(|answer| answer.known().is_some()));
    }
    let after = client.stats();
    let hedges = after.hedges - before.hedges;
    // Five in a hundred, and ten that were saved up.
    assert!((5..=25).contains(&hedges), "{hedges} second calls for {CALLS}");
    assert!(after.hedges_refused > before.hedges_refused);
    let repeated = after.retries - before.retries;
    let (deadline, expected) = (Instant::now() + SOON, CALLS as u64 + hedges + repeated);
    // A call that was given up finishes at the node a little later, or is never begun there.
    loop {
        let arrived = matches_at_all(&nodes).await - counted;
        assert!(arrived <= expected, "{arrived} calls arrived, {expected} were made");
        if arrived >= CALLS as u64 {
            break;
        }
        assert!(Instant::now() < deadline, "{arrived} of {expected}");
    }
}

/// SHA-256 of `abc`.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A folder of its own, gone at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvindex-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, text: &str) -> std::path::PathBuf {
        let path = self.0.join(file);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node that knows one token, `abc`.
async fn guarded(folder: &Folder, more: &str) -> Running {
    let entry = format!(
        "[[tokens]]\nname = \"router\"\nsha256 = \"{ABC}\"\nrights = [\"read\"]\ntenants = [\"*\"]\n{more}"
    );
    let mut config = Config::defaults();
    config.drain = Duration::from_millis(500);
    config.access.file = Some(folder.write("access.toml", &entry));
    config.access.metrics_open = true;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    App::start(config, listener).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_calls_are_bounded_when_every_node_refuses() {
    const CALLS: u64 = 500;
    let folder = Folder::new("rates");
    let mut nodes = Vec::new();
    for _ in 0..3 {
        // Next to nothing may be asked: a node that has too much to do refuses in the same way.
        nodes.push(guarded(&folder, "queries_per_s = 1\nburst = 1\n").await);
    }
    let urls = nodes.iter().map(|node| format!("http://{}", node.local_addr()));
    let config = ClientConfig::of(urls).token("abc").routing_timeout(PATIENT).hedge(Hedge::Off);
    let client = Client::connect(config).unwrap();
    for _ in 0..CALLS {
        client.match_tokens(&prompt()).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stats = client.stats();
    let arrived = matches_at_all(&nodes).await;
    // One in ten, and ten that were saved up.
    assert_eq!(arrived, CALLS + stats.retries, "{stats:#?}");
    assert!((20..=60).contains(&stats.retries) && stats.retries_refused > 0, "{stats:#?}");
    assert!(stats.unknown > CALLS / 2, "{stats:#?}");
    let refused_only = stats.endpoints.iter().all(|endpoint| endpoint.state == EndpointState::Asked);
    assert!(refused_only, "a node with too much to do is not broken: {stats:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_listens_is_not_called_again_and_again() {
    const CALLS: u64 = 2_000;
    let (_nodes, links) = nodes(3).await;
    links.iter().for_each(|link| link.set(Way::Cut));
    let client = Client::connect(config(&links)).unwrap();
    for _ in 0..CALLS {
        let answer = client.match_tokens(&prompt()).await;
        assert!(
            matches!(answer, Answer::Unknown { reason: UnknownReason::Unreachable { .. } }),
            "{answer:?}"
        );
    }
    let stats = client.stats();
    let attempts: u64 = stats.endpoints.iter().map(|endpoint| endpoint.unavailable).sum();
    assert!((15..CALLS / 4).contains(&attempts), "{attempts} attempts: {stats:#?}");
    assert_eq!((stats.routing_calls, stats.unknown), (CALLS, CALLS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_from_its_file_again() {
    let folder = Folder::new("token");
    let node = guarded(&folder, "").await;
    let file = folder.write("token", "wrong\n");
    let url = format!("http://{}", node.local_addr());
    let config = ClientConfig::new(&url).token_file(&file).routing_timeout(PATIENT);
    let client = Client::connect(config).unwrap();
    let answer = client.match_tokens(&prompt()).await;
    let refused = matches!(
        &answer,
        Answer::Unknown { reason: UnknownReason::Refused { code, .. } } if code == "unauthenticated"
    );
    assert!(refused, "{answer:?}");
    folder.write("token", "abc\n");
    let deadline = Instant::now() + SOON;
    while client.match_tokens(&prompt()).await.known().is_none() {
        assert!(Instant::now() < deadline, "the new token is not taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let missing = Client::connect(ClientConfig::new(&url).token_file(folder.0.join("none"))).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
    folder.write("token", "\n");
    let empty = Client::connect(ClientConfig::new(url).token_file(file)).unwrap_err();
    assert!(empty.to_string().contains("is empty"), "{empty}");
}
