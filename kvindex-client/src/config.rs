//! Where the nodes are, how long to wait for them, and how many of them to ask.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::error;
use crate::tls::Tls;
use crate::token::{Bearer, Token};

/// How long a routing call may take: an index that answers later costs the user more than it saves.
pub const DEFAULT_ROUTING_TIMEOUT: Duration = Duration::from_millis(20);

/// How long an admin call may take.
pub const DEFAULT_ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a prompt counts as held where it was routed to, until the engine says so itself: a prefill and some time in
/// the queue before it.
pub const DEFAULT_SPECULATIVE_TTL: Duration = Duration::from_secs(5);

/// Between two questions whether a node is ready.
pub const DEFAULT_PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Answers list every worker; gRPC's own default of 4 MiB would refuse those of a large fleet.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Longest wait for one TCP connection, after which a new one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Silence after which the connection is probed, so that a node that vanished without a word is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a probe may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Times are no longer than this: who wants to wait for ever says so with the longest there is, which no clock can add.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// When a routing call is made a second time, at another node, because the first one takes long. Whichever answers first
/// is taken. At most one call in twenty is made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hedge {
    /// After the time within which 95 of the last 100 answers came; before that is known, half the routing timeout.
    #[default]
    Usual,
    /// After this time.
    After(Duration),
    /// Never.
    Off,
}

/// Where the nodes are and how long to wait for them.
///
/// ```
/// use kvindex_client::ClientConfig;
/// use std::time::Duration;
///
/// let config = ClientConfig::new("http://index:9590").routing_timeout(Duration::from_millis(5));
/// assert_eq!(config.server(), "http://index:9590");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    servers: Vec<String>,
    pub(crate) routing_timeout: Duration,
    pub(crate) admin_timeout: Duration,
    pub(crate) max_answer_bytes: usize,
    pub(crate) hedge: Hedge,
    pub(crate) max_age: Option<Duration>,
    pub(crate) probe_interval: Duration,
    pub(crate) speculative_ttl: Duration,
    pub(crate) every_address: bool,
    token: Token,
    token_file: Option<PathBuf>,
    tls: Tls,
}

