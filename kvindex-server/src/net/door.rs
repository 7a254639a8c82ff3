//! A door: a listener that serves HTTP/1 and HTTP/2 to a bounded number of clients, each bounded in how long it may
//! take to begin, and to take its answers. What is served is the caller's.

use axum::Router;
use axum::body::Body;
use axum::http::{Extensions, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service;

use super::address::canonical;
use super::answer::{Answer, Waiting};
use super::first::{self, First};
use super::gate::{Gate, Pass};
use super::socket;
use super::tls::{PublicTls, explained};

/// How long a client may take to say which protocol it speaks, TLS handshake included; on HTTP/1 also to ask for
/// something. Whoever needs longer holds a connection that another could have.
const OPENING: Duration = Duration::from_secs(10);

/// How long an HTTP/1 connection may wait for its next request, and that request's head may take.
const IDLE: Duration = Duration::from_secs(75);

/// How long an answer may wait for its client to take more of it.
const UNREAD: Duration = Duration::from_secs(30);

/// Silence after which an HTTP/2 client is asked whether it is there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Most bytes of a client's HTTP/2 frame. A prompt of 100,000 tokens comes in 7 of these instead of 25 of the usual
/// 16 KiB, each of which is written, read and handed over by itself. They are not larger because larger ones gain
/// nothing (docs/benchmarks/questions.md), and anybody may have a few of them kept: the one that is coming, and five
/// more of a header that does not end, which is as much as HTTP/1 keeps of one.
const FRAME: u32 = 64 << 10;

/// Pause after a failed accept: the usual cause, no more file descriptors, does not pass at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What is known of the connection a request came on; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// The client; IPv4 as IPv4, on whichever socket it came.
    pub from: SocketAddr,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Whether the client showed a certificate, which then is signed by the CA of clients.
    pub client_certificate: bool,
}

/// Whether somebody who may call has called on a connection; an extension of every request.
#[derive(Debug, Clone, Default)]
struct Known(Arc<AtomicBool>);

/// Notes that a request is of somebody who may call: then its connection may stay for as long as its client is there.
pub(crate) fn is_known(request: &Extensions) {
    if let Some(known) = request.get::<Known>() {
        known.0.store(true, Ordering::Relaxed);
    }
}

/// Where clients come in.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) gate: Gate,
    pub(crate) lock: Lock,
    pub(crate) patience: Patience,
}

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// To begin: see [`OPENING`].
    pub(crate) opening: Duration,
    /// Between requests on HTTP/1; on HTTP/2 until a call of somebody who is known.
    pub(crate) idle: Duration,
    /// To take the next piece of an answer.
    pub(crate) unread: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { opening: OPENING, idle: IDLE, unread: UNREAD }
    }
}

/// What a door's connections are encrypted with.
#[derive(Debug, Clone)]
pub(crate) enum Lock {
    /// Nothing.
    Open,
    /// What the public port has.
    Public(PublicTls),
    /// What the metrics have.
    Metrics(PublicTls),
}

impl Lock {
    fn acceptor(&self) -> Option<TlsAcceptor> {
        match self {
            Self::Open => None,
            Self::Public(tls) => Some(tls.public()),
            Self::Metrics(tls) => Some(tls.metrics()),
        }
    }
}

