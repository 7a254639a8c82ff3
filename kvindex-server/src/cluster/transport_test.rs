//! Peers on real sockets: what a call brings back, what faults do to it, and how fast it is.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use kvindex_core::replication::{Transport, TransportError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::link_wire::MAX_BODY;
use super::{GrpcTransport, PeerDoor, PeerHandler, serve_peers};

const SOON: Duration = Duration::from_secs(5);

/// Does what the request says, and otherwise echoes it.
#[derive(Default)]
struct Script {
    finished: AtomicUsize,
}

impl PeerHandler for Script {
    fn handle(&self, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            match &request[..] {
                b"panic" => panic!("as asked"),
                b"hang" => std::future::pending().await,
                b"slow" => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    self.finished.fetch_add(1, Ordering::Relaxed);
                    request
                }
                b"stand still" => {
                    // The only thread of the server's runtime.
                    std::thread::sleep(Duration::from_millis(400));
                    request
                }
                b"too much" => Bytes::from(vec![0; MAX_BODY + 1]),
                _ => request,
            }
        })
    }
}

/// A server with a runtime of its own, so that it can be killed like a process.
struct Server {
    address: String,
    script: Arc<Script>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let bound = runtime.spawn(async move {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let listener = bound.await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopping) = watch::channel(false);
        let script = Arc::new(Script::default());
        let served = {
            let _inside = runtime.enter();
            serve_peers(listener, PeerDoor::default(), Arc::clone(&script) as Arc<dyn PeerHandler>, stopping)
        };
        Self { address, script, stop, served, runtime }
    }

    /// Cuts every connection and drops what is under way.
    fn kill(self) -> SocketAddr {
        self.runtime.shutdown_background();
        self.address.parse().unwrap()
    }
}

async fn call(to: &GrpcTransport, address: &str, body: &'static str) -> Result<Bytes, TransportError> {
    to.call(address, Bytes::from_static(body.as_bytes()), SOON).await
}

fn reason(result: Result<Bytes, TransportError>) -> String {
    match result {
        Err(TransportError::Unreachable { reason, .. }) => reason,
        other => panic!("not unreachable: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_comes_back() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    assert_eq!(call(&transport, &server.address, "append").await.unwrap(), "append");
    assert_eq!(call(&transport, &server.address, "").await.unwrap(), "");
    assert_eq!(transport.links(), 1);
    server.kill();
}

#[tokio::test]
async fn a_name_is_resolved() {
    let server = Server::start().await;
    let named = server.address.replace("127.0.0.1", "localhost");
    // `localhost` may also be ::1, where nobody listens.
    assert_eq!(call(&GrpcTransport::default(), &named, "x").await.unwrap(), "x");
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_and_two_transports_do_not_mix() {
    let server = Server::start().await;
    let transports = [GrpcTransport::default(), GrpcTransport::default()];
    let calls = (0..1000).map(|number: usize| {
        let (transport, address) = (&transports[number % 2], &server.address);
        async move {
            let body = Bytes::from(format!("{number}-{}", "x".repeat(number * 7)));
            let answer = transport.call(address, body.clone(), SOON).await.unwrap();
            assert!(answer == body, "call {number} got another answer");
        }
    });
    join_all(calls).await;
    server.kill();
}

#[tokio::test]
async fn large_messages_pass_up_to_the_limit() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    for size in [32 << 20, MAX_BODY] {
        let mut body = vec![b'='; size];
        body[size - 1] = 7;
        let body = Bytes::from(body);
        let answer = transport.call(&server.address, body.clone(), Duration::from_secs(30)).await;
        assert!(answer.unwrap() == body, "{size} bytes came back otherwise");
    }
    let over = Bytes::from(vec![b'='; MAX_BODY + 1]);
    let refused = reason(transport.call(&server.address, over, SOON).await);
    assert!(refused.contains("67108865 bytes"), "{refused}");
    let refused = reason(call(&transport, &server.address, "too much").await);
    assert!(refused.contains("67108865 bytes"), "{refused}");
    server.kill();
}

#[tokio::test]
async fn a_call_that_takes_too_long_times_out_and_still_runs_to_its_end() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    let within = Duration::from_millis(100);
    for request in ["hang", "slow"] {
        let began = Instant::now();
        let given_up = transport.call(&server.address, Bytes::from(request), within).await;
        let expected = TransportError::Timeout { address: server.address.clone(), after: within };
        assert_eq!(given_up, Err(expected));
        assert!(began.elapsed() < Duration::from_millis(1500));
    }
    // Others are not held up, and the slow one was not cut off.
    assert_eq!(call(&transport, &server.address, "x").await.unwrap(), "x");
    tokio::time::timeout(SOON, async {
        while server.script.finished.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_keeps_its_connection() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    let address = server.address.as_str();
    assert_eq!(call(&transport, address, "x").await.unwrap(), "x");
    let (open, still, ()) =
        tokio::join!(call(&transport, address, "slow"), call(&transport, address, "stand still"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let brief = Duration::from_millis(50);
            let calls = (0..300).map(|_| transport.call(address, Bytes::from_static(b"x"), brief));
            for given_up in join_all(calls).await {
                assert!(matches!(given_up, Err(TransportError::Timeout { .. })), "{given_up:?}");
            }
        });
    // It finds hundreds of calls that were given up meanwhile. These two were not, and were not cut off.
    assert_eq!(open.unwrap(), "slow");
    assert_eq!(still.unwrap(), "stand still");
    server.kill();
}

#[tokio::test]
async fn a_panic_fails_its_call_only() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    let (failed, other) =
        tokio::join!(call(&transport, &server.address, "panic"), call(&transport, &server.address, "slow"));
    assert!(reason(failed).contains("its log says why"));
    assert_eq!(other.unwrap(), "slow");
    assert_eq!(call(&transport, &server.address, "x").await.unwrap(), "x");
    server.kill();
}

#[tokio::test]
async fn a_killed_server_is_found_again_within_a_second() {
    let mut server = Server::start().await;
    let transport = GrpcTransport::default();
    for _ in 0..3 {
        assert_eq!(call(&transport, &server.address, "x").await.unwrap(), "x");
        let address = server.address.clone();
        let (hanging, at) = tokio::join!(call(&transport, &address, "hang"), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.kill()
        });
        // The open call fails with its connection, not with its time-out.
        assert!(!reason(hanging).is_empty());
        let gone = Instant::now();
        let refused = reason(call(&transport, &address, "x").await);
        assert!(gone.elapsed() < Duration::from_millis(500), "{refused} took {:?}", gone.elapsed());
        server = Server::at(at).await;
        let back = Instant::now();
        while call(&transport, &address, "x").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    }
    server.kill();
}

#[tokio::test]
async fn a_stopping_server_lets_open_calls_end() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    let (open, ()) = tokio::join!(call(&transport, &server.address, "slow"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.stop.send_replace(true);
    });
    assert_eq!(open.unwrap(), "slow");
    tokio::time::timeout(SOON, server.served).await.unwrap().unwrap();
    assert!(!reason(call(&transport, &server.address, "x").await).is_empty());
    server.runtime.shutdown_background();
}

#[tokio::test]
async fn a_stopping_server_cuts_off_calls_that_never_end() {
    let server = Server::start().await;
    let transport = GrpcTransport::default();
    let began = Instant::now();
    let (hanging, ()) = tokio::join!(call(&transport, &server.address, "hang"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.stop.send_replace(true);
    });
    assert!(!reason(hanging).is_empty());
    assert!(began.elapsed() < Duration::from_millis(4000));
    server.served.await.unwrap();
    server.runtime.shutdown_background();
}
