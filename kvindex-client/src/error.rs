//! What can go wrong with a call, and whether trying again may help.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

/// Why an admin call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No answer within the admin timeout. The call may or may not have taken effect.
    #[error("no answer within {} ms", after.as_millis())]
    TimedOut {
        /// The timeout.
        after: Duration,
    },
    /// There is no connection to the node, or it was lost during the call.
    #[error("cannot reach the server: {reason}")]
    Unreachable {
        /// What the transport says.
        reason: String,
    },
    /// The node refused the call.
    #[error("{message}")]
    Refused {
        /// gRPC code, which says what kind of refusal it is.
        code: Code,
        /// For people; begins with the offending field when there is one.
        message: String,
    },
}

impl CallError {
    /// Whether the same call may succeed later: the node was away or full, not opposed.
    ///
    /// ```
    /// use kvindex_client::CallError;
    ///
    /// let away = CallError::Unreachable { reason: "connection refused".into() };
    /// assert!(away.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => {
                matches!(code, Code::Unavailable | Code::Aborted | Code::DeadlineExceeded)
            }
        }
    }

    pub(crate) fn from_status(status: &Status) -> Self {
        // The node puts neither a source nor these codes into its own refusals: they come from the transport.
        let broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        match status.source() {
            Some(source) => match crate::tls::explained(source) {
                Some(reason) => Self::Unreachable { reason },
                None if broken => Self::Unreachable { reason: root_cause(source) },
                None => Self::Refused { code: status.code(), message: status.message().to_owned() },
            },
            None => Self::Refused { code: status.code(), message: status.message().to_owned() },
        }
    }
}

/// The innermost cause: transports wrap "connection refused" in several layers of "transport error".
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Bounds a call in time, connecting included.
pub(crate) async fn within<T>(
    after: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(after, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CallError::from_status(&status)),
        Err(_) => Err(CallError::TimedOut { after }),
    }
}