/// Serves `router` until `stopping` is true or its sender is gone, then lets open calls end. Dropping
/// the future cuts them off.
pub(crate) async fn serve(door: Door, router: Router, mut stopping: watch::Receiver<bool>) {
    let Door { listener, gate, lock, patience } = door;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(ended) = connections.join_next() => told(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    // One that is refused is closed by being dropped.
                    if let Some(pass) = gate.admit(canonical(from).ip()) {
                        let from = canonical(from);
                        let client = Client { from, router: router.clone(), patience, _pass: pass };
                        connections.spawn(client.served(stream, lock.clone(), stopping.clone()));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        told(ended);
    }
}

fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// One connection.
struct Client {
    from: SocketAddr,
    router: Router,
    patience: Patience,
    _pass: Pass,
}

impl Client {
    async fn served(self, stream: TcpStream, lock: Lock, mut stopping: watch::Receiver<bool>) {
        if socket::tune_client(&stream).is_err() {
            return; // gone already
        }
        let from = self.from;
        let looked = tokio::select! {
            looked = tokio::time::timeout(self.patience.opening, first::look(&stream)) => looked,
            () = stopped(&mut stopping) => return,
        };
        let first = match looked {
            Ok(Ok(first)) => first,
            Ok(Err(_)) => return, // hung up: a port scanner, a load balancer's probe
            Err(_) => return tracing::debug!(%from, "a client that said nothing was sent away"),
        };
        match (lock.acceptor(), first) {
            (None, First::Tls) => {
                tracing::debug!(%from, "TLS on a port without (tls_cert)");
                first::send_away(stream, first, "this port does not speak TLS: use http://").await;
            }
            (None, _) => self.drive(stream, first == First::Http2, (false, false), stopping).await,
            (Some(acceptor), First::Tls) => self.handshake(acceptor, stream, stopping).await,
            (Some(_), _) => {
                tracing::debug!(%from, "plain HTTP on a port with TLS");
                first::send_away(stream, first, "this port speaks TLS: use https://").await;
            }
        }
    }

    async fn handshake(self, acceptor: TlsAcceptor, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
        let from = self.from;
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.patience.opening, acceptor.accept(stream)) => accepted,
            () = stopped(&mut stopping) => return,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let reason = explained(&error).unwrap_or_else(|| error.to_string());
                return tracing::debug!(%from, reason, "no TLS connection");
            }
            Err(_) => return tracing::debug!(%from, "a TLS handshake took too long"),
        };
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(b"h2");
        let certificate = session.peer_certificates().is_some();
        self.drive(stream, http2, (true, certificate), stopping).await;
    }

    async fn drive<S>(
        self,
        stream: S,
        http2: bool,
        (tls, client_certificate): (bool, bool),
        mut stopping: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let from = self.from;
        let connected = Connected { from, tls, client_certificate };
        let asked = Arc::new(AtomicBool::new(http2));
        let (known, waiting) = (Known::default(), Arc::new(Waiting::default()));
        let (router, asks, knows, waits) =
            (self.router.clone(), Arc::clone(&asked), known.clone(), Arc::clone(&waiting));
        let service = service_fn(move |mut request: Request<Incoming>| {
            asks.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(connected);
            request.extensions_mut().insert(knows.clone());
            let (answer, waits) = (router.clone().call(request), Arc::clone(&waits));
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Body::new(Answer::new(body, http2, waits))))
            }
        });
        let http = http(http2, self.patience.idle);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let (too_late, too_long) =
            (tokio::time::sleep(self.patience.opening), waiting.too_long(self.patience.unread));
        let stranger = tokio::time::sleep(self.patience.idle);
        tokio::pin!(too_late, too_long, stranger);
        let (mut ends, mut timed, mut doubted) = (false, true, http2);
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                () = stopped(&mut stopping), if !ends => {
                    ends = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut too_late, if timed => {
                    timed = false;
                    if !asked.load(Ordering::Relaxed) {
                        return tracing::debug!(%from, "a client that asked nothing was sent away");
                    }
                }
                () = &mut stranger, if doubted => {
                    doubted = false;
                    if !known.0.load(Ordering::Relaxed) {
                        return tracing::debug!(%from, "a client that nobody knows was sent away");
                    }
                }
                () = &mut too_long => {
                    return tracing::debug!(%from, "a client that does not take its answers was sent away");
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%from, %error, "a client's connection broke");
        }
    }
}

/// One version only: which it is was seen, or agreed on in the handshake.
fn http(http2: bool, idle: Duration) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
    http.http2().max_frame_size(FRAME);
    if http2 { http.http2_only() } else { http.http1_only() }
}

#[cfg(test)]
#[path = "door_test.rs"]
mod tests;
