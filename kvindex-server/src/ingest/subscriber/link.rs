//! One stream's subscription: its SUB socket, connected to the engine or bound for it, and the monitor that
//! tells who is at the other end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use zmq::SocketEvent;

use super::peers::{Change, Peers};
use crate::endpoints::Endpoint;
use crate::ingest::guide::Trail;
use crate::ingest::limits::MAX_FRAME_BYTES;
use crate::ingest::replay::receive;
use crate::net::HostPort;

/// Messages of one publisher that may wait unread: vLLM's own high-water mark on the sending side.
const RECEIVE_HIGH_WATER_MARK: i32 = 100_000;
/// First and longest pause between attempts to connect, in milliseconds.
const RECONNECT_MS: (i32, i32) = (100, 5_000);
/// Idle seconds before TCP keep-alive probes start, between probes, and probes until the peer counts as gone: a
/// vanished node is noticed within a minute.
const KEEPALIVE_S: (i32, i32, i32) = (30, 10, 3);
/// The longest wait for a bound port to be free again; it takes a thread switch.
const UNBIND_TIMEOUT: Duration = Duration::from_secs(1);

/// A subscription.
pub(in crate::ingest) struct Link {
    subscription: zmq::Socket,
    monitor: zmq::Socket,
    /// Where the monitor reads.
    monitored_at: String,
    peers: Peers,
    /// What is bound, as ZeroMQ calls it.
    bound: Option<String>,
    /// Where the engine is, when its host is a name.
    trail: Option<Trail>,
}

/// What became of the subscription's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEvent {
    /// A publisher came; so many are there now.
    Joined { publishers: usize },
    /// One left.
    Left { publishers: usize },
}

/// Three frames of a publication; the topic is not kept.
pub(super) enum Publication {
    Batch { seq: u64, payload: zmq::Message },
    Malformed,
    Nothing,
}

