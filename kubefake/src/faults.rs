//! What goes wrong on demand.

use std::time::Duration;

/// Faults that hold until they are taken back.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Every request is answered with this status, such as 429 or 500.
    pub answer: Option<u16>,
    /// A version that is too old is told inside a stream that begins with 200, not as a status.
    pub expire_in_stream: bool,
    /// Between two bookmarks.
    pub bookmark_every: Duration,
    /// Lists wait so long.
    pub slow_lists: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            answer: None,
            expire_in_stream: false,
            bookmark_every: Duration::from_secs(60),
            slow_lists: Duration::ZERO,
        }
    }
}

/// What happens to every open watch at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The connection breaks.
    Cut,
    /// It breaks in the middle of a line.
    HalfLine,
    /// The server says that the version has expired.
    Expire,
    /// The server says that something else is wrong.
    Error(u16),
}
