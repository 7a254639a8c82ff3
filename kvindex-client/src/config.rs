//! Where the node is and how long to wait for it.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::error;
use crate::tls::Tls;
use crate::token::{Bearer, Token};

/// How long a routing call may take: an index that answers later costs the user more than it saves.
pub const DEFAULT_ROUTING_TIMEOUT: Duration = Duration::from_millis(20);

/// How long an admin call may take.
pub const DEFAULT_ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers list every worker; gRPC's own default of 4 MiB would refuse those of a large fleet.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Longest wait for one TCP connection, after which a new one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Silence after which the connection is probed, so that a node that vanished without a word is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a probe may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the node is and how long to wait for it.
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
    server: String,
    pub(crate) routing_timeout: Duration,
    pub(crate) admin_timeout: Duration,
    pub(crate) max_answer_bytes: usize,
    token: Token,
    tls: Tls,
}

/// Why a client cannot be made. That nobody answers is no such reason: the connection is made by the first
/// call, and again whenever it is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
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
        Self {
            server: server.into(),
            routing_timeout: DEFAULT_ROUTING_TIMEOUT,
            admin_timeout: DEFAULT_ADMIN_TIMEOUT,
            max_answer_bytes: MAX_ANSWER_BYTES,
            token: Token::default(),
            tls: Tls::default(),
        }
    }

    /// How long a routing call may take before its answer is unknown.
    #[must_use]
    pub fn routing_timeout(mut self, timeout: Duration) -> Self {
        self.routing_timeout = timeout;
        self
    }

    /// How long an admin call may take.
    #[must_use]
    pub fn admin_timeout(mut self, timeout: Duration) -> Self {
        self.admin_timeout = timeout;
        self
    }

    /// Largest answer taken in, in bytes.
    #[must_use]
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// The token that goes with every call, for nodes that ask for one. White space around it is left out, such as
    /// the line end of a file.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::new(token);
        self
    }

    pub(crate) fn bearer(&self) -> Result<Bearer, ConnectError> {
        self.token.bearer().ok_or(ConnectError::Token)
    }

    /// The same for another node of the cluster.
    #[must_use]
    pub fn with_server(mut self, server: impl Into<String>) -> Self {
        self.server = server.into();
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

    /// The address as given.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn channel(&self) -> Result<Channel, ConnectError> {
        let refuse =
            |reason: &str| ConnectError::Address { server: self.server.clone(), reason: reason.to_owned() };
        let endpoint =
            Endpoint::from_shared(self.server.clone()).map_err(|error| refuse(&error::root_cause(&error)))?;
        match (endpoint.uri().scheme_str(), endpoint.uri().authority()) {
            (Some("http"), Some(_)) if self.tls.is_unset() => {}
            (Some("http"), Some(_)) => return Err(refuse("certificates are of use with https:// only")),
            (Some("https"), Some(_)) => {}
            (Some("http" | "https") | None, _) => return Err(refuse("has no host or no scheme")),
            (Some(_), _) => return Err(refuse("only http and https are supported")),
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(ConnectError::NoRuntime);
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint.connect_lazy());
        }
        let tls = self.tls.config(endpoint.uri()).map_err(|reason| refuse(&reason))?;
        let unusable = |error| ConnectError::Certificates { reason: error::root_cause(&error) };
        Ok(endpoint.tls_config(tls).map_err(unusable)?.connect_lazy())
    }
}
