//! How nodes reach each other: one call, bytes to bytes. What carries it is the hosting program's: gRPC in service,
//! a simulated network in tests.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use std::time::Duration;

/// Why a call brought no answer. The other side may have done what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no connection.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("{address} did not answer within {} ms", .after.as_millis())]
    Timeout {
        /// Where.
        address: String,
        /// The time given.
        after: Duration,
    },
}

/// Calls other nodes.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Sends `request` to the node at `address`, `host:port`, and waits for its answer at most `timeout`. Requests
    /// may overtake each other.
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>>;

    /// Whether a call to `address` that can wait, or go elsewhere, should be made now. What keeps a cluster alive does
    /// not ask.
    fn admits(&self, _address: &str) -> bool {
        true
    }
}
