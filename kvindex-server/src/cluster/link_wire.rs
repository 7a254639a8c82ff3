//! What both ends of a peer link agree on: sizes and flow control.

use tokio::io::{AsyncRead, AsyncWrite};

/// The largest body. A snapshot comes in parts far below it, one entry of the log is smaller still.
pub(super) const MAX_BODY: usize = 64 << 20;

/// The largest message: a body and the few bytes that frame it.
pub(super) const MAX_MESSAGE: usize = MAX_BODY + 64;

/// Calls one connection carries at a time.
pub(super) const CALLS_PER_CONNECTION: u32 = 1024;

/// How much one call may have under way. The receiver gathers a whole message before it looks at it, so this
/// is no memory saved, only round trips lost when it is small.
pub(super) const STREAM_WINDOW: u32 = 8 << 20;

/// How much a connection may have under way. Several large calls together stay below it, so a heartbeat never
/// waits for another call's window.
pub(super) const CONNECTION_WINDOW: u32 = 128 << 20;

/// Calls take turns frame by frame, and a heartbeat of three frames waits for three of each large call. Larger
/// ones bring no throughput worth it.
pub(super) const FRAME: u32 = 16 << 10;

/// A connection, encrypted or not.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}
