//! The doors of a whole node: metrics apart, connections bounded, both families on one socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kvindex_server::{App, Listeners};

use crate::api_server::{Server, config};

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    // A connection that is closed at once answers nothing.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_probes_have_a_door_of_their_own() {
    let server = Server::with(config(|config| {
        config.net.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    }))
    .await;
    let (public, metrics) = (server.running.local_addr(), server.running.metrics_addr().unwrap());
    assert_ne!(public.port(), metrics.port());
    let table = [
        (metrics, "/metrics", "200", "kvindex_connections{door=\"metrics\"} 1"),
        (metrics, "/healthz", "200", "ok"),
        (metrics, "/readyz", "200", "ready"),
        (metrics, "/v1/workers", "404", ""),
        (public, "/metrics", "404", ""),
        (public, "/healthz", "200", "ok"),
        (public, "/readyz", "200", "ready"),
        (public, "/v1/workers", "200", "workers"),
    ];
    for (address, path, status, holds) in table {
        let answer = get(address, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(holds), "{path}: {answer}");
    }
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_all_its_connections_still_answers_probes_elsewhere() {
    let server = Server::with(config(|config| {
        config.net.max_connections = 3;
        config.net.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    }))
    .await;
    // The rig's own client has one.
    let public = server.running.local_addr();
    let kept: Vec<_> = (0..2).map(|_| TcpStream::connect(public).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    let metrics = server.running.metrics_addr().unwrap();
    while !get(metrics, "/metrics").contains("kvindex_connections{door=\"public\"} 3") {
        assert!(Instant::now() < deadline, "{}", get(metrics, "/metrics"));
    }
    assert_eq!(get(public, "/healthz"), "");
    assert!(get(metrics, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(metrics, "/metrics").contains("kvindex_connections_refused_total{door=\"public\"} 1"));
    drop(kept);
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_every_address_answers_both_families() {
    let mut config = config(|_| ());
    config.listen = "[::]:0".parse().unwrap();
    let listeners = Listeners::bind(&config).unwrap();
    let running = App::start(config, listeners).await.unwrap();
    let port = running.local_addr().port();
    assert!(get(([127, 0, 0, 1], port).into(), "/healthz").starts_with("HTTP/1.1 200"));
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => {
            assert!(get(([0, 0, 0, 0, 0, 0, 0, 1], port).into(), "/healthz").starts_with("HTTP/1.1 200"));
        }
        Err(error) => eprintln!("SKIPPED: no IPv6 on loopback: {error}"),
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(|_| ());
    config.net.metrics_listen = Some(taken.local_addr().unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = App::start(config, listener).await.unwrap_err().to_string();
    assert!(error.contains("metrics_listen") && error.contains("another kvindex"), "{error}");
}
