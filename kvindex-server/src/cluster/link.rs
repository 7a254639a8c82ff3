//! The link to one address: a task keeps at most one connection and one attempt to make it, however many calls
//! wait for it. It tries only while calls come, and it ends when the link is dropped.

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kvindex_proto::peer::v1::peer_client::PeerClient;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};

use super::link_wire::{CONNECTION_WINDOW, FRAME, MAX_MESSAGE, STREAM_WINDOW, Wire};
use crate::net::{self, DialError, HostPort, Path, PeerTls};

/// After a failed attempt, calls fail at once for this long: a peer that is down costs ten attempts a second,
/// and one that came back is found well within a second.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A connection that lasted less than this is no recovery.
const BRIEF: Duration = Duration::from_secs(1);

/// How links to other nodes behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// How long making a connection may take, name look-up included.
    pub connect_timeout: Duration,
    /// How often a silent connection is probed.
    pub keep_alive_interval: Duration,
    /// How long a probe may stay unanswered before the connection is given up.
    pub keep_alive_timeout: Duration,
    /// A link that nobody used for this long is dropped.
    pub idle: Duration,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(3),
            idle: Duration::from_secs(60),
        }
    }
}

/// Calls over one connection.
pub(super) type Client = PeerClient<Sender>;

/// The sending half of one HTTP/2 connection.
#[derive(Debug, Clone)]
pub(super) struct Sender(http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[derive(Debug, Clone)]
enum State {
    /// An attempt is under way.
    Connecting,
    /// Connected, as far as is known.
    Up { sender: Sender, client: Client },
    /// Not connected; calls before `retry_at` fail at once.
    Down { failure: Failure, retry_at: Instant },
}

/// Why there is no connection, and whether that is because nothing was heard.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: Arc<str>,
    pub(super) silent: bool,
}

impl Failure {
    fn told(reason: impl Into<Arc<str>>) -> Self {
        Self { reason: reason.into(), silent: false }
    }

    /// From an error of the connection; TLS has words of its own.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let reason = net::explained(error).unwrap_or_else(|| with_causes(error));
        Self { reason: reason.into(), silent: is_silence(error) }
    }
}

/// The link to one address. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: Path,
    state: watch::Receiver<State>,
    /// One place: whoever finds it full knows that an attempt has been asked for.
    wanted: mpsc::Sender<()>,
    last_used: Mutex<Instant>,
}

impl Link {
    /// Begins to connect. `on_idle` is called now and then when the link may have been idle too long.
    pub(super) fn open(
        address: &str,
        (settings, tls): (LinkSettings, Option<PeerTls>),
        on_idle: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (publish, state) = watch::channel(State::Connecting);
        let (wanted, calls) = mpsc::channel(1);
        let keeper =
            Keeper { address: address.to_owned(), settings, tls, publish, calls, on_idle: Box::new(on_idle) };
        tokio::spawn(keeper.keep());
        Self { path: Path::default(), state, wanted, last_used: Mutex::new(Instant::now()) }
    }

    /// Notes that a call begins.
    pub(super) fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    /// How long ago the last call began.
    pub(super) fn idle_for(&self) -> Duration {
        self.last_used.lock().elapsed()
    }

    /// Waits for a connection, or says why there is none. Calls that come during an attempt share its result.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        let mut state = self.state.clone();
        let mut asked = false;
        loop {
            match &*state.borrow_and_update() {
                State::Up { sender, client } if !sender.0.is_closed() => return Ok(client.clone()),
                // The task has yet to notice that it broke, or is at it.
                State::Up { .. } | State::Connecting => {}
                State::Down { failure, retry_at } => {
                    if asked || Instant::now() < *retry_at {
                        return Err(failure.clone());
                    }
                    asked = true;
                    let _ = self.wanted.try_send(());
                }
            }
            if state.changed().await.is_err() {
                return Err(Failure::told("this node is stopping"));
            }
        }
    }
}

/// The task behind a link.
struct Keeper {
    address: String,
    settings: LinkSettings,
    tls: Option<PeerTls>,
    publish: watch::Sender<State>,
    calls: mpsc::Receiver<()>,
    on_idle: Box<dyn Fn() + Send + Sync>,
}

type Connection = http2::Connection<TokioIo<Box<dyn Wire>>, Body, TokioExecutor>;

