//! KV events over ZeroMQ, as vLLM publishes them: `[topic, seq u64 big-endian, payload]` on a PUB socket, and a ROUTER
//! that answers `[empty, start seq]` with every kept batch from there on and an end marker.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::cache::Event;

/// Batches that can be asked for again, vLLM's default.
const KEPT: usize = 10_000;

/// Batches on their way to the thread, which takes them as they come.
const WAITING: usize = 1024;

/// How long a request for a replay may wait when nothing is published.
const TICK: i64 = 5;

const END_SEQ: [u8; 8] = [0xff; 8];

/// A batch as it is sent: an array.
#[derive(Debug, Serialize)]
struct Batch(f64, Vec<Event>, u32);

/// The event sockets, and the thread that they belong to.
#[derive(Debug)]
pub(super) struct Events {
    endpoint: String,
    replay_endpoint: String,
    sender: Option<SyncSender<Vec<Event>>>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    pub(super) fn start(rank: u32) -> anyhow::Result<Self> {
        let context = zmq::Context::new();
        let (publish, replay) = (context.socket(zmq::PUB)?, context.socket(zmq::ROUTER)?);
        let (endpoint, replay_endpoint) = (bound(&publish)?, bound(&replay)?);
        let (sender, batches) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("kv-events".into()).spawn(move || {
            Publisher { publish, replay, rank, kept: VecDeque::new(), seq: 0 }.run(&batches);
        })?;
        Ok(Self { endpoint, replay_endpoint, sender: Some(sender), thread: Some(thread) })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn replay_endpoint(&self) -> &str {
        &self.replay_endpoint
    }

    /// Publishes what one step changed; nothing for nothing.
    pub(super) fn publish(&self, events: Vec<Event>) {
        if let (Some(sender), false) = (&self.sender, events.is_empty()) {
            // The thread ends after its sender only.
            let _ = sender.send(events);
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bound(socket: &zmq::Socket) -> anyhow::Result<String> {
    socket.set_linger(0)?;
    socket.bind("tcp://127.0.0.1:*")?;
    let endpoint = socket.get_last_endpoint()?;
    endpoint.map_err(|_| anyhow::anyhow!("an endpoint that is no text"))
}

struct Publisher {
    publish: zmq::Socket,
    replay: zmq::Socket,
    /// Whose events they are.
    rank: u32,
    kept: VecDeque<(u64, Vec<u8>)>,
    seq: u64,
}

impl Publisher {
    fn run(mut self, batches: &Receiver<Vec<Event>>) {
        loop {
            match batches.recv_timeout(Duration::from_millis(TICK.unsigned_abs())) {
                Ok(events) => self.send(events),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(request) = self.replay.recv_multipart(zmq::DONTWAIT) {
                self.answer(&request);
            }
        }
    }

    fn send(&mut self, events: Vec<Event>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let Ok(payload) = rmp_serde::to_vec_named(&Batch(now.as_secs_f64(), events, self.rank)) else {
            return;
        };
        let seq = self.seq;
        self.seq += 1;
        // A subscriber that does not keep up loses it, and asks again.
        let _ = self.publish.send_multipart([&b""[..], &seq.to_be_bytes(), &payload], zmq::DONTWAIT);
        self.kept.push_back((seq, payload));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    fn answer(&self, request: &[Vec<u8>]) {
        let [peer, _, start] = request else { return };
        let Ok(start) = <[u8; 8]>::try_from(start.as_slice()) else { return };
        let start = u64::from_be_bytes(start);
        for (seq, payload) in self.kept.iter().filter(|(seq, _)| *seq >= start) {
            let frames = [&peer[..], b"", b"", &seq.to_be_bytes(), payload];
            let _ = self.replay.send_multipart(frames, zmq::DONTWAIT);
        }
        let _ = self.replay.send_multipart([&peer[..], b"", b"", &END_SEQ, b""], zmq::DONTWAIT);
    }
}
