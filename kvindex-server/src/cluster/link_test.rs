//! Links to addresses where nobody answers: how fast they fail, and how few connections they try.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures_util::future::join_all;
use kvindex_core::replication::{Transport, TransportError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

use super::{GrpcTransport, LinkSettings};

const SOON: Duration = Duration::from_secs(5);

async fn ask(transport: &GrpcTransport, address: &str, within: Duration) -> TransportError {
    transport.call(address, Bytes::from_static(b"x"), within).await.unwrap_err()
}

/// Accepts connections, counts them, and keeps or closes them without a word.
async fn mute(keep: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            if keep {
                kept.push(stream);
            }
        }
    });
    (address, seen)
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let transport = GrpcTransport::default();
    let began = Instant::now();
    let refused = join_all((0..500).map(|_| ask(&transport, &free, SOON))).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for error in refused {
        assert!(
            matches!(&error, TransportError::Unreachable { reason, .. } if reason.contains("refused")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_no_address_is_said_at_once() {
    let transport = GrpcTransport::default();
    for address in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999", "no such name:1", "[::1:7"] {
        let error = ask(&transport, address, SOON).await;
        assert!(matches!(error, TransportError::Unreachable { .. }), "{address}: {error}");
    }
}

#[tokio::test]
async fn a_listener_that_never_answers_costs_one_connection_and_each_call_its_time() {
    let (address, seen) = mute(true).await;
    let transport = GrpcTransport::default();
    let began = Instant::now();
    let within = Duration::from_millis(200);
    for error in join_all((0..100).map(|_| ask(&transport, &address, within))).await {
        assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_peer_that_never_answers_is_blocked_and_one_that_refuses_is_not() {
    let metrics = crate::net::NetMetrics::default();
    let transport = GrpcTransport::with(LinkSettings::default(), None, metrics.clone());
    let (mute, _) = mute(true).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    assert!(transport.admits(&mute), "nothing is known yet");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2400) {
        let short = Duration::from_millis(100);
        tokio::join!(ask(&transport, &mute, short), ask(&transport, &free, short));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!transport.admits(&mute) && transport.admits(&free));
    // Whoever does not ask is not held back: calls are made, and time out as before.
    let error = ask(&transport, &mute, Duration::from_millis(50)).await;
    assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (peer, state) in [(&mute, 2), (&free, 1)] {
        assert!(text.contains(&format!("degrade_state_current{{peer=\"{peer}\"}} {state}")), "{text}");
    }
    let moved = format!("transitions_total{{peer=\"{mute}\",from=\"limited\",to=\"blocked\"}} 1");
    assert!(text.contains(&moved), "{text}");
}

#[tokio::test]
async fn a_backlog_that_is_full_costs_calls_only_their_time() {
    // The kernel drops connections that do not fit into the backlog: the nearest thing to a lost packet.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let connect =
        || tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address));
    let fill: Vec<_> = join_all((0..4).map(|_| connect())).await;
    assert!(fill.iter().any(Result::is_err), "the backlog took everything");
    let settings = LinkSettings { connect_timeout: Duration::from_millis(500), ..LinkSettings::default() };
    let transport = GrpcTransport::new(settings);
    let began = Instant::now();
    let error = ask(&transport, &address.to_string(), Duration::from_millis(100)).await;
    assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    let error = ask(&transport, &address.to_string(), SOON).await;
    assert!(
        matches!(&error, TransportError::Unreachable { reason, .. } if reason.contains("no connection")),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_silent_connection_is_given_up_and_made_anew() {
    let (address, seen) = mute(true).await;
    let transport = GrpcTransport::new(LinkSettings {
        keep_alive_interval: Duration::from_millis(100),
        keep_alive_timeout: Duration::from_millis(200),
        ..LinkSettings::default()
    });
    for round in 1..=2 {
        let began = Instant::now();
        let error = ask(&transport, &address, SOON).await;
        assert!(matches!(&error, TransportError::Unreachable { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(seen.load(Ordering::Relaxed), round);
    }
}

#[tokio::test]
async fn a_listener_that_hangs_up_is_not_called_in_a_loop() {
    let (address, seen) = mute(false).await;
    let transport = GrpcTransport::default();
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(550) {
        ask(&transport, &address, SOON).await;
        calls += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let connections = seen.load(Ordering::Relaxed);
    assert!((2..=8).contains(&connections), "{connections} connections for {calls} calls");
}

#[tokio::test]
async fn an_idle_link_is_dropped_and_a_link_in_use_is_not() {
    let (address, _) = mute(true).await;
    let (quiet, _) = mute(true).await;
    let idle = Duration::from_millis(200);
    let transport = GrpcTransport::new(LinkSettings { idle, ..LinkSettings::default() });
    ask(&transport, &quiet, Duration::from_millis(20)).await;
    // One call that lasts longer than the idle time.
    let long = ask(&transport, &address, Duration::from_millis(900));
    let (error, ()) = tokio::join!(long, async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(transport.links(), 1);
    });
    assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
    tokio::time::timeout(SOON, async {
        while transport.links() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_dropped_transport_closes_its_connections() {
    use tokio::io::AsyncReadExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let transport = GrpcTransport::default();
    ask(&transport, &address, Duration::from_millis(50)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(transport);
    let mut sent = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut sent)).await.unwrap().unwrap();
    assert!(sent.starts_with(b"PRI * HTTP/2.0"));
}
