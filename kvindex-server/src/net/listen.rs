//! Listening: on both families with one socket where a machine has both, and on what it has where it has one.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on `address`. `[::]` takes IPv4 too, whatever the system's default is; where there is no IPv6 it becomes
/// `0.0.0.0`, which is said once in the log.
///
/// # Errors
/// When the address is taken, not this machine's, or not permitted.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let address = super::address::canonical(address);
    match bound(address) {
        Err(error) if address.ip() == IpAddr::from([0u16; 8]) && is_without_v6(&error) => {
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            let listener = bound(v4)?;
            tracing::warn!(%address, instead = %v4, %error, "no IPv6 here: listening on IPv4 only");
            Ok(listener)
        }
        done => done,
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The default differs between systems and is a setting on Linux (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    // A node that starts again must not wait for its own old connections.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A kernel without IPv6 has no such sockets; one with IPv6 switched off may have no such address.
fn is_without_v6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpStream;

    fn has_v6() -> bool {
        std::net::TcpListener::bind("[::1]:0").is_ok()
    }

    #[tokio::test]
    async fn one_listener_takes_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        let from = super::super::address::canonical(from);
        assert_eq!(from, client.local_addr().unwrap(), "an IPv4 client is told by its IPv4 address");
        if !has_v6() {
            eprintln!("SKIPPED: no IPv6 on loopback");
            return;
        }
        assert!(listener.local_addr().unwrap().is_ipv6());
        let client = TcpStream::connect(("::1", port)).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn an_address_written_as_ipv6_but_meant_as_ipv4_is_listened_on() {
        let listener = listen("[::ffff:127.0.0.1]:0".parse().unwrap()).unwrap();
        assert_eq!(listener.local_addr().unwrap().ip().to_string(), "127.0.0.1");
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_missing_ipv6_makes_it_fall_back() {
        use rustix::io::Errno;
        let of = |errno: Errno| is_without_v6(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert!(of(Errno::AFNOSUPPORT) && of(Errno::ADDRNOTAVAIL));
        assert!(!of(Errno::ADDRINUSE) && !of(Errno::ACCESS));
    }
}
