//! By which of its addresses a named engine is reached. libzmq takes one address of a name, and with IPv6 allowed that
//! is an IPv6 one where there is any: an engine that listens on the other family is never found. So names are resolved
//! here, all addresses are tried at once, and the one that answers is what ZeroMQ is told.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::net::{HostPort, race, resolve};

/// Questions that may wait. A stream has one at a time, and asks again when it was not heard.
const QUEUE: usize = 1024;

/// How long one search may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// First and longest pause between two searches for an engine, in milliseconds: those of ZeroMQ's own attempts.
const AGAIN_MS: (u64, u64) = (100, 5_000);

/// When a search that was not answered counts as lost.
const LOST_MS: u64 = 2 * PATIENCE.as_millis() as u64;

/// Where is this engine?
pub(super) struct Ask {
    pub(super) host: HostPort,
    /// Told the address that took a connection, if one did.
    pub(super) answer: Box<dyn FnOnce(Option<SocketAddr>) + Send>,
}

/// Starts the thread that searches; it ends when nobody can ask any more.
pub(super) fn start() -> io::Result<(mpsc::Sender<Ask>, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (asks, asked) = mpsc::channel(QUEUE);
    let thread = std::thread::Builder::new().name("ingest-guide".into()).spawn(move || {
        runtime.block_on(answer(asked));
        // The resolver may be at it for long.
        runtime.shutdown_background();
    })?;
    Ok((asks, thread))
}

async fn answer(mut asked: mpsc::Receiver<Ask>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            ask = asked.recv() => match ask {
                Some(Ask { host, answer }) => {
                    under_way.spawn(async move { answer(search(&host).await) });
                }
                None => return,
            },
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// A connection is the proof; it is closed at once, before a word.
async fn search(host: &HostPort) -> Option<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    let found = match resolve(host, deadline).await {
        Ok(targets) => {
            let connect = |target| async move { TcpStream::connect(target).await.map(|_| target) };
            race(targets, deadline, connect).await
        }
        Err(error) => Err(error),
    };
    found.inspect_err(|error| tracing::debug!(%host, %error, "a named engine is not found yet")).ok()
}

/// A named engine's address over time: known, being searched for, or to be searched for again.
#[derive(Debug)]
pub(super) struct Trail {
    host: HostPort,
    /// The address that ZeroMQ was told.
    told: Option<SocketAddr>,
    asked_ms: Option<u64>,
    next_ms: u64,
    pause_ms: u64,
}

impl Trail {
    pub(super) fn new(host: HostPort) -> Self {
        Self { host, told: None, asked_ms: None, next_ms: 0, pause_ms: AGAIN_MS.0 }
    }

    /// Whom to search for now, if anybody: while the engine is connected its address is good.
    pub(super) fn question(&mut self, connected: bool, now_ms: u64) -> Option<HostPort> {
        if connected {
            (self.next_ms, self.pause_ms) = (now_ms, AGAIN_MS.0);
            return None;
        }
        let waits = self.asked_ms.is_some_and(|at| now_ms < at.saturating_add(LOST_MS));
        if waits || now_ms < self.next_ms {
            return None;
        }
        self.asked_ms = Some(now_ms);
        self.next_ms = now_ms.saturating_add(self.pause_ms);
        self.pause_ms = (self.pause_ms * 2).min(AGAIN_MS.1);
        Some(self.host.clone())
    }

    /// Takes an answer in: where ZeroMQ is to connect from now on, and what it is to leave, where that is new.
    pub(super) fn found(&mut self, address: Option<SocketAddr>) -> Option<(SocketAddr, Option<SocketAddr>)> {
        self.asked_ms = None;
        let address = address.filter(|address| self.told != Some(*address))?;
        Some((address, self.told.replace(address)))
    }

    /// The address of `other` if it is the same host: the replay socket's beside the publisher's.
    pub(super) fn beside(&self, other: &HostPort) -> Option<SocketAddr> {
        let told = self.told.filter(|_| other.host == self.host.host)?;
        Some(SocketAddr::new(told.ip(), other.port))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn trail() -> Trail {
        Trail::new(HostPort::parse("engine:5557").unwrap())
    }

    #[test]
    fn an_engine_that_is_away_is_searched_for_ever_more_rarely() {
        let mut trail = trail();
        let mut asked = Vec::new();
        for now in (0..20_000).step_by(10) {
            if trail.question(false, now).is_some() {
                asked.push(now);
                assert_eq!(trail.found(None), None);
            }
        }
        assert_eq!(asked, [0, 100, 300, 700, 1500, 3100, 6300, 11_300, 16_300]);
        // It came, and went: searched for at once.
        assert_eq!(trail.question(true, 20_000), None);
        assert!(trail.question(false, 20_010).is_some());
    }

    #[test]
    fn one_question_at_a_time_unless_it_was_lost() {
        let mut trail = trail();
        assert!(trail.question(false, 0).is_some());
        assert!(trail.question(false, LOST_MS - 1).is_none());
        assert!(trail.question(false, LOST_MS).is_some());
    }

    #[test]
    fn a_new_address_takes_the_old_ones_place() {
        let mut trail = trail();
        let (a, b) = (address("10.0.0.1:5557"), address("[fd00::1]:5557"));
        assert_eq!(trail.found(Some(a)), Some((a, None)));
        assert_eq!(trail.found(Some(a)), None, "ZeroMQ connects again by itself");
        assert_eq!(trail.found(None), None);
        assert_eq!(trail.found(Some(b)), Some((b, Some(a))));
        let replay = |text: &str| trail.beside(&HostPort::parse(text).unwrap());
        assert_eq!(replay("engine:5558"), Some(address("[fd00::1]:5558")));
        assert_eq!(replay("other:5558"), None);
    }

    #[tokio::test]
    async fn the_address_that_answers_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // `localhost` may be ::1 as well, where nobody listens.
        let host = HostPort::parse(&format!("localhost:{port}")).unwrap();
        assert_eq!(search(&host).await, Some(listener.local_addr().unwrap()));
        drop(listener);
        assert_eq!(search(&host).await, None);
    }
}
