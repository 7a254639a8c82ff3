//! A routing answer, which is never an error.

use std::fmt;
use std::time::Duration;

use kvindex_proto::v1;
use tonic::Code;

use crate::error::CallError;

/// What the index says about a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The index answered.
    Known(v1::MatchResponse),
    /// It did not, so route as if there were no index.
    Unknown {
        /// Why; for logs and counters, not for decisions about the request.
        reason: UnknownReason,
    },
}

/// Why an answer is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownReason {
    /// No answer within the routing timeout.
    TimedOut {
        /// The timeout.
        after: Duration,
    },
    /// There is no connection to the node, or it was lost during the call.
    Unreachable {
        /// What the transport says.
        reason: String,
    },
    /// The node refused the question: a bug in the caller, or a limit of the node.
    Refused {
        /// Word for the kind of refusal, such as `invalid_argument`.
        code: String,
        /// For people; begins with the offending field when there is one.
        message: String,
    },
}

impl Answer {
    /// The answer, if there is one.
    ///
    /// ```
    /// use kvindex_client::{Answer, v1::MatchResponse};
    ///
    /// assert!(Answer::Known(MatchResponse::default()).known().is_some());
    /// ```
    #[must_use]
    pub fn known(self) -> Option<v1::MatchResponse> {
        match self {
            Self::Known(response) => Some(response),
            Self::Unknown { .. } => None,
        }
    }

    pub(crate) fn unknown(error: CallError) -> Self {
        let reason = match error {
            CallError::TimedOut { after } => UnknownReason::TimedOut { after },
            CallError::Unreachable { reason } => UnknownReason::Unreachable { reason },
            CallError::Refused { code, message } => UnknownReason::Refused { code: word(code), message },
        };
        // Debug only: with the index down this happens for every request, and the caller counts it.
        tracing::debug!(%reason, "the index's answer is unknown");
        Self::Unknown { reason }
    }

    /// One question's part of a batch or stream.
    pub(crate) fn from_parts(response: Option<v1::MatchResponse>, error: Option<v1::Error>) -> Self {
        match (response, error) {
            (Some(response), _) => Self::Known(response),
            (None, error) => {
                let error = error.unwrap_or_default();
                let reason = UnknownReason::Refused { code: error.code, message: error.message };
                tracing::debug!(%reason, "the index's answer is unknown");
                Self::Unknown { reason }
            }
        }
    }
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => write!(f, "no answer within {} ms", after.as_millis()),
            Self::Unreachable { reason } => write!(f, "cannot reach the server: {reason}"),
            Self::Refused { code, message } => write!(f, "refused ({code}): {message}"),
        }
    }
}

/// The code's name in snake case, as answers within a batch carry it.
fn word(code: Code) -> String {
    let mut word = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}
