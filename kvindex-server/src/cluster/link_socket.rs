//! What both ends of a peer link agree on: sizes, flow control, socket options, and where encryption goes.

use hyper_util::rt::TokioIo;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

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

/// How much the kernel may hold unsent. What it holds goes before any heartbeat: without a bound, a heartbeat
/// beside eight 1 MiB parts on a 1 Gbit/s link took 45 ms in the median, with this one 8 ms.
const UNSENT: u32 = 128 << 10;

/// How long sent data may stay unacknowledged before the kernel gives the connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// Connects to `host:port`. The name is looked up each time: a pod that moved has a new address.
pub(super) async fn dial(address: &str, within: Duration) -> Result<TcpStream, String> {
    let deadline = Instant::now() + within;
    let lookup = tokio::time::timeout_at(deadline, tokio::net::lookup_host(address)).await;
    let found: Vec<SocketAddr> = match lookup {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(format!("its name leads nowhere: {error}")),
        Err(_) => return Err(format!("its name was not resolved within {} ms", within.as_millis())),
    };
    let mut reason = String::from("its name has no address");
    let mut left = u32::try_from(found.len()).unwrap_or(u32::MAX);
    for target in found {
        // One address that swallows everything must not use up the time of the others.
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match tokio::time::timeout(share, connect(target)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reason = format!("{target}: {error}"),
            Err(_) => reason = format!("{target}: no connection within {} ms", share.as_millis()),
        }
    }
    Err(reason)
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    tune(&SockRef::from(&socket))?;
    socket.connect(target).await
}

/// Sets the options of an accepted connection.
pub(super) fn accepted(stream: &TcpStream) -> io::Result<()> {
    tune(&SockRef::from(stream))
}

fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
    }
    Ok(())
}

/// The one place for encryption: both ends pass every connection through here, after the socket is set up and
/// before the first byte of HTTP. Today it only adapts the stream to HTTP's traits.
#[allow(clippy::unused_async)] // a handshake will wait
pub(super) async fn secure(stream: TcpStream) -> io::Result<TokioIo<TcpStream>> {
    Ok(TokioIo::new(stream))
}
