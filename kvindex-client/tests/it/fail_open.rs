//! Routing calls end in time with an unknown answer, whatever is at the other end.

use std::time::{Duration, Instant};

use kvindex_client::{
    Answer, CallError, Client, ClientConfig, ConnectError, PromptTokens, UnknownReason, v1,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const SHORT: Duration = Duration::from_millis(60);

/// Accepts connections, holds them and never says anything.
pub(crate) async fn silent_node() -> (JoinHandle<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let held = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    (held, address)
}

pub(crate) fn hasty(address: &str) -> Client {
    let config = ClientConfig::new(format!("http://{address}"));
    Client::connect(config.routing_timeout(SHORT).admin_timeout(SHORT)).unwrap()
}

/// An address where nothing listens.
async fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

fn prompt() -> PromptTokens {
    PromptTokens::new("llama", &[1, 2, 3])
}

/// Found by a review: times that no clock can add made every call panic.
#[tokio::test]
async fn the_longest_times_there_are_are_taken() {
    let longest = ClientConfig::new(format!("http://{}", nowhere().await))
        .routing_timeout(Duration::MAX)
        .admin_timeout(Duration::MAX)
        .speculative_ttl(Duration::MAX)
        .hedge(kvindex_client::Hedge::After(Duration::MAX));
    let client = Client::connect(longest).unwrap();
    let answer = client.match_tokens(&prompt()).await;
    assert!(matches!(answer, Answer::Unknown { reason: UnknownReason::Unreachable { .. } }), "{answer:?}");
    let routed = client.routed(prompt().message(), &v1::WorkerMatch::default());
    client.not_routed(routed);
    assert!(client.explain(v1::ExplainRequest::default()).await.is_err());
}

#[tokio::test]
async fn nothing_listens() {
    let client = hasty(&nowhere().await);
    let Answer::Unknown { reason } = client.match_tokens(&prompt()).await else { panic!("known") };
    assert!(matches!(reason, UnknownReason::Unreachable { .. }), "{reason:?}");
    assert!(reason.to_string().contains("refused"), "{reason}");
    let answers = client.match_batch(vec![(&prompt()).into(), (&prompt()).into()]).await;
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Unknown { .. })));
    let mut stream = client.match_stream();
    let id = stream.send((&prompt()).into()).await;
    let answered = stream.next().await.unwrap();
    assert_eq!(answered.id, id);
    assert!(matches!(answered.answer, Answer::Unknown { .. }));
}

#[tokio::test]
async fn a_listener_that_never_answers_costs_one_deadline() {
    let (_held, address) = silent_node().await;
    let client = hasty(&address);
    for _ in 0..3 {
        let started = Instant::now();
        let answer = client.match_tokens(&prompt()).await;
        let took = started.elapsed();
        assert_eq!(answer, Answer::Unknown { reason: UnknownReason::TimedOut { after: SHORT } });
        assert!(took >= SHORT && took < SHORT * 5, "took {took:?}");
    }
    let started = Instant::now();
    let answers = client.match_batch(vec![(&prompt()).into(); 3]).await;
    assert!(answers.iter().all(|answer| answer.clone().known().is_none()) && answers.len() == 3);
    assert!(started.elapsed() < SHORT * 5);
}

#[tokio::test]
async fn a_listener_that_speaks_no_grpc_is_unknown_too() {
    use tokio::io::AsyncWriteExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let garbage = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let answer = hasty(&address).match_tokens(&prompt()).await;
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
    garbage.abort();
}

#[tokio::test]
async fn the_default_deadline_is_20_ms() {
    assert_eq!(kvindex_client::DEFAULT_ROUTING_TIMEOUT, Duration::from_millis(20));
    let (_held, address) = silent_node().await;
    let client = Client::connect(ClientConfig::new(format!("http://{address}"))).unwrap();
    let Answer::Unknown { reason } = client.match_tokens(&prompt()).await else { panic!("known") };
    assert_eq!(reason, UnknownReason::TimedOut { after: Duration::from_millis(20) });
    assert_eq!(reason.to_string(), "no answer within 20 ms");
}

#[tokio::test]
async fn admin_calls_say_why_and_whether_to_retry() {
    let error = hasty(&nowhere().await).unregister("a").await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    let (_held, address) = silent_node().await;
    let error = hasty(&address).list_workers(v1::ListWorkersRequest::default()).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { after: SHORT }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn malformed_addresses_are_refused_at_once() {
    for server in ["", "127.0.0.1:9590", "https://index:9590", "http://", "not an address"] {
        let error = Client::connect(ClientConfig::new(server)).unwrap_err();
        assert!(matches!(&error, ConnectError::Address { server: named, .. } if named == server), "{error}");
        assert!(error.to_string().contains("http://127.0.0.1:9590"), "{error}");
    }
}

/// Found by a review: a client without any address was made, and every call of it said that no node is left.
#[tokio::test]
async fn no_address_at_all_is_refused_at_once() {
    let error = Client::connect(ClientConfig::of(Vec::<String>::new())).unwrap_err();
    assert_eq!(error, ConnectError::NoServer);
    assert!(error.to_string().starts_with("servers: none is named"), "{error}");
}

#[test]
fn without_a_runtime_connect_says_so() {
    let error = Client::connect(ClientConfig::new("http://127.0.0.1:1")).unwrap_err();
    assert_eq!(error, ConnectError::NoRuntime);
}
