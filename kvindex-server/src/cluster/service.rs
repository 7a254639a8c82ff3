//! The side of a peer link that answers. A call runs to its end even when its caller has given up: what it does
//! to a shard must not stop half-way.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kvindex_proto::peer::v1::peer_server::{Peer, PeerServer};
use kvindex_proto::peer::v1::{PeerReply, PeerRequest};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Request, Response, Status};

use super::link::{LinkSettings, with_causes};
use super::link_wire::{
    CALLS_PER_CONNECTION, CONNECTION_WINDOW, FRAME, MAX_BODY, MAX_MESSAGE, STREAM_WINDOW, Wire,
};
use crate::net::{self, First, Gate, NetMetrics, Pass, PeerTls, canonical};

/// How long calls may go on after the node was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How long a new connection may take to begin, handshake included. A peer speaks at once.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Connections of peers: a few a node, with room for those that are being replaced.
const MAX_CONNECTIONS: usize = 256;

/// Pause after a failed accept: the usual cause, no more file descriptors, does not pass at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Answers other nodes.
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers one message. Many run at a time, in no order. It runs to its end even when nobody waits for the
    /// answer any more. An answer of more than 64 MiB fails the call, and so does a panic.
    fn handle(&self, request: Bytes) -> BoxFuture<'_, Bytes>;
}

/// What stands between a listener and its peers.
#[derive(Debug, Clone, Default)]
pub struct PeerDoor {
    /// How connections are encrypted and checked; `None` for neither.
    pub tls: Option<PeerTls>,
    /// Where connections are counted.
    pub metrics: NetMetrics,
}

/// Answers peers on `listener` until `stopping` is true or its sender is gone; then lets open calls end for two
/// seconds. Must be called inside a tokio runtime.
pub fn serve_peers(
    listener: TcpListener,
    door: PeerDoor,
    handler: Arc<dyn PeerHandler>,
    stopping: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(accept(listener, door, handler, stopping))
}

async fn accept(
    listener: TcpListener,
    door: PeerDoor,
    handler: Arc<dyn PeerHandler>,
    mut stopping: watch::Receiver<bool>,
) {
    let gate = Gate::new("peer", MAX_CONNECTIONS, door.metrics);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    // One that is refused is closed by being dropped.
                    let from = canonical(from);
                    if let Some(pass) = gate.admit(from.ip()) {
                        let comer = Comer { from, tls: door.tls.clone(), _pass: pass };
                        connections.spawn(comer.served(stream, Arc::clone(&handler), stopping.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a peer's connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "calls of peers were still open and were cut off");
        connections.shutdown().await;
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// One connection.
struct Comer {
    from: SocketAddr,
    tls: Option<PeerTls>,
    _pass: Pass,
}

impl Comer {
    /// Serves it until it ends or the node stops.
    async fn served(
        self,
        stream: TcpStream,
        handler: Arc<dyn PeerHandler>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let from = self.from;
        let opened = tokio::select! {
            opened = tokio::time::timeout(FIRST_WORD, self.open(stream)) => opened,
            () = stopped(&mut stopping) => return,
        };
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(reason)) if self.tls.is_some() => {
                return tracing::info!(%from, reason, "a connection to the peer port is refused");
            }
            Ok(Err(reason)) => return tracing::debug!(%from, reason, "not a peer's connection"),
            Err(_) => return tracing::debug!(%from, "silent for {} s", FIRST_WORD.as_secs()),
        };
        let permits = Arc::new(Semaphore::new(CALLS_PER_CONNECTION as usize));
        let peer = PeerServer::new(Calls { handler, permits })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let connection = http().serve_connection(TokioIo::new(stream), TowerToHyperService::new(peer));
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopped(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%from, error = %with_causes(&error), "a peer's connection broke");
        }
    }

    /// Lets a peer in, or says why it is none.
    async fn open(&self, stream: TcpStream) -> Result<Box<dyn Wire>, String> {
        net::tune_peer(&(&stream).into()).map_err(|error| error.to_string())?;
        let first = net::look(&stream).await.map_err(|error| error.to_string())?;
        match (&self.tls, first) {
            (None, First::Tls) => {
                net::send_away(stream, first, "this peer port does not speak TLS").await;
                Err("TLS on a peer port without (peer_tls_cert)".into())
            }
            (None, _) => Ok(Box::new(stream)),
            (Some(tls), First::Tls) => match tls.accept(stream).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(net::explained(&error).unwrap_or_else(|| error.to_string())),
            },
            (Some(_), _) => {
                net::send_away(stream, first, "this peer port speaks TLS: set peer_tls_cert").await;
                Err("no TLS on a peer port with".into())
            }
        }
    }
}

fn http() -> http2::Builder<TokioExecutor> {
    let settings = LinkSettings::default();
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        // A node that stood still finds calls that were given up meanwhile. That is no attack.
        .max_pending_accept_reset_streams(CALLS_PER_CONNECTION as usize)
        .keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout);
    http
}

/// The calls of one connection.
struct Calls {
    handler: Arc<dyn PeerHandler>,
    /// Bounds the calls at work. HTTP/2 bounds only those that somebody still waits for.
    permits: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Peer for Calls {
    async fn call(&self, request: Request<PeerRequest>) -> Result<Response<PeerReply>, Status> {
        let PeerRequest { body } = request.into_inner();
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| Status::unavailable("stopping"))?;
        let handler = Arc::clone(&self.handler);
        let at_work = tokio::spawn(async move {
            let _permit = permit;
            handler.handle(body).await
        });
        let body = at_work.await.map_err(|error| {
            tracing::error!(%error, "a peer's call failed");
            Status::internal("the call failed there, and its log says why")
        })?;
        if body.len() > MAX_BODY {
            return Err(Status::internal(format!(
                "the answer has {} bytes, more than {MAX_BODY}",
                body.len()
            )));
        }
        Ok(Response::new(PeerReply { body }))
    }
}