impl Keeper {
    async fn keep(mut self) {
        // What repeats is told once: a peer that stays away, and one that hangs up each time.
        let (mut away, mut flapping) = (false, false);
        loop {
            match self.connect().await {
                Ok((up, connection)) => {
                    let since = Instant::now();
                    self.publish.send_replace(up);
                    if !flapping {
                        tracing::info!(peer = %self.address, "peer link up");
                    }
                    let Some(failure) = self.until_broken(connection).await else { return };
                    let brief = since.elapsed() < BRIEF;
                    if !(brief && flapping) {
                        tracing::info!(peer = %self.address, reason = %failure.reason, "peer link lost");
                    }
                    (away, flapping) = (false, brief);
                    self.publish.send_replace(State::Down { failure, retry_at: since + RETRY_AFTER });
                }
                Err(failure) => {
                    if !away {
                        tracing::info!(peer = %self.address, reason = %failure.reason, "peer cannot be reached");
                    }
                    (away, flapping) = (true, false);
                    // Whoever asked until now gets this answer, not another attempt.
                    let _ = self.calls.try_recv();
                    let retry_at = Instant::now() + RETRY_AFTER;
                    self.publish.send_replace(State::Down { failure, retry_at });
                }
            }
            if !self.next_call().await {
                return;
            }
            self.publish.send_replace(State::Connecting);
        }
    }

    async fn connect(&self) -> Result<(State, Connection), Failure> {
        let within = self.settings.connect_timeout;
        let dialled = net::dial(&self.address, within).await;
        let stream =
            dialled.map_err(|DialError { reason, silent }| Failure { reason: reason.into(), silent })?;
        let made = async {
            let stream: Box<dyn Wire> = match &self.tls {
                None => Box::new(stream),
                Some(tls) => {
                    let secured = tls.connect(&self.address, stream).await;
                    Box::new(secured.map_err(|error| Failure::of(&error))?)
                }
            };
            self.http().handshake(TokioIo::new(stream)).await.map_err(|error| Failure::of(&error))
        };
        let Ok(made) = tokio::time::timeout(within, made).await else {
            let reason = format!("no handshake within {} ms", within.as_millis());
            return Err(Failure { reason: reason.into(), silent: true });
        };
        let (sender, connection) = made?;
        let sender = Sender(sender);
        let client = self.client(sender.clone())?;
        Ok((State::Up { sender, client }, connection))
    }

    fn http(&self) -> http2::Builder<TokioExecutor> {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .keep_alive_interval(self.settings.keep_alive_interval)
            .keep_alive_timeout(self.settings.keep_alive_timeout)
            .keep_alive_while_idle(true);
        http
    }

    fn client(&self, sender: Sender) -> Result<Client, Failure> {
        // No more than a header: where to is decided by the connection. An interface's name has no place in it.
        let authority = HostPort::parse(&self.address).map_or_else(
            |_| self.address.clone(),
            |address| {
                address.host.ip().map_or_else(
                    || address.to_string(),
                    |ip| HostPort::from(SocketAddr::new(ip, address.port)).to_string(),
                )
            },
        );
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let origin = http::Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
        let origin = origin.map_err(|error| Failure::told(format!("not host:port: {error}")))?;
        Ok(PeerClient::with_origin(sender, origin)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }

    /// Drives a connection until it ends and says why; `None` when the link was dropped.
    async fn until_broken(&mut self, connection: Connection) -> Option<Failure> {
        tokio::pin!(connection);
        loop {
            tokio::select! {
                ended = &mut connection => return Some(match ended {
                    Ok(()) => Failure::told("closed by the peer"),
                    Err(error) => Failure::of(&error),
                }),
                // A call that asked for this connection, late: it has it.
                called = self.next_call() => if !called { return None },
            }
        }
    }

    /// Waits until a call asks for a connection; false when the link was dropped.
    async fn next_call(&mut self) -> bool {
        loop {
            tokio::select! {
                called = self.calls.recv() => return called.is_some(),
                () = tokio::time::sleep(self.settings.idle / 4) => (self.on_idle)(),
            }
        }
    }
}

/// Whether a connection broke because nothing came any more: HTTP's probe or the kernel's patience ran out.
pub(super) fn is_silence(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::TimedOut;
        if error.downcast_ref().is_some_and(timed_out)
            || error.downcast_ref().is_some_and(hyper::Error::is_timeout)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error and what caused it, in one line: the outermost alone often says only that something failed.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}
