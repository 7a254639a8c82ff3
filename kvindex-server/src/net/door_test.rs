//! Doors on real sockets: who is served, who is sent away and with which words, and what a full door does.
#![allow(clippy::unwrap_used)]

use axum::Extension;
use axum::routing::get;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::certificates::{Authority, Files as Folder};
use crate::net::metrics::NetMetrics;
use crate::net::tls::{ClientAuth, Files, Named};

/// Several pieces, the last of which is short.
const LARGE: usize = 100_000;
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

struct Served {
    address: SocketAddr,
    metrics: NetMetrics,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _folder: Option<Folder>,
}

/// A door on `listen` that answers who came.
fn open(listen: &str, limit: usize, tls: bool) -> Served {
    let (stop, stopping) = watch::channel(false);
    let metrics = NetMetrics::default();
    let listener = crate::net::listen(listen.parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tls.then(|| {
        let ca = Authority::new("ca");
        Folder::of(&ca.sign(&["index.test"]), &ca)
    });
    let lock = folder.as_ref().map_or(Lock::Open, |folder| {
        let named = |key, file| Named::new(key, folder.path(file));
        let files = Files { cert: named("tls_cert", "cert.pem"), key: named("tls_key", "key.pem"), ca: None };
        Lock::Public(PublicTls::load(&files, ClientAuth::Require, &metrics, stopping.clone()).unwrap())
    });
    let patience = Patience {
        opening: Duration::from_millis(300),
        idle: Duration::from_millis(600),
        unread: Duration::from_millis(400),
    };
    let gate = Gate::new("public", limit, metrics.clone());
    let who = |Extension(connected): Extension<Connected>| async move { format!("{connected:?}") };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        "slow"
    };
    let known = |request: Request<Body>| async move {
        is_known(request.extensions());
        "known"
    };
    let router = Router::new()
        .route("/", get(who))
        .route("/slow", get(slow))
        .route("/known", get(known))
        .route("/large", get(|| async { vec![7u8; LARGE] }));
    let task = tokio::spawn(serve(Door { listener, gate, lock, patience }, router, stopping));
    Served { address, metrics, stop, task, _folder: folder }
}

