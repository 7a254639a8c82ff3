//! Dialling a name that has many addresses, some of which may swallow everything: Happy Eyeballs (RFC 8305). Families
//! take turns, a new attempt begins 250 ms after the last or when one fails, the first connection wins.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::{HostPort, canonical};
use super::socket;

/// Between the beginnings of two attempts: RFC 8305's recommended value.
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of a name that are tried. With more it is not one host, and eight attempts fit into two seconds.
const MAX_TARGETS: usize = 8;

/// Why nobody was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct DialError {
    /// What each address said.
    pub(crate) reason: String,
    /// Whether some address said nothing at all: then it may be the path that is broken, not the host.
    pub(crate) silent: bool,
}

impl DialError {
    fn told(reason: String) -> Self {
        Self { reason, silent: false }
    }
}

/// Connects to `host:port` as a peer link does. The name is looked up each time: a pod that moved has a new address.
pub(crate) async fn dial(address: &str, within: Duration) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + within;
    let address =
        HostPort::parse(address).map_err(|error| DialError::told(format!("{address:?} {error}")))?;
    let targets = resolve(&address, deadline).await?;
    race(targets, deadline, connect).await
}

/// The addresses of a host, families taking turns.
pub(crate) async fn resolve(address: &HostPort, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let began = Instant::now();
    let host = address.host.to_look_up();
    let lookup = timeout_at(deadline, tokio::net::lookup_host((host.as_str(), address.port))).await;
    match lookup {
        Ok(Ok(found)) => match interleaved(found) {
            targets if targets.is_empty() => Err(DialError::told("its name has no address".into())),
            targets => Ok(targets),
        },
        Ok(Err(error)) => Err(DialError::told(format!("its name leads nowhere: {error}"))),
        Err(_) => {
            let waited = began.elapsed().as_millis();
            Err(DialError::told(format!("its name was not resolved within {waited} ms")))
        }
    }
}

/// The resolver's order within each family, beginning with the family that it put first.
fn interleaved(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut families = [Vec::new(), Vec::new()];
    let mut first_is_v6 = None;
    for address in found.into_iter().map(canonical) {
        let v6 = address.is_ipv6();
        let family = &mut families[usize::from(v6 != *first_is_v6.get_or_insert(v6))];
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let [first, second] = families;
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let turns = std::iter::from_fn(|| {
        let pair = [first.next(), second.next()];
        pair.iter().any(Option::is_some).then_some(pair)
    });
    turns.flatten().flatten().take(MAX_TARGETS).collect()
}

/// Races attempts; those that lose are dropped, which closes them.
pub(crate) async fn race<T, F>(
    targets: Vec<SocketAddr>,
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, DialError>
where
    F: Future<Output = io::Result<T>>,
{
    let began = Instant::now();
    let mut waiting = targets.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut tried = Vec::new();
    let mut reasons = Vec::new();
    let mut next_at = began;
    loop {
        if (Instant::now() >= next_at || under_way.is_empty())
            && let Some(target) = waiting.next()
        {
            tried.push(target);
            let attempt = connect(target);
            under_way.push(async move { (target, attempt.await) });
            next_at = Instant::now() + STAGGER;
        }
        if under_way.is_empty() {
            return Err(DialError::told(reasons.join(", ")));
        }
        tokio::select! {
            Some((target, ended)) = under_way.next() => match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    tried.retain(|other| *other != target);
                    reasons.push(format!("{target}: {error}"));
                    next_at = Instant::now();
                }
            },
            () = sleep_until(next_at), if waiting.len() > 0 => {}
            () = sleep_until(deadline) => {
                let waited = began.elapsed().as_millis();
                reasons.extend(tried.iter().map(|target| format!("{target}: no connection within {waited} ms")));
                return Err(DialError { reason: reasons.join(", "), silent: true });
            }
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket::tune_peer(&SockRef::from(&socket))?;
    socket.connect(target).await
}

#[cfg(test)]
#[path = "dial_test.rs"]
mod tests;
