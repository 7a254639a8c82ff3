//! Clients that are slow on purpose, over real sockets: each ends, or holds a bounded part of the node.

use axum::body::{Body, Bytes};
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kvindex_server::config::Config;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rig::{ALL, Guarded, Way, token};

const BODY_TIMEOUT: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(20);

async fn node(change: impl FnOnce(&mut Config)) -> Guarded {
    Guarded::with(&token("root", ALL, "*", ""), |config| {
        config.access.body_timeout = BODY_TIMEOUT;
        change(config);
    })
    .await
}

/// An HTTP/2 connection that lets the server send so many bytes of each answer.
async fn connect(node: &Guarded, window: u32) -> http2::SendRequest<Body> {
    let socket = TcpStream::connect(node.server.running.local_addr()).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(path: &str, content_type: &str, body: Body) -> Request<Body> {
    let request = Request::post(format!("http://node{path}")).header("authorization", "Bearer root");
    request.header("content-type", content_type).header("te", "trailers").body(body).unwrap()
}

fn grpc_status<T>(response: &Response<T>) -> Option<&str> {
    response.headers().get("grpc-status").map(|value| value.to_str().unwrap())
}

/// A byte of something now and then, for ever.
fn dripping() -> Body {
    // Of a gRPC message of 256 bytes, or of JSON's white space.
    let bytes = [0u8, 0, 0, 1, 0].into_iter().chain(std::iter::repeat(b' '));
    let stream = futures_util::stream::unfold(bytes, async |mut bytes| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let byte = bytes.next()?;
        Some((Ok::<_, std::io::Error>(Bytes::from(vec![byte])), bytes))
    });
    Body::from_stream(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_ends_by_http1() {
    let node = node(|_| {}).await;
    let mut socket = TcpStream::connect(node.server.running.local_addr()).await.unwrap();
    let head =
        "POST /v1/match HTTP/1.1\r\nhost: x\r\nauthorization: Bearer root\r\ncontent-length: 1000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let began = Instant::now();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !String::from_utf8_lossy(&answer).contains("body_timeout_ms") {
        let read = timeout(PATIENCE, reader.read(&mut chunk)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("deadline_exceeded"), "{answer}");
    assert!(began.elapsed() >= BODY_TIMEOUT, "{:?}", began.elapsed());
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_ends_by_http2_and_grpc() {
    let node = node(|_| {}).await;
    let mut connection = connect(&node, 65_535).await;
    let request = post("/v1/match", "application/json", dripping());
    let response = timeout(PATIENCE, connection.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    let request = post("/kvindex.v1.QueryService/Match", "application/grpc", dripping());
    let response = timeout(PATIENCE, connection.send_request(request)).await.unwrap().unwrap();
    assert_eq!((response.status(), grpc_status(&response)), (StatusCode::OK, Some("4")), "{response:?}");
    let request = post("/kvindex.v1.QueryService/MatchStream", "application/grpc", dripping());
    let response = timeout(PATIENCE, connection.send_request(request)).await.unwrap().unwrap();
    // The head of a stream's answer comes first; the end says why.
    let mut body = Body::new(response.into_body());
    let trailers = loop {
        let frame = timeout(PATIENCE, http_frame(&mut body)).await.unwrap();
        if let Ok(trailers) = frame.expect("an end with trailers").into_trailers() {
            break trailers;
        }
    };
    assert_eq!(trailers["grpc-status"], "4", "{trailers:?}");
}

async fn http_frame(body: &mut Body) -> Option<hyper::body::Frame<Bytes>> {
    use hyper::body::Body as _;
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await.map(Result::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_may_rest_between_its_questions() {
    use kvindex_proto::v1;
    let node = node(|_| {}).await;
    let prompt = v1::Prompt { model: "llama".into(), token_ids: vec![1], ..v1::Prompt::default() };
    let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
    let ask = move |id| v1::MatchStreamRequest { id, request: Some(request.clone()) };
    let rest = BODY_TIMEOUT * 2;
    let questions = async_stream(rest, ask);
    let mut client = super::rig::query(node.channel().await, "root");
    let mut answers = client.match_stream(questions).await.unwrap().into_inner();
    for id in 0..3 {
        assert_eq!(timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap().id, id);
    }
}

/// Three questions with rests between them.
fn async_stream<T: Send + 'static>(
    rest: Duration,
    make: impl Fn(u64) -> T + Send + 'static,
) -> impl tokio_stream::Stream<Item = T> + Send {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for id in 0..3 {
            let _ = sender.send(make(id)).await;
            tokio::time::sleep(rest).await;
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_together_hold_so_many_bytes() {
    let limit = 1 << 20;
    let node = node(|config| {
        config.limits.body_bytes = limit;
        config.access.held_bytes = limit;
        config.access.body_timeout = Duration::from_secs(3);
    })
    .await;
    let address = node.server.running.local_addr();
    let mut open = Vec::new();
    // Each sends a fifth of all bytes, and keeps the rest to itself.
    for _ in 0..4 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = "POST /v1/match HTTP/1.1\r\nhost: x\r\nauthorization: Bearer root\r\ncontent-length: 900000\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![b' '; limit / 5]).await.unwrap();
        open.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let body = " ".repeat(limit / 3);
    let (status, headers, text) = node.raw("root", "POST", "/v1/match", body.clone()).await;
    assert!(status == 429 && text.contains("max_held_bytes"), "{status} {headers:?} {text}");
    let mut connection = connect(&node, 65_535).await;
    let message = [&[0u8][..], &(body.len() as u32).to_be_bytes(), body.as_bytes()].concat();
    let request = post("/kvindex.v1.QueryService/Match", "application/grpc", Body::from(message));
    let response = timeout(PATIENCE, connection.send_request(request)).await.unwrap().unwrap();
    assert_eq!(grpc_status(&response), Some("8"), "{response:?}");
    let small = json!({"prompt": {"model": "m", "token_ids": [1]}});
    node.call(Way::Http, "root", "match", small).await.unwrap();
    // Their time is over, or their clients gone: the room is free again.
    open.pop();
    let freed = async {
        while node.raw("root", "POST", "/v1/match", body.clone()).await.0 != 400 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

/// Three tokens beside the usual one, and time enough to look at answers that nobody takes.
async fn node_of_many(change: impl FnOnce(&mut Config)) -> Guarded {
    let tokens: String = ["root", "a", "b", "c"].map(|name| token(name, ALL, "*", "")).concat();
    Guarded::with(&tokens, |config| {
        config.access.body_timeout = PATIENCE;
        change(config);
    })
    .await
}

fn question() -> serde_json::Value {
    json!({"prompt": {"model": "m", "token_ids": [1]}})
}

/// The head of an answer whose rest is left where it is.
async fn unread(deaf: &mut http2::SendRequest<Body>, token: &str) -> Response<hyper::body::Incoming> {
    let mut request = post("/v1/match", "application/json", Body::from(question().to_string()));
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    timeout(PATIENCE, deaf.send_request(request)).await.unwrap().unwrap()
}

async fn until_answered(node: &Guarded, token: &str) {
    let freed = async {
        while node.call(Way::Grpc, token, "match", question()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_so_many() {
    let node = node_of_many(|config| config.access.open_calls = 3).await;
    let mut deaf = connect(&node, 0).await;
    let mut kept = Vec::new();
    for token in ["a", "b", "c"] {
        let response = unread(&mut deaf, token).await;
        assert_eq!(response.status(), StatusCode::OK);
        kept.push(response);
    }
    for way in super::rig::WAYS {
        let refusal = node.call(way, "root", "match", question()).await.unwrap_err();
        assert_eq!(refusal.code, "resource_exhausted");
        assert!(
            refusal.message.contains("3 calls are open, which is the limit (max_open_calls)"),
            "{refusal:?}"
        );
    }
    assert_eq!(node.raw("", "GET", "/healthz", "").await.0, 200);
    drop((kept, deaf));
    until_answered(&node, "root").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_leaves_open_calls_to_the_others() {
    let node = node_of_many(|config| config.access.open_calls = 8).await;
    let mut deaf = connect(&node, 0).await;
    let kept = [unread(&mut deaf, "a").await, unread(&mut deaf, "a").await];
    assert!(kept.iter().all(|response| response.status() == StatusCode::OK));
    for way in super::rig::WAYS {
        let refusal = node.call(way, "a", "match", question()).await.unwrap_err();
        assert_eq!(refusal.code, "resource_exhausted");
        assert!(refusal.message.contains("2 calls of this token are open"), "{refusal:?}");
        node.call(way, "b", "match", question()).await.unwrap();
    }
    drop((kept, deaf));
    until_answered(&node, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_answers_are_not_taken_end_by_themselves() {
    let node = node(|config| config.access.open_calls = 8).await;
    let mut deaf = connect(&node, 0).await;
    let kept = [unread(&mut deaf, "root").await, unread(&mut deaf, "root").await];
    assert!(kept.iter().all(|response| response.status() == StatusCode::OK));
    assert!(node.call(Way::Grpc, "root", "match", question()).await.is_err());
    until_answered(&node, "root").await;
    drop((kept, deaf));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_so_many_bytes() {
    let limit = 256 << 10;
    let node = node_of_many(|config| {
        config.limits.body_bytes = limit;
        config.access.held_bytes = limit;
    })
    .await;
    for number in 0..150 {
        let worker = json!({"worker_id": format!("w{number}"), "model": "m", "address": "10.0.0.1:8000"});
        node.call(Way::Grpc, "root", "register", worker).await.unwrap();
    }
    let mut deaf = connect(&node, 0).await;
    let list = |grpc: bool| {
        if grpc {
            return post(
                "/kvindex.v1.QueryService/ListWorkers",
                "application/grpc",
                Body::from(&[0u8; 5][..]),
            );
        }
        let request = Request::get("http://node/v1/workers").header("authorization", "Bearer root");
        request.body(Body::empty()).unwrap()
    };
    let (mut kept, mut refused) = (Vec::new(), 0);
    for number in 0..60 {
        let response = timeout(PATIENCE, deaf.send_request(list(number % 2 == 0))).await.unwrap().unwrap();
        let full = response.status() == StatusCode::TOO_MANY_REQUESTS || grpc_status(&response) == Some("8");
        refused += usize::from(full);
        kept.push(response);
    }
    assert!((10..60).contains(&refused), "{refused} of 60 are refused");
    // Small ones of others find room, or are told what there is none of.
    let (status, _, text) = node.raw("root", "GET", "/v1/workers", "").await;
    assert!(
        status == 429 && text.contains("answers of") && text.contains("max_held_bytes"),
        "{status} {text}"
    );
    drop((kept, deaf));
    let freed = async {
        while node.raw("root", "GET", "/v1/workers", "").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_reads_nothing_holds_up_neither_events_nor_the_end() {
    let node = node_of_many(|config| config.limits.watch_buffer = 64).await;
    let mut deaf = connect(&node, 0).await;
    let request = Request::get("http://node/v1/watch").header("authorization", "Bearer root");
    let response = timeout(PATIENCE, deaf.send_request(request.body(Body::empty()).unwrap())).await;
    let unread = response.unwrap().unwrap();
    let worker = json!({"worker_id": "w", "model": "llama"});
    node.call(Way::Grpc, "root", "register", worker).await.unwrap();
    for seq in 0..40u64 {
        let event = |i: u64| json!({"type": "stored", "block_hashes": [seq * 100 + i + 1], "token_ids": [seq, i, 2, 3], "block_size": 4});
        let events: Vec<_> = (0..100).map(event).collect();
        let batch = json!({"worker_id": "w", "generation": 1, "seq": seq, "events": events});
        node.call(Way::Grpc, "root", "publish", batch).await.unwrap();
    }
    assert_eq!(node.metric("root", "kvindex_index_entries").await, 4000, "every event was taken in");
    assert_eq!(node.metric("root", "kvindex_api_open_streams").await, 1);
    drop((unread, deaf));
    let left = async {
        while node.metric("root", "kvindex_api_open_streams").await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, left).await.unwrap();
}