impl Served {
    /// What comes back until the other end closes; says too how long that took.
    async fn exchange(&self, words: &[u8]) -> (String, Duration) {
        let began = Instant::now();
        let mut stream = TcpStream::connect(("127.0.0.1", self.address.port())).await.unwrap();
        // An end that closes at once may have done so already.
        let _ = stream.write_all(words).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
        (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
    }

    fn shows(&self, line: &str) -> bool {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().any(|shown| shown == line)
    }
}

#[tokio::test]
async fn an_ipv4_client_of_a_dual_stack_door_is_told_by_its_ipv4_address() {
    let door = open("[::]:0", 10, false);
    let (answer, _) = door.exchange(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("from: 127.0.0.1:") && answer.contains("tls: false"), "{answer}");
}

#[tokio::test]
async fn whoever_speaks_the_wrong_protocol_is_told_so_at_once() {
    let plain = open("127.0.0.1:0", 10, false);
    let (answer, took) = plain.exchange(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await;
    assert!(answer.contains("400") && answer.contains("does not speak TLS: use http://"), "{answer}");
    assert!(took < Duration::from_millis(250) + Duration::from_secs(1), "{took:?}");
    let tls = open("127.0.0.1:0", 10, true);
    let (answer, _) = tls.exchange(GET).await;
    assert!(answer.contains("400") && answer.contains("speaks TLS: use https://"), "{answer}");
    let (answer, _) = tls.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.contains("speaks TLS: use https://"), "GOAWAY says why: {answer:?}");
}

#[tokio::test]
async fn clients_that_do_not_begin_are_sent_away() {
    let plain = open("127.0.0.1:0", 10, false);
    let tls = open("127.0.0.1:0", 10, true);
    let beginnings: [(&Served, &[u8]); 5] = [
        (&plain, b""),
        (&plain, b"PRI"),
        (&plain, b"GET / HTTP/1.1\r\nhost"),
        (&tls, b""),
        (&tls, &[0x16, 3, 1]),
    ];
    for (door, words) in beginnings {
        let (answer, took) = door.exchange(words).await;
        assert_eq!(answer, "", "{words:?}");
        assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{words:?} {took:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_at_work_is_not() {
    let door = open("127.0.0.1:0", 10, false);
    let (answer, took) = door.exchange(GET).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(took >= Duration::from_millis(550), "{took:?}");
    let (answer, _) = door.exchange(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.ends_with("slow"), "a call may last longer than a client may take to begin: {answer}");
}

#[tokio::test]
async fn a_full_door_refuses_at_once_and_counts() {
    let door = open("127.0.0.1:0", 2, false);
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        kept.push(stream);
    }
    for _ in 0..3 {
        let (answer, took) = door.exchange(GET).await;
        assert_eq!(answer, "");
        assert!(took < Duration::from_millis(200), "{took:?}");
    }
    assert!(door.shows("connections{door=\"public\"} 2"));
    assert!(door.shows("connections_refused_total{door=\"public\"} 3"));
    kept.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !door.shows("connections{door=\"public\"} 0") {
        assert!(Instant::now() < deadline, "closed connections give their room back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(door.exchange(GET).await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_address_leaves_room_for_others() {
    let door = open("127.0.0.1:0", 8, false);
    // Linux has all of 127.0.0.0/8; only the first of it is this machine's own.
    let come = async |from: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(door.address).await.unwrap();
        let _ = stream.write_all(GET).await;
        let mut head = [0; 12];
        let served = stream.read_exact(&mut head).await.is_ok();
        (served && &head == b"HTTP/1.1 200").then_some(stream)
    };
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(come([127, 0, 0, 2]).await.expect("its share"));
    }
    assert!(come([127, 0, 0, 2]).await.is_none(), "more than its share");
    assert!(door.shows("connections_refused_total{door=\"public\"} 1"));
    kept.push(come([127, 0, 0, 3]).await.expect("another address"));
    for _ in 0..4 {
        kept.push(come([127, 0, 0, 1]).await.expect("this machine has what room there is"));
    }
}

type Sender = hyper::client::conn::http2::SendRequest<Body>;

/// An HTTP/2 client that takes so many bytes of each answer before it says more; the task ends with the connection.
async fn http2(door: &Served, window: u32) -> (Sender, tokio::task::JoinHandle<()>) {
    let socket = TcpStream::connect(door.address).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

async fn asked(sender: &mut Sender, path: &str) -> Incoming {
    let request = Request::get(format!("http://x{path}")).body(Body::empty()).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(5), sender.send_request(request)).await;
    let response = response.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

#[tokio::test]
async fn whoever_does_not_take_an_answer_by_http2_is_sent_away() {
    // Nothing is taken, of a small answer and of a large one; one byte; all but more than may wait unseen.
    for (path, window) in [("/known", 0), ("/large", 0), ("/large", 1), ("/large", LARGE as u32 - 5_000)] {
        let door = open("127.0.0.1:0", 10, false);
        let (mut sender, connection) = http2(&door, window).await;
        let began = Instant::now();
        // Known, so that nothing but the answer ends the connection.
        let known = asked(&mut sender, "/known").await;
        let unread = asked(&mut sender, path).await;
        tokio::time::timeout(Duration::from_secs(5), connection).await.expect("sent away").unwrap();
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(390)..Duration::from_secs(3)).contains(&took),
            "{path} {window}: {took:?}"
        );
        let deadline = Instant::now() + Duration::from_secs(5);
        while !door.shows("connections{door=\"public\"} 0") {
            assert!(Instant::now() < deadline, "the room is given back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop((known, unread));
    }
}

/// RFC 9113, 6.5: what a server says first.
#[tokio::test]
async fn an_http2_client_is_told_how_long_its_frames_may_be() {
    let door = open("127.0.0.1:0", 10, false);
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "settings: {head:?}");
    let mut settings = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut settings).await.unwrap();
    let longest = [0, 5, 0, 1, 0, 0]; // SETTINGS_MAX_FRAME_SIZE: 64 KiB
    assert!(settings.chunks(6).any(|setting| setting == longest), "{settings:?}");
}

#[tokio::test]
async fn whoever_takes_an_answer_slowly_gets_all_of_it() {
    use hyper::body::Body as _;
    let door = open("127.0.0.1:0", 10, false);
    let (mut sender, _connection) = http2(&door, 16 << 10).await;
    drop(asked(&mut sender, "/known").await);
    let (mut body, mut taken, began) = (asked(&mut sender, "/large").await, 0, Instant::now());
    assert_eq!(body.size_hint().exact(), Some(LARGE as u64));
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await.transpose().unwrap()
    {
        taken += frame.into_data().unwrap().len();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(taken, LARGE);
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_http2_client_that_nobody_knows_is_sent_away() {
    let door = open("127.0.0.1:0", 10, false);
    let (mut stranger, gone) = http2(&door, 65_535).await;
    let (mut known, mut stays) = http2(&door, 65_535).await;
    drop(asked(&mut stranger, "/").await);
    drop(asked(&mut known, "/known").await);
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("sent away").unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(900), &mut stays).await.is_err(), "stays");
    drop(asked(&mut known, "/").await);
}

#[tokio::test]
async fn a_stopping_door_lets_calls_end_and_takes_no_more() {
    let door = open("127.0.0.1:0", 10, false);
    let call = door.exchange(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n");
    let (ended, ()) = tokio::join!(call, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        door.stop.send_replace(true);
    });
    assert!(ended.0.ends_with("slow"), "{}", ended.0);
    tokio::time::timeout(Duration::from_secs(5), door.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(door.address).await.is_err());
}
