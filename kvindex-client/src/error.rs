//! What can go wrong with a call, and whether trying again may help.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use crate::stats::Outcome;

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

/// What a call's end says about the endpoint that was called.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// For people.
    pub(crate) text: String,
    /// The call certainly had no effect: it was never sent.
    pub(crate) unsent: bool,
    /// What a refusal counts as, in time.
    pub(crate) penalty: Duration,
}

impl Verdict {
    pub(crate) fn answered() -> Self {
        Self { outcome: Outcome::Answered, text: String::new(), unsent: false, penalty: Duration::ZERO }
    }

    /// A stream stands; what it is worth its answers will say.
    pub(crate) fn opened() -> Self {
        Self { outcome: Outcome::Opened, ..Self::answered() }
    }

    /// A stream's answer that lay here before it was read: how long the node took is not known.
    pub(crate) fn read_late() -> Self {
        Self { outcome: Outcome::ReadLate, ..Self::answered() }
    }

    pub(crate) fn overtaken() -> Self {
        Self { outcome: Outcome::Overtaken, ..Self::answered() }
    }

    pub(crate) fn stale() -> Self {
        Self { outcome: Outcome::Stale, ..Self::answered() }
    }

    pub(crate) fn timed_out() -> Self {
        Self { outcome: Outcome::TimedOut, text: "no answer in time".into(), ..Self::answered() }
    }

    /// The call took `within` at most.
    pub(crate) fn of(status: &Status, error: &CallError, within: Duration) -> Self {
        let code = status.code();
        // The node names a time to wait for when it has too much to do, and not when the question is too large.
        let is_full = code == Code::ResourceExhausted && status.metadata().contains_key(PUSHBACK);
        let outcome = match error {
            CallError::TimedOut { .. } => Outcome::TimedOut,
            CallError::Unreachable { .. } => Outcome::Unavailable,
            CallError::Refused { .. } if is_full => Outcome::Overloaded,
            CallError::Refused { code, .. } => match code {
                Code::Unavailable | Code::Aborted | Code::Internal | Code::Unknown | Code::DataLoss => {
                    Outcome::Unavailable
                }
                _ => Outcome::Refused,
            },
        };
        Self { outcome, text: error.to_string(), unsent: was_not_sent(status), penalty: within }
    }

    /// Whether another endpoint may do better.
    pub(crate) fn is_the_endpoints(&self) -> bool {
        matches!(self.outcome, Outcome::Unavailable | Outcome::Overloaded | Outcome::TimedOut)
    }
}

/// What nodes say when they have too much to do: how long to wait.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Whether there was no connection to send it on.
fn was_not_sent(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Bounds a call in time, connecting included.
pub(crate) async fn within<T>(
    after: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, (CallError, Verdict)> {
    match tokio::time::timeout(after, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let error = CallError::from_status(&status);
            let verdict = Verdict::of(&status, &error, after);
            Err((error, verdict))
        }
        Err(_) => Err((CallError::TimedOut { after }, Verdict::timed_out())),
    }
}
