//! One stream's subscription: its SUB socket, and the monitor that tells whether it is connected.

use crate::ingest::limits::MAX_FRAME_BYTES;
use crate::ingest::replay::receive;

/// Messages of one publisher that may wait unread: vLLM's own high-water mark on the sending side.
const RECEIVE_HIGH_WATER_MARK: i32 = 100_000;
/// First and longest pause between attempts to connect, in milliseconds.
const RECONNECT_MS: (i32, i32) = (100, 5_000);
/// Idle seconds before TCP keep-alive probes start, between probes, and probes until the peer counts as gone: a
/// vanished node is noticed within a minute.
const KEEPALIVE_S: (i32, i32, i32) = (30, 10, 3);

/// A subscription.
pub(in crate::ingest) struct Link {
    subscription: zmq::Socket,
    monitor: zmq::Socket,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEvent {
    Connected,
    Disconnected,
}

/// Three frames of a publication; the topic is not kept.
pub(super) enum Publication {
    Batch { seq: u64, payload: zmq::Message },
    Malformed,
    Nothing,
}

impl Link {
    /// Subscribes to `topic` at `endpoint`. `name` makes the monitor's address unique in the context.
    ///
    /// # Errors
    /// When the endpoint is none, or the context has no sockets left.
    pub(in crate::ingest) fn open(
        context: &zmq::Context,
        endpoint: &str,
        topic: &str,
        name: u64,
    ) -> zmq::Result<Self> {
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
        let address = format!("inproc://link-{name}");
        // The handshake, not the TCP connection: a proxy in between accepts also when the engine is away.
        let events = zmq::SocketEvent::HANDSHAKE_SUCCEEDED.to_raw() | zmq::SocketEvent::DISCONNECTED.to_raw();
        subscription.monitor(&address, events.into())?;
        let monitor = context.socket(zmq::PAIR)?;
        monitor.set_linger(0)?;
        monitor.connect(&address)?;
        subscription.connect(endpoint)?;
        Ok(Self { subscription, monitor })
    }

    pub(super) fn poll_items(&self) -> [zmq::PollItem<'_>; 2] {
        [self.monitor.as_poll_item(zmq::POLLIN), self.subscription.as_poll_item(zmq::POLLIN)]
    }

    /// The next connection event, if one is waiting.
    pub(super) fn event(&self) -> zmq::Result<Option<LinkEvent>> {
        while let Some(frames) = receive(&self.monitor)? {
            let number = frames.first().and_then(|frame| frame.first_chunk::<2>());
            let event = number.map(|bytes| zmq::SocketEvent::from_raw(u16::from_ne_bytes(*bytes)));
            match event {
                Some(zmq::SocketEvent::HANDSHAKE_SUCCEEDED) => return Ok(Some(LinkEvent::Connected)),
                Some(zmq::SocketEvent::DISCONNECTED) => return Ok(Some(LinkEvent::Disconnected)),
                _ => {}
            }
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
}