impl Link {
    /// Subscribes to `topic` at `endpoint`, by connecting to it, once its address is known, or by binding it. `name` makes the monitor's
    /// address unique in the context.
    ///
    /// # Errors
    /// When the endpoint is none or cannot be bound, or the context has no sockets left.
    pub(in crate::ingest) fn open(
        context: &zmq::Context,
        endpoint: &Endpoint,
        topic: &str,
        name: u64,
    ) -> zmq::Result<Self> {
        let subscription = subscription(context, topic)?;
        let address = format!("inproc://link-{name}");
        subscription.monitor(&address, monitored(endpoint.binds()))?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&address)?;
        let trail = endpoint.named().map(Trail::new);
        let mut link = Self {
            subscription,
            monitor,
            monitored_at: address,
            peers: Peers::default(),
            bound: None,
            trail,
        };
        if endpoint.binds() {
            link.subscription.bind(&endpoint.address())?;
            link.bound = link.subscription.get_last_endpoint()?.ok();
        } else if link.trail.is_none() {
            link.subscription.connect(&endpoint.address())?;
        }
        Ok(link)
    }

    /// Whether kvindex waits here for the engine to connect.
    pub(in crate::ingest) fn binds(&self) -> bool {
        self.bound.is_some()
    }

    /// The named engine to search for now, if there is one.
    pub(super) fn question(&mut self, now_ms: u64) -> Option<HostPort> {
        let connected = self.peers.publishers() > 0;
        self.trail.as_mut()?.question(connected, now_ms)
    }

    /// Connects to where a named engine was found, and no longer to where it was before.
    pub(super) fn found(&mut self, address: Option<SocketAddr>) -> zmq::Result<()> {
        let Some((now, before)) = self.trail.as_mut().and_then(|trail| trail.found(address)) else {
            return Ok(());
        };
        if let Some(before) = before {
            // It may have given up already.
            let _ = self.subscription.disconnect(&format!("tcp://{before}"));
        }
        self.subscription.connect(&format!("tcp://{now}"))
    }

    /// A replay endpoint as ZeroMQ reads it: at the publisher's address where its host is the publisher's name.
    pub(super) fn replay_address(&self, endpoint: &str) -> String {
        let named = Endpoint::parse_replay(endpoint).ok().and_then(|endpoint| endpoint.named());
        let beside = self.trail.as_ref().zip(named).and_then(|(trail, named)| trail.beside(&named));
        beside.map_or_else(|| endpoint.to_owned(), |address| format!("tcp://{address}"))
    }

    pub(super) fn poll_items(&self) -> [zmq::PollItem<'_>; 2] {
        [self.monitor.as_poll_item(zmq::POLLIN), self.subscription.as_poll_item(zmq::POLLIN)]
    }

    /// The next change of who publishes, if one is waiting.
    pub(super) fn event(&mut self) -> zmq::Result<Option<LinkEvent>> {
        while let Some((event, value)) = self.monitored_event()? {
            let change = match event {
                SocketEvent::CONNECTED | SocketEvent::ACCEPTED => Change::Opened(value),
                // The handshake, not the TCP connection: a proxy in between accepts also when the engine is away.
                SocketEvent::HANDSHAKE_SUCCEEDED => Change::Welcomed,
                SocketEvent::DISCONNECTED => Change::Closed(value),
                SocketEvent::CLOSED => continue, // a listener's end
                _ => Change::Refused,
            };
            let before = self.peers.publishers();
            self.peers.note(change);
            let publishers = self.peers.publishers();
            match publishers.cmp(&before) {
                std::cmp::Ordering::Greater => return Ok(Some(LinkEvent::Joined { publishers })),
                std::cmp::Ordering::Less => return Ok(Some(LinkEvent::Left { publishers })),
                std::cmp::Ordering::Equal => {}
            }
        }
        Ok(None)
    }

    /// What the monitor tells next: an event, and its descriptor or error number.
    fn monitored_event(&self) -> zmq::Result<Option<(SocketEvent, u32)>> {
        while let Some(frames) = receive(&self.monitor)? {
            let Some((number, value)) = frames.first().and_then(|frame| frame.split_first_chunk::<2>())
            else {
                continue;
            };
            let Some(value) = value.first_chunk::<4>() else {
                continue;
            };
            let event = SocketEvent::from_raw(u16::from_ne_bytes(*number));
            return Ok(Some((event, u32::from_ne_bytes(*value))));
        }
        Ok(None)
    }

    /// The next publication, if one is waiting.
    pub(super) fn publication(&self) -> zmq::Result<Publication> {
        let Some(mut frames) = receive(&self.subscription)? else {
            return Ok(Publication::Nothing);
        };
        if frames.len() != 3 {
            return Ok(Publication::Malformed);
        }
        let (Some(payload), Some(seq)) = (frames.pop(), frames.pop()) else {
            return Ok(Publication::Malformed);
        };
        Ok(match <[u8; 8]>::try_from(&*seq).map(u64::from_be_bytes) {
            Ok(seq) if seq != u64::MAX => Publication::Batch { seq, payload },
            _ => Publication::Malformed,
        })
    }

    /// Ends the telling while somebody still reads it. ZeroMQ's I/O thread waits for a reader without end, and with it
    /// every other engine of the context: it is enough that an engine goes while its subscription is being closed.
    fn end_monitor(&self) -> zmq::Result<()> {
        // What waits would be in the way of an event that is being told at this moment.
        while self.monitored_event()?.is_some() {}
        // Another monitor, of nothing, takes the place of the one there was.
        self.subscription.monitor(&self.monitored_at, 0)
    }

    /// Gives the port back now: ZeroMQ closes a listener in its own time, and whoever registers the worker anew
    /// must find the port free.
    fn unbind(&self, bound: &str) -> zmq::Result<()> {
        self.subscription.unbind(bound)?;
        let end = Instant::now() + UNBIND_TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero()
                || self.monitor.poll(zmq::POLLIN, i64::try_from(left.as_millis()).unwrap_or(0))? == 0
            {
                return Ok(());
            }
            while let Some((event, _)) = self.monitored_event()? {
                if event == SocketEvent::CLOSED {
                    return Ok(());
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(bound) = self.bound.take()
            && let Err(error) = self.unbind(&bound)
        {
            tracing::debug!(bound, %error, "the port is given back late");
        }
        if let Err(error) = self.end_monitor() {
            tracing::debug!(%error, at = self.monitored_at, "nothing is left to be told of there");
        }
    }
}

fn subscription(context: &zmq::Context, topic: &str) -> zmq::Result<zmq::Socket> {
    let subscription = context.socket(zmq::SUB)?;
    subscription.set_linger(0)?;
    subscription.set_ipv6(true)?;
    subscription.set_rcvhwm(RECEIVE_HIGH_WATER_MARK)?;
    subscription.set_maxmsgsize(MAX_FRAME_BYTES)?;
    subscription.set_reconnect_ivl(RECONNECT_MS.0)?;
    subscription.set_reconnect_ivl_max(RECONNECT_MS.1)?;
    subscription.set_tcp_keepalive(1)?;
    subscription.set_tcp_keepalive_idle(KEEPALIVE_S.0)?;
    subscription.set_tcp_keepalive_intvl(KEEPALIVE_S.1)?;
    subscription.set_tcp_keepalive_cnt(KEEPALIVE_S.2)?;
    subscription.set_subscribe(topic.as_bytes())?;
    Ok(subscription)
}

/// The events that [`Link::event`] understands, and the one that [`Link::unbind`] waits for.
fn monitored(binds: bool) -> i32 {
    let mut events = vec![
        SocketEvent::CONNECTED,
        SocketEvent::ACCEPTED,
        SocketEvent::HANDSHAKE_SUCCEEDED,
        SocketEvent::HANDSHAKE_FAILED_NO_DETAIL,
        SocketEvent::HANDSHAKE_FAILED_PROTOCOL,
        SocketEvent::HANDSHAKE_FAILED_AUTH,
        SocketEvent::DISCONNECTED,
    ];
    if binds {
        events.push(SocketEvent::CLOSED);
    }
    events.iter().fold(0, |all, event| all | i32::from(event.to_raw()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A publisher in a context of its own, whose end closes its connections at once, and where it is.
    fn publisher() -> (zmq::Context, zmq::Socket, Endpoint) {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PUB).unwrap();
        socket.set_linger(0).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = Endpoint::parse(&socket.get_last_endpoint().unwrap().unwrap()).unwrap();
        (context, socket, endpoint)
    }

    fn joins(link: &mut Link) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            link.monitor.poll(zmq::POLLIN, 50).unwrap();
            if matches!(link.event().unwrap(), Some(LinkEvent::Joined { .. })) {
                return true;
            }
        }
        false
    }

    /// Found by the soak: fleets came and went, and then a node heard no engine any more.
    #[test]
    fn an_engine_that_goes_while_its_link_is_closed_holds_up_no_other() {
        let context = zmq::Context::new();
        for name in 0..200 {
            let (theirs, socket, endpoint) = publisher();
            let mut link = Link::open(&context, &endpoint, "", name).unwrap();
            assert!(joins(&mut link), "round {name}: the I/O thread stands still");
            let gone = std::thread::spawn(move || drop((socket, theirs)));
            // Sometimes before, sometimes after, sometimes at the same moment.
            std::thread::sleep(Duration::from_micros(name * 7 % 300));
            drop(link);
            gone.join().unwrap();
        }
    }
}