/// Why a client cannot be made. That nobody answers is no such reason: the connection is made by the first
/// call, and again whenever it is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address is given.
    #[error("servers: none is named; one must be, such as http://127.0.0.1:9590")]
    NoServer,
    /// The address is not one.
    #[error("server address {server:?}: {reason}; it must look like http://127.0.0.1:9590")]
    Address {
        /// The address as given.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot stand in a header.
    #[error("the token holds what no token has: a line end inside, or a control character")]
    Token,
    /// The token's file cannot be used.
    #[error("token file {path:?} {reason}")]
    TokenFile {
        /// The file as given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The CA, the client certificate or its key cannot be used.
    #[error("certificates: {reason}")]
    Certificates {
        /// What is wrong with them.
        reason: String,
    },
    /// There is no tokio runtime to drive the connection.
    #[error("Client::connect must be called inside a tokio runtime")]
    NoRuntime,
}

impl ClientConfig {
    /// The node at `server`, such as `http://127.0.0.1:9590` or `https://index:9590`, with default timeouts.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self::of([server])
    }

    /// Several nodes of one cluster. Each call goes to one of two that are drawn, whichever is expected to answer first;
    /// nodes that fail, say that they are not ready, or are behind are left out while there are others.
    ///
    /// ```
    /// use kvindex_client::{ClientConfig, Hedge};
    /// use std::time::Duration;
    ///
    /// let config = ClientConfig::of(["http://10.0.0.1:9590", "http://10.0.0.2:9590", "http://10.0.0.3:9590"])
    ///     .hedge(Hedge::After(Duration::from_millis(3)))
    ///     .max_age(Duration::from_secs(2));
    /// assert_eq!(config.servers().len(), 3);
    /// ```
    #[must_use]
    pub fn of(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            routing_timeout: DEFAULT_ROUTING_TIMEOUT,
            admin_timeout: DEFAULT_ADMIN_TIMEOUT,
            max_answer_bytes: MAX_ANSWER_BYTES,
            hedge: Hedge::default(),
            max_age: None,
            probe_interval: DEFAULT_PROBE_INTERVAL,
            speculative_ttl: DEFAULT_SPECULATIVE_TTL,
            every_address: false,
            token: Token::default(),
            token_file: None,
            tls: Tls::default(),
        }
    }

    /// How long a routing call may take before its answer is unknown.
    #[must_use]
    pub fn routing_timeout(mut self, timeout: Duration) -> Self {
        self.routing_timeout = timeout.min(LONGEST);
        self
    }

    /// How long an admin call may take.
    #[must_use]
    pub fn admin_timeout(mut self, timeout: Duration) -> Self {
        self.admin_timeout = timeout.min(LONGEST);
        self
    }

    /// Largest answer taken in, in bytes.
    #[must_use]
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// When a routing call is made a second time, at another node.
    #[must_use]
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = match hedge {
            Hedge::After(after) => Hedge::After(after.min(LONGEST)),
            other => other,
        };
        self
    }

    /// How old an answer should be at most, as its `freshness` says. A node whose answers are older is left out for a
    /// second, and the question is asked again elsewhere. Where all are behind the answer is taken all the same, and
    /// says how old it is: who needs more sets the question's `consistency`.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// How often a node is asked whether it is ready. Several nodes are asked all the time, one only while calls fail.
    #[must_use]
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = interval;
        self
    }

    /// How long a prompt counts as held where it was routed to; see [`Client::routed`](crate::Client::routed).
    #[must_use]
    pub fn speculative_ttl(mut self, ttl: Duration) -> Self {
        self.speculative_ttl = ttl.min(LONGEST);
        self
    }

    /// A name stands for as many nodes as it has addresses, such as that of a headless service. They are looked up again
    /// every 10 s, and every second while one is left out. Otherwise a name is one node, and looked up with each new
    /// connection.
    #[must_use]
    pub fn every_address(mut self) -> Self {
        self.every_address = true;
        self
    }

    /// The token that goes with every call, for nodes that ask for one. White space around it is left out, such as
    /// the line end of a file.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::new(token);
        self
    }

    /// The same from a file, which is read again every 5 s, so that a token can be replaced while the client runs.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token_file = Some(path.into());
        self
    }

    pub(crate) fn bearer(&self) -> Result<Bearer, ConnectError> {
        let Some(path) = &self.token_file else { return self.token.bearer().ok_or(ConnectError::Token) };
        let unusable = |reason: String| ConnectError::TokenFile { path: path.clone(), reason };
        Token::read(path).map_err(unusable)?.bearer().ok_or(ConnectError::Token)
    }

    pub(crate) fn token_path(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// The same for another node of the cluster, and for that one alone.
    #[must_use]
    pub fn with_server(mut self, server: impl Into<String>) -> Self {
        self.servers = vec![server.into()];
        self
    }

    /// The CA that must have signed the node's certificate, as PEM; needed for `https`.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// The certificate that this client shows, and its private key, as PEM.
    #[must_use]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some((pem.into(), key.into()));
        self
    }

    /// The name that the node's certificate must carry, where that is not the host of the address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.tls.server_name = Some(name.into());
        self
    }

    /// The first address as given.
    #[must_use]
    pub fn server(&self) -> &str {
        self.servers.first().map_or("", String::as_str)
    }

    /// All addresses as given.
    #[must_use]
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// A connection to `server`, at one of its addresses or at whichever answers.
    pub(crate) fn channel(&self, server: &str, at: Option<SocketAddr>) -> Result<Channel, ConnectError> {
        let refuse =
            |reason: &str| ConnectError::Address { server: server.to_owned(), reason: reason.to_owned() };
        let read = |address: String| {
            Endpoint::from_shared(address).map_err(|error| refuse(&error::root_cause(&error)))
        };
        let named = read(server.to_owned())?;
        let (scheme, authority) = (named.uri().scheme_str(), named.uri().authority());
        let scheme = match (scheme, authority) {
            (Some("http"), Some(_)) if self.tls.is_unset() => "http",
            (Some("http"), Some(_)) => return Err(refuse("certificates are of use with https:// only")),
            (Some("https"), Some(_)) => "https",
            (Some("http" | "https") | None, _) => return Err(refuse("has no host or no scheme")),
            (Some(_), _) => return Err(refuse("only http and https are supported")),
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(ConnectError::NoRuntime);
        }
        // The name stays what the node is called by, in its certificate and in what is sent.
        let endpoint = match at {
            Some(address) => read(format!("{scheme}://{address}"))?.origin(named.uri().clone()),
            None => named.clone(),
        };
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if scheme != "https" {
            return Ok(endpoint.connect_lazy());
        }
        let tls = self.tls.config(named.uri()).map_err(|reason| refuse(&reason))?;
        let unusable = |error| ConnectError::Certificates { reason: error::root_cause(&error) };
        Ok(endpoint.tls_config(tls).map_err(unusable)?.connect_lazy())
    }
}
