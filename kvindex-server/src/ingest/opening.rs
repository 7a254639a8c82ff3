//! What is refused before a stream is followed: texts that are no endpoints, addresses that cannot be had. Each
//! refusal names the field.

use kvindex_core::StreamId;

use super::limits::MAX_ENDPOINT_BYTES;
use super::replay::open_dealer;
use super::service::Subscription;
use super::subscriber::Link;
use crate::endpoints::Endpoint;

/// Why the service cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// An address that ZeroMQ cannot connect to.
    #[error("{field}: cannot connect to {endpoint:?}: {source}")]
    BadEndpoint {
        /// `endpoint` or `replay_endpoint`.
        field: &'static str,
        /// The address.
        endpoint: String,
        /// ZeroMQ's word on it.
        source: zmq::Error,
    },
    /// An address of a kind that reaches no engine.
    #[error("{field}: {message}")]
    UnsupportedEndpoint {
        /// `endpoint` or `replay_endpoint`.
        field: &'static str,
        /// What is wrong with it; names the address.
        message: String,
    },
    /// An address to wait at for the engine is not to be had.
    #[error("{field}: cannot bind {endpoint:?}: {}", why_not_bound(*.source))]
    NotBound {
        /// `endpoint`.
        field: &'static str,
        /// The address.
        endpoint: String,
        /// ZeroMQ's word on it.
        source: zmq::Error,
    },
    /// A text is too long.
    #[error("{field}: {len} bytes, the limit is {limit}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream is followed already.
    #[error("stream {0} is followed already")]
    AlreadyFollowed(StreamId),
    /// A socket of the service's own failed.
    #[error("ingest socket: {0}")]
    Socket(#[from] zmq::Error),
    /// The service was given no threads.
    #[error("threads: 0, at least 1 is needed")]
    NoThreads,
    /// A thread could not be started.
    #[error("cannot start an ingest thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The service was shut down.
    #[error("ingest is shut down")]
    ShutDown,
}

/// Opens a stream's subscription; its replay socket is opened once to see that it can be.
pub(super) fn open(
    context: &zmq::Context,
    source: &Subscription,
    endpoint: &Endpoint,
    name: u64,
) -> Result<Link, IngestError> {
    if let Some(replay) = &source.replay_endpoint {
        open_dealer(context, replay).map_err(|error| bad_endpoint("replay_endpoint", replay, error))?;
    }
    Link::open(context, endpoint, &source.topic, name).map_err(|error| match error {
        source if endpoint.binds() && !is_ours(source) => {
            IngestError::NotBound { field: "endpoint", endpoint: endpoint.to_string(), source }
        }
        error => bad_endpoint("endpoint", &source.endpoint, error),
    })
}

fn bad_endpoint(field: &'static str, endpoint: &str, source: zmq::Error) -> IngestError {
    match source {
        zmq::Error::EINVAL | zmq::Error::EPROTONOSUPPORT | zmq::Error::ENOCOMPATPROTO => {
            IngestError::BadEndpoint { field, endpoint: endpoint.into(), source }
        }
        other => IngestError::Socket(other),
    }
}

/// Whether a failed bind says nothing about the address: no sockets are left, or the service is ending.
fn is_ours(error: zmq::Error) -> bool {
    matches!(error, zmq::Error::EMFILE | zmq::Error::ETERM | zmq::Error::ENOTSOCK | zmq::Error::EMTHREAD)
}

fn why_not_bound(error: zmq::Error) -> String {
    match error {
        zmq::Error::EADDRINUSE => {
            "the address is in use, by another stream's endpoint or another program on this machine".into()
        }
        zmq::Error::EADDRNOTAVAIL | zmq::Error::ENODEV => "this machine has no such address".into(),
        zmq::Error::EACCES => "binding this port is not permitted".into(),
        other => other.to_string(),
    }
}

pub(super) fn check_text(field: &'static str, text: &str) -> Result<(), IngestError> {
    match text.len() {
        len if len > MAX_ENDPOINT_BYTES => {
            Err(IngestError::TooLong { field, len, limit: MAX_ENDPOINT_BYTES })
        }
        _ => Ok(()),
    }
}

/// Refuses what ZeroMQ would take but cannot mean an engine, and what it would find wrong only later, out of
/// sight: other transports, bad ports.
pub(super) fn check_endpoint(
    field: &'static str,
    endpoint: &str,
    parse: impl Fn(&str) -> Result<Endpoint, String>,
) -> Result<Endpoint, IngestError> {
    check_text(field, endpoint)?;
    parse(endpoint).map_err(|message| IngestError::UnsupportedEndpoint { field, message })
}
