//! Answers to replay requests, in both framings, and the ways they can go wrong.

use zmq::{DONTWAIT, Socket};

use super::PublisherError;
use super::engine::{Engine, failed};
use super::options::{ReplayFault, ReplayFrames};
use crate::container::Record;

/// Seq of the end marker.
const END_SEQ: [u8; 8] = [0xff; 8];

/// What serving replay requests came to.
#[derive(Default)]
pub(super) struct Served {
    pub(super) requests: u64,
    pub(super) messages: u64,
    pub(super) bad: u64,
}

/// Answers all requests that have come in at one engine.
pub(super) fn serve(
    engine: &mut Engine,
    records: &[Record],
    frames: ReplayFrames,
) -> Result<Served, PublisherError> {
    let mut served = Served::default();
    while let Some(router) = &engine.router {
        let request = match router.recv_multipart(DONTWAIT) {
            Ok(request) => request,
            Err(zmq::Error::EAGAIN) => break,
            Err(zmq::Error::EINTR) => continue,
            Err(e) => return Err(failed(engine.index, "read a replay request")(e)),
        };
        let [peer, _delimiter, start] = request.as_slice() else {
            // Engines unpack exactly three frames; anything else gets no answer.
            served.bad += 1;
            continue;
        };
        let Ok(start) = <[u8; 8]>::try_from(start.as_slice()) else {
            served.bad += 1;
            continue;
        };
        served.requests += 1;
        let answer = Answer { router, peer, frames };
        let wanted = engine
            .buffer
            .iter()
            .filter_map(|&position| records.get(position))
            .filter(|record| record.seq >= u64::from_be_bytes(start));
        let sent = answer.play(wanted, engine.replay_fault);
        served.messages += sent.map_err(failed(engine.index, "answer a replay request"))?;
        if matches!(engine.replay_fault, ReplayFault::DieMidway(_)) {
            engine.router = None;
        }
    }
    Ok(served)
}

struct Answer<'a> {
    router: &'a Socket,
    peer: &'a [u8],
    frames: ReplayFrames,
}

impl Answer<'_> {
    fn play<'r>(
        &self,
        records: impl Iterator<Item = &'r Record>,
        fault: ReplayFault,
    ) -> Result<u64, zmq::Error> {
        let limit = match fault {
            ReplayFault::Silent => return Ok(0),
            ReplayFault::Garbage => return self.garbage(),
            ReplayFault::DieMidway(n) | ReplayFault::StallAfter(n) => n,
            ReplayFault::None | ReplayFault::NoEndMarker => usize::MAX,
        };
        let mut sent = 0;
        for record in records.take(limit) {
            self.message(&record.topic, &record.seq.to_be_bytes(), &record.payload)?;
            sent += 1;
        }
        if fault == ReplayFault::None {
            self.message(b"", &END_SEQ, b"")?;
        }
        Ok(sent)
    }

    fn message(&self, topic: &[u8], seq: &[u8], payload: &[u8]) -> Result<(), zmq::Error> {
        match self.frames {
            ReplayFrames::Three => self.send(&[b"", topic, seq, payload]),
            ReplayFrames::Two => self.send(&[b"", seq, payload]),
        }
    }

    fn garbage(&self) -> Result<u64, zmq::Error> {
        self.send(&[b"\xde\xad\xbe\xef"])?;
        self.send(&[b"", b"", b"short", b"\xc1"])?;
        self.send(&[b"", b"", b"", b"", b"", b"", b""])?;
        // Well framed, but no event batch: 0xc1 is the one byte that msgpack never uses.
        self.message(b"", &0u64.to_be_bytes(), b"\xc1\xc1")?;
        Ok(0)
    }

    fn send(&self, frames: &[&[u8]]) -> Result<(), zmq::Error> {
        let all = std::iter::once(self.peer).chain(frames.iter().copied());
        self.router.send_multipart(all, 0)
    }
}
