//! A subscriber as a service has it: SUB sockets, gaps found by seq, repaired over a DEALER.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use kvindex_recording::{EngineEndpoints, Publisher, PublisherError, Recording};
use zmq::{Context, POLLIN, Socket, SocketType};

/// After the last message: nothing more is on its way on loopback.
const QUIET: Duration = Duration::from_millis(400);
/// The longest wait for one frame of a replay.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(3);

/// Messages of one engine's current life, by seq.
pub(crate) type Life = BTreeMap<u64, Vec<u8>>;

#[derive(Default)]
pub(crate) struct Received {
    pub(crate) lives: Vec<Life>,
    last: Vec<Option<u64>>,
    pub(crate) restarts: usize,
    pub(crate) duplicates: usize,
    pub(crate) replays: usize,
}

pub(crate) struct Subscriber {
    context: Context,
    sockets: Vec<Socket>,
    endpoints: Vec<EngineEndpoints>,
    replay_frames: usize,
    pub(crate) received: Received,
}

impl Subscriber {
    /// Subscribes to every engine and waits until the publisher knows.
    pub(crate) fn connect(publisher: &Publisher, replay_frames: usize) -> Self {
        let context = Context::new();
        let endpoints = publisher.endpoints().to_vec();
        let sockets: Vec<Socket> = endpoints
            .iter()
            .map(|engine| {
                let socket = context.socket(SocketType::SUB).unwrap();
                socket.set_rcvhwm(0).unwrap();
                socket.set_reconnect_ivl(20).unwrap();
                socket.set_linger(0).unwrap();
                socket.connect(&engine.publish).unwrap();
                socket.set_subscribe(engine.topic.as_bytes()).unwrap();
                socket
            })
            .collect();
        assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
        let n = endpoints.len();
        Self {
            context,
            sockets,
            endpoints,
            replay_frames,
            received: Received { lives: vec![Life::new(); n], last: vec![None; n], ..Received::default() },
        }
    }

    /// Receives while `play` runs in another thread, and until all is quiet.
    pub(crate) fn while_playing(
        &mut self,
        play: impl FnOnce() -> Result<usize, PublisherError> + Send,
    ) -> usize {
        thread::scope(|scope| {
            let playing = scope.spawn(play);
            let mut quiet_since = Instant::now();
            loop {
                let mut items: Vec<_> = self.sockets.iter().map(|s| s.as_poll_item(POLLIN)).collect();
                zmq::poll(&mut items, 20).unwrap();
                let ready: Vec<usize> = (0..items.len()).filter(|&i| items[i].is_readable()).collect();
                drop(items);
                for &engine in &ready {
                    self.take(engine);
                }
                if !ready.is_empty() || !playing.is_finished() {
                    quiet_since = Instant::now();
                } else if quiet_since.elapsed() > QUIET {
                    break;
                }
            }
            playing.join().unwrap().unwrap()
        })
    }

    fn take(&mut self, engine: usize) {
        let frames = self.sockets[engine].recv_multipart(0).unwrap();
        let [topic, seq, payload] = <[Vec<u8>; 3]>::try_from(frames).unwrap();
        assert_eq!(topic, self.endpoints[engine].topic.as_bytes());
        let seq = u64::from_be_bytes(seq.try_into().unwrap());
        match self.received.last[engine] {
            Some(last) if seq == 0 && last > 0 => {
                self.received.restarts += 1;
                self.received.lives[engine].clear();
                self.received.last[engine] = None;
            }
            Some(last) if seq <= last => self.received.duplicates += 1,
            _ => {}
        }
        let next = self.received.last[engine].map_or(0, |last| last + 1);
        if seq > next {
            self.received.replays += 1;
            for (missing, payload) in self.ask(engine, next).unwrap() {
                if missing < seq {
                    self.received.lives[engine].insert(missing, payload);
                }
            }
        }
        self.received.lives[engine].insert(seq, payload);
        let last = &mut self.received.last[engine];
        *last = Some(last.map_or(seq, |last| last.max(seq)));
    }

    fn ask(&self, engine: usize, start: u64) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let mut answer = Asked::new(&self.context, &self.endpoints[engine].replay, start);
        let mut out = Vec::new();
        while let Some(frames) = answer.next_frames(REPLAY_TIMEOUT) {
            if frames.len() != self.replay_frames + 1 || !frames[0].is_empty() {
                return Err(format!("an answer of {} frames", frames.len()));
            }
            let seq = &frames[frames.len() - 2];
            if *seq == [0xff; 8] {
                return Ok(out);
            }
            let seq = <[u8; 8]>::try_from(seq.as_slice()).map_err(|e| e.to_string())?;
            out.push((u64::from_be_bytes(seq), frames[frames.len() - 1].clone()));
        }
        Err("no end marker".into())
    }
}

/// A replay request on its way.
pub(crate) struct Asked(Socket);

impl Asked {
    pub(crate) fn new(context: &Context, endpoint: &str, start: u64) -> Self {
        Self::raw(context, endpoint, &[b"", &start.to_be_bytes()])
    }

    pub(crate) fn raw(context: &Context, endpoint: &str, frames: &[&[u8]]) -> Self {
        let socket = context.socket(SocketType::DEALER).unwrap();
        socket.set_rcvhwm(0).unwrap();
        socket.set_linger(0).unwrap();
        socket.connect(endpoint).unwrap();
        socket.send_multipart(frames, 0).unwrap();
        Self(socket)
    }

    /// The next message; `None` when none comes in time.
    pub(crate) fn next_frames(&mut self, timeout: Duration) -> Option<Vec<Vec<u8>>> {
        let ready = self.0.poll(POLLIN, timeout.as_millis() as i64).unwrap();
        (ready > 0).then(|| self.0.recv_multipart(0).unwrap())
    }
}

/// What every engine's last life consists of after `upto` records.
pub(crate) fn last_lives(recording: &Recording, upto: usize) -> Vec<Life> {
    let mut lives = vec![Life::new(); recording.header.engines.len()];
    for record in &recording.records[..upto] {
        let life = &mut lives[record.engine as usize];
        if record.seq == 0 {
            life.clear();
        }
        life.insert(record.seq, record.payload.clone());
    }
    lives
}
