//! One replay: asks an engine's ROUTER for its buffered batches from a number on. A fresh DEALER for each
//! request, so that late answers to an earlier one cannot be mistaken for this one's. (Not REQ: libzmq's
//! REQ takes a single reply.)

use std::time::Duration;

use kvindex_core::BatchSeq;

use super::limits::MAX_FRAME_BYTES;

/// What one message of a replay is.
pub(super) enum Answer {
    /// A batch.
    Batch {
        /// Its number.
        seq: u64,
        /// Its payload.
        payload: zmq::Message,
    },
    /// The end marker.
    End,
    /// Neither: the socket does not speak this protocol.
    Garbage,
    /// Nothing is waiting.
    Nothing,
}

/// A replay under way.
pub(super) struct ReplayRequest {
    socket: zmq::Socket,
    deadline_ms: u64,
    timeout_ms: u64,
}

/// Number of the end marker.
const END_SEQ: u64 = u64::MAX;

impl ReplayRequest {
    /// Asks `endpoint` for everything from `from` on. `timeout` bounds the wait for the first answer and
    /// between answers.
    ///
    /// # Errors
    /// When the socket cannot be made or the endpoint is none.
    pub(super) fn send(
        context: &zmq::Context,
        endpoint: &str,
        from: BatchSeq,
        timeout: Duration,
        now_ms: u64,
    ) -> zmq::Result<Self> {
        let socket = open_dealer(context, endpoint)?;
        socket.send_multipart([&b""[..], &from.0.to_be_bytes()], zmq::DONTWAIT)?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Ok(Self { socket, deadline_ms: now_ms.saturating_add(timeout_ms), timeout_ms })
    }

    pub(super) fn socket(&self) -> &zmq::Socket {
        &self.socket
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Takes the next message, if one is waiting, and puts the deadline off.
    pub(super) fn next(&mut self, now_ms: u64) -> zmq::Result<Answer> {
        let Some(mut frames) = receive(&self.socket)? else {
            return Ok(Answer::Nothing);
        };
        self.deadline_ms = now_ms.saturating_add(self.timeout_ms);
        // After the empty delimiter there are 2 frames or 3; the number is always the last but one.
        let delimited = frames.first().is_some_and(|frame| frame.is_empty());
        if !delimited || !(3..=4).contains(&frames.len()) {
            return Ok(Answer::Garbage);
        }
        let (Some(payload), Some(seq)) = (frames.pop(), frames.pop()) else {
            return Ok(Answer::Garbage);
        };
        Ok(match (<[u8; 8]>::try_from(&*seq).map(u64::from_be_bytes), payload.is_empty()) {
            (Ok(END_SEQ), true) => Answer::End,
            (Ok(END_SEQ), false) | (Err(_), _) => Answer::Garbage,
            (Ok(seq), _) => Answer::Batch { seq, payload },
        })
    }
}

/// A DEALER connected to `endpoint`. Its queue is unbounded in messages, as the engine's own is bounded and a
/// full one would drop answers without notice; it lives as long as one replay.
pub(super) fn open_dealer(context: &zmq::Context, endpoint: &str) -> zmq::Result<zmq::Socket> {
    let socket = context.socket(zmq::DEALER)?;
    socket.set_linger(0)?;
    socket.set_ipv6(true)?;
    socket.set_rcvhwm(0)?;
    socket.set_maxmsgsize(MAX_FRAME_BYTES)?;
    socket.connect(endpoint)?;
    Ok(socket)
}

/// One whole message, if one is waiting. Frames after the fifth are read and dropped: no protocol here has
/// that many.
pub(super) fn receive(socket: &zmq::Socket) -> zmq::Result<Option<Vec<zmq::Message>>> {
    const KEPT_FRAMES: usize = 5;
    let mut frames = Vec::with_capacity(KEPT_FRAMES);
    loop {
        // Later frames of a message that has begun are there at once: ZeroMQ delivers messages whole.
        let frame = match socket.recv_msg(zmq::DONTWAIT) {
            Ok(frame) => frame,
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => return Ok(None),
            Err(error) => return Err(error),
        };
        let more = frame.get_more();
        if frames.len() < KEPT_FRAMES {
            frames.push(frame);
        }
        if !more {
            return Ok(Some(frames));
        }
    }
}
