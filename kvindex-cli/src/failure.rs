//! Exit codes: what went wrong decides the code, and every message says the next step where there is one.

use kvindex_client::{CallError, UnknownReason};
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::printable;

/// An end that is not plain failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong use: exit code 2, as for everything that clap refuses.
    Usage(String),
    /// The server cannot be reached or does not answer: exit code 3.
    Unreachable { server: String, reason: String },
    /// Kubernetes' API server cannot be reached: exit code 3.
    NoApiServer(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::NoApiServer(message) => f.write_str(message),
            Self::Unreachable { server, reason } => {
                write!(f, "{reason}\nis `kvindex serve` running at {server}? (--server, KVINDEX_SERVER)")
            }
        }
    }
}

impl std::error::Error for Failure {}

/// An error of wrong use.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure::Usage(message.into()).into()
}

/// The error of an admin call to `server`.
pub(crate) fn of_call(server: &str, error: CallError) -> anyhow::Error {
    match error {
        CallError::TimedOut { .. } | CallError::Unreachable { .. } => {
            Failure::Unreachable { server: server.to_owned(), reason: error.to_string() }.into()
        }
        CallError::Refused { code, message } => {
            let next = next_step(&format!("{code:?}"));
            anyhow::anyhow!("the server at {server} refused: {message}{next}")
        }
    }
}

/// The error of a routing call to `server`.
pub(crate) fn of_unknown(server: &str, reason: &UnknownReason) -> anyhow::Error {
    match reason {
        UnknownReason::TimedOut { .. } | UnknownReason::Unreachable { .. } => {
            Failure::Unreachable { server: server.to_owned(), reason: reason.to_string() }.into()
        }
        UnknownReason::Refused { code, message } => {
            anyhow::anyhow!("the server at {server} refused: {message}{}", next_step(code))
        }
    }
}

/// What may be done about a refusal; its message says what was wrong with a field. The code comes in either of two
/// spellings.
fn next_step(code: &str) -> &'static str {
    match code.replace('_', "").to_ascii_lowercase().as_str() {
        "unauthenticated" => "\ngive a token: --token-file, or KVINDEX_TOKEN; `kvindex token new` makes one",
        "permissiondenied" => "\nuse a token with that right, for that tenant: see docs/access.md",
        "resourceexhausted" => "\nask less at once, or later; the node's limits are in docs/configuration.md",
        "unavailable" | "aborted" => "\ntry again; `kvindex doctor` looks at what the node lacks",
        "unimplemented" => {
            "\nthe node is older than this program: `kvindex --version` tells this one's version"
        }
        _ => "",
    }
}

/// Prints an error and answers its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let is_closed_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_closed_pipe) {
        // Whoever reads has seen enough, as in `kvindex watch | head`.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", printable::lines(&format!("{error:#}")));
    match error.downcast_ref() {
        Some(Failure::Usage(_)) => ExitCode::from(2),
        Some(Failure::Unreachable { .. } | Failure::NoApiServer(_)) => ExitCode::from(3),
        None => ExitCode::FAILURE,
    }
}
