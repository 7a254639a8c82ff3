//! One engine's sockets: an XPUB it publishes on and a ROUTER it answers replay requests on.
//!
//! XPUB is PUB that also tells about subscriptions; on the wire they are the same.

use std::collections::VecDeque;

use zmq::{Context, DONTWAIT, Socket, SocketType};

use super::options::{PublisherOptions, ReplayFault};
use super::{EngineEndpoints, PublisherError};
use crate::container::Record;
use crate::header::EngineHeader;

pub(super) struct Engine {
    pub(super) index: u32,
    pub(super) endpoints: EngineEndpoints,
    /// Positions of the records of this life, to play them again after a restart.
    pub(super) history: Vec<usize>,
    /// Restarted on request: must play its life again before anything else.
    pub(super) again: bool,
    pub(super) replay_fault: ReplayFault,
    /// Subscriptions seen since the sockets opened.
    pub(super) subscriptions: usize,
    /// Positions of the records that can be replayed.
    pub(super) buffer: VecDeque<usize>,
    /// It connects where it publishes, to an endpoint that a subscriber binds.
    connects: bool,
    publish: Option<Socket>,
    pub(super) router: Option<Socket>,
}

/// Gives a socket error its engine and what was being done.
pub(super) fn failed(engine: u32, doing: &'static str) -> impl Fn(zmq::Error) -> PublisherError {
    move |source| PublisherError::Socket { engine, doing, source }
}

impl Engine {
    /// Opens both sockets. Ports that the OS chose are kept for ever after.
    pub(super) fn open_first(
        context: &Context,
        header: &EngineHeader,
        options: &PublisherOptions,
    ) -> Result<Self, PublisherError> {
        let address = |port: Option<u16>| {
            // Checked before: port + index is a port.
            let port = port.map_or("*".into(), |p| (u32::from(p) + header.index).to_string());
            if options.host.contains(':') && !options.host.starts_with('[') {
                format!("tcp://[{}]:{port}", options.host)
            } else {
                format!("tcp://{}:{port}", options.host)
            }
        };
        let publish_to = options.publish_to.get(&header.index).cloned();
        let mut engine = Self {
            index: header.index,
            endpoints: EngineEndpoints {
                engine: header.index,
                name: header.name.clone(),
                topic: header.topic.clone(),
                dp_rank: header.dp_rank,
                publish: publish_to.clone().unwrap_or_else(|| address(options.port)),
                replay: address(options.replay_port),
            },
            history: Vec::new(),
            again: false,
            replay_fault: options.faults.replay.get(&header.index).copied().unwrap_or_default(),
            subscriptions: 0,
            buffer: VecDeque::new(),
            connects: publish_to.is_some(),
            publish: None,
            router: None,
        };
        engine.open_publish(context, options)?;
        engine.open_router(context, options)?;
        Ok(engine)
    }

    /// Opens what is closed, on the same ports as before.
    pub(super) fn open(
        &mut self,
        context: &Context,
        options: &PublisherOptions,
    ) -> Result<(), PublisherError> {
        if self.publish.is_none() {
            self.open_publish(context, options)?;
        }
        if self.router.is_none() {
            self.open_router(context, options)?;
        }
        Ok(())
    }

    /// Goes away as a stopped engine does: sockets closed, nothing left to replay.
    pub(super) fn close(&mut self) {
        self.publish = None;
        self.router = None;
        self.buffer.clear();
        self.subscriptions = 0;
    }

    fn open_publish(&mut self, context: &Context, options: &PublisherOptions) -> Result<(), PublisherError> {
        let setting = failed(self.index, "set up the publish socket");
        let socket = context.socket(SocketType::XPUB).map_err(&setting)?;
        // Every subscriber's subscription is reported, not only the first of a topic.
        socket.set_xpub_verbose(true).map_err(&setting)?;
        socket.set_sndhwm(options.hwm).map_err(&setting)?;
        if self.connects {
            connect(&socket, &self.endpoints.publish, options).map_err(&setting)?;
        } else {
            self.endpoints.publish = bind(&socket, &self.endpoints.publish, options)?;
        }
        self.publish = Some(socket);
        Ok(())
    }

    fn open_router(&mut self, context: &Context, options: &PublisherOptions) -> Result<(), PublisherError> {
        let setting = failed(self.index, "set up the replay socket");
        let socket = context.socket(SocketType::ROUTER).map_err(&setting)?;
        // A replay is as long as the buffer; a full queue would cut it in the middle.
        socket.set_sndhwm(0).map_err(&setting)?;
        let endpoint = bind(&socket, &self.endpoints.replay, options)?;
        self.endpoints.replay = endpoint;
        self.router = Some(socket);
        Ok(())
    }

    /// Publishes one record's frames; a no-op while the engine is away.
    pub(super) fn send(&self, record: &Record) -> Result<(), PublisherError> {
        let Some(socket) = &self.publish else {
            return Ok(());
        };
        let seq = record.seq.to_be_bytes();
        let frames: [&[u8]; 3] = [&record.topic, &seq, &record.payload];
        socket.send_multipart(frames, 0).map_err(failed(self.index, "publish"))
    }

    /// Keeps a record for replay, forgetting the oldest beyond the limit.
    pub(super) fn keep(&mut self, position: usize, limit: usize) {
        if self.buffer.len() >= limit {
            self.buffer.pop_front();
        }
        self.buffer.push_back(position);
    }

    /// Counts the subscriptions that have come in.
    pub(super) fn take_subscriptions(&mut self) -> Result<(), PublisherError> {
        let Some(socket) = &self.publish else {
            return Ok(());
        };
        loop {
            match socket.recv_bytes(DONTWAIT) {
                Ok(message) if message.first() == Some(&1) => self.subscriptions += 1,
                Ok(_) => {}
                Err(zmq::Error::EAGAIN) => return Ok(()),
                Err(zmq::Error::EINTR) => {}
                Err(e) => return Err(failed(self.index, "read subscriptions")(e)),
            }
        }
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.publish.iter().chain(&self.router)
    }
}

fn prepare(socket: &Socket, endpoint: &str, options: &PublisherOptions) -> Result<(), zmq::Error> {
    socket.set_linger(i32::try_from(options.linger.as_millis()).unwrap_or(i32::MAX))?;
    socket.set_ipv6(endpoint.contains('['))
}

/// Connects, now or as soon as somebody listens there; until then messages are lost, as an engine's are.
fn connect(socket: &Socket, endpoint: &str, options: &PublisherOptions) -> Result<(), zmq::Error> {
    prepare(socket, endpoint, options)?;
    socket.connect(endpoint)
}

/// Binds and says which endpoint it became.
fn bind(socket: &Socket, endpoint: &str, options: &PublisherOptions) -> Result<String, PublisherError> {
    let bad = |source| PublisherError::Bind { endpoint: endpoint.to_owned(), source };
    prepare(socket, endpoint, options).map_err(bad)?;
    socket.bind(endpoint).map_err(bad)?;
    let bound = socket.get_last_endpoint().map_err(bad)?;
    // The library prints it, so it is text; were it not, the name it was bound by still serves.
    Ok(bound.unwrap_or_else(|_| endpoint.to_owned()))
}
