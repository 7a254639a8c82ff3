//! Options of the sockets of all doors and links: which connection counts as dead, and how soon.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// How much the kernel may hold unsent of a peer link. What it holds goes before any heartbeat: without a bound, a
/// heartbeat beside eight 1 MiB parts on a 1 Gbit/s link took 45 ms in the median, with this one 8 ms.
const UNSENT: u32 = 128 << 10;

/// How long another node may leave sent data unacknowledged before the kernel gives the connection up.
const PEER_UNACKNOWLEDGED: Duration = Duration::from_secs(3);

/// The same of a client, who may be far away. It also ends an HTTP/1 client that has stopped reading; of
/// HTTP/2 see `answer.rs`.
const CLIENT_UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Silence before the kernel asks whether the other end is still there, and between two questions.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Sets the options of a connection between nodes.
pub(crate) fn tune_peer(socket: &SockRef<'_>) -> io::Result<()> {
    tune(socket, PEER_UNACKNOWLEDGED)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// Sets the options of a client's connection.
pub(crate) fn tune_client(stream: &TcpStream) -> io::Result<()> {
    tune(&SockRef::from(stream), CLIENT_UNACKNOWLEDGED)
}

fn tune(socket: &SockRef<'_>, unacknowledged: Duration) -> io::Result<()> {
    // Small answers must not wait for more.
    socket.set_tcp_nodelay(true)?;
    let (idle, between) = KEEP_ALIVE;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(between))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    Ok(())
}
