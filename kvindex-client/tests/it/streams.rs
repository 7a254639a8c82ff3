//! Match streams: order, refusals in between, a node that restarts, a node that never answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kvindex_client::{
    Answer, Client, ClientConfig, EndpointState, PromptHashes, PromptTokens, UnknownReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fail_open::{SHORT, hasty, silent_node};
use crate::link::{Link, Way};
use crate::node::{self, blocks, store, tokens};
use crate::several::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_order_and_a_refusal_does_not_end_the_stream() {
    let (_running, client) = node::start().await;
    store(&client, "a", 3).await;
    let mut stream = client.match_stream();
    assert_eq!(stream.next().await, None);
    for blocks in 1..=3 {
        let id = stream.send((&PromptTokens::new("llama", &tokens(blocks * 16))).into()).await;
        assert_eq!(id, u64::from(blocks) - 1);
    }
    stream.send((&PromptHashes::engine("llama", 0, vec![1])).into()).await;
    stream.send((&PromptTokens::new("llama", &tokens(16))).into()).await;
    assert_eq!(stream.unanswered(), 5);
    for (id, expected) in [(0, Some(1)), (1, Some(2)), (2, Some(3)), (3, None), (4, Some(1))] {
        let answered = stream.next().await.unwrap();
        assert_eq!(answered.id, id);
        let held = answered.answer.known().map(|answer| blocks(&answer)[0].1);
        assert_eq!(held, expected, "question {id}");
    }
    assert_eq!(stream.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_questions_than_the_queues_hold_are_all_answered() {
    let (_running, client) = node::start().await;
    store(&client, "a", 1).await;
    let mut stream = client.match_stream();
    let prompt = PromptTokens::new("llama", &tokens(16));
    for _ in 0..100 {
        stream.send((&prompt).into()).await;
    }
    let mut known = 0;
    while let Some(answered) = stream.next().await {
        known += u64::from(answered.answer.known().is_some());
    }
    assert_eq!(known, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_its_node() {
    let (running, client) = node::start().await;
    let address = running.local_addr();
    let prompt = PromptTokens::new("llama", &tokens(16));
    let mut stream = client.match_stream();
    stream.send((&prompt).into()).await;
    assert!(stream.next().await.unwrap().answer.known().is_some());
    running.shutdown().await.unwrap();
    stream.send((&prompt).into()).await;
    let answered = stream.next().await.unwrap();
    assert!(
        matches!(answered.answer, Answer::Unknown { reason: UnknownReason::Unreachable { .. } }),
        "{answered:?}"
    );
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let again =
        kvindex_server::App::start(kvindex_server::config::Config::defaults(), listener).await.unwrap();
    // The first question may find the rest of the old connection.
    for attempt in 0.. {
        stream.send((&prompt).into()).await;
        if stream.next().await.unwrap().answer.known().is_some() {
            break;
        }
        assert!(attempt < 5, "the stream did not come back");
    }
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_not_taken_for_a_later_questions() {
    let (running, direct) = node::start().await;
    store(&direct, "a", 3).await;
    let (hold, address) = proxy(running.local_addr()).await;
    let config = ClientConfig::new(format!("http://{address}")).routing_timeout(Duration::from_millis(400));
    let mut stream = Client::connect(config).unwrap().match_stream();
    let asked = |blocks: u32| PromptTokens::new("llama", &tokens(blocks * 16));
    stream.send((&asked(1)).into()).await;
    assert!(stream.next().await.unwrap().answer.known().is_some());
    hold.send_replace(true);
    stream.send((&asked(2)).into()).await;
    let answered = stream.next().await.unwrap();
    assert!(matches!(answered.answer, Answer::Unknown { reason: UnknownReason::TimedOut { .. } }));
    hold.send_replace(false);
    let id = stream.send((&asked(3)).into()).await;
    let answered = stream.next().await.unwrap();
    assert_eq!((answered.id, answered.answer.known().unwrap().prompt_tokens), (id, 48));
}

/// Forwards to `node`, and holds back what the node says while it is told so.
async fn proxy(node: SocketAddr) -> (watch::Sender<bool>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (hold, mut held) = watch::channel(false);
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(node).await.unwrap();
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
        let back = async {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from_far.read(&mut bytes).await {
                if held.wait_for(|held| !*held).await.is_err() {
                    return;
                }
                to_near.write_all(&bytes[..count]).await.unwrap();
            }
        };
        let _ = tokio::join!(tokio::io::copy(&mut from_near, &mut to_far), back);
    });
    (hold, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_costs_one_deadline_for_each_question() {
    let (_held, address) = silent_node().await;
    let mut stream = hasty(&address).match_stream();
    let started = Instant::now();
    let id = stream.send((&PromptTokens::new("llama", &tokens(16))).into()).await;
    let answered = stream.next().await.unwrap();
    assert_eq!(answered.id, id);
    assert!(matches!(answered.answer, Answer::Unknown { reason: UnknownReason::TimedOut { .. } }));
    assert!(started.elapsed() < SHORT * 5, "took {:?}", started.elapsed());
    assert_eq!(stream.next().await, None);
}

/// Found by a review: the time until the caller read an answer was taken for the node's, and a caller that came after
/// the deadline broke the node's circuit.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_reads_late_does_not_count_against_the_node() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    const LATE: Duration = Duration::from_secs(1);
    let (running, direct) = node::start().await;
    store(&direct, "a", 1).await;
    let link = Link::to(running.local_addr()).await;
    let client = Client::connect(ClientConfig::new(link.url()).routing_timeout(TIMEOUT)).unwrap();
    let mut stream = client.match_stream();
    let prompt = PromptTokens::new("llama", &tokens(16));
    let deadline = Instant::now() + SOON;
    loop {
        stream.send((&prompt).into()).await;
        if stream.next().await.unwrap().answer.known().is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "{:#?}", client.stats());
    }
    let before = client.stats().endpoints.remove(0);
    stream.send((&prompt).into()).await;
    tokio::time::sleep(LATE).await;
    assert!(stream.next().await.unwrap().answer.known().is_some(), "it lay here");
    let read = client.stats().endpoints.remove(0);
    assert_eq!((read.answered, read.buckets), (before.answered + 1, before.buckets));
    assert!(read.latency < Some(LATE), "{read:#?}");
    link.set(Way::Held);
    for _ in 0..8 {
        stream.send((&prompt).into()).await;
    }
    tokio::time::sleep(LATE).await;
    for _ in 0..8 {
        assert!(stream.next().await.unwrap().answer.known().is_none());
    }
    let after = client.stats().endpoints.remove(0);
    assert_eq!((after.timed_out, after.state), (before.timed_out, EndpointState::Asked), "nobody waited");
}
