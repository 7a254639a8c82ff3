//! Plays a recording over real ZeroMQ, as N engines would: per engine one XPUB and one replay ROUTER.
//!
//! Wire format, the same for vLLM and SGLang: published `[topic, seq u64 big-endian, payload]`; a replay request
//! `[empty, start seq]` is answered by one message per kept seq from there on, then an end marker with seq `ff` x 8.

mod engine;
mod options;
mod player;
mod replay;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;

pub use options::{Faults, Pace, PublisherOptions, ReplayFault, ReplayFrames, SeqRange};

use crate::container::Recording;
use player::{Command, Player, Shared};

/// Callers that may queue behind the one whose command runs.
const COMMAND_QUEUE: usize = 8;

/// Where one engine can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEndpoints {
    /// The engine's index in the recording.
    pub engine: u32,
    /// Its name in the recording.
    pub name: String,
    /// The topic it publishes under.
    pub topic: String,
    /// Its data-parallel rank.
    pub dp_rank: u32,
    /// Where to subscribe, e.g. `tcp://127.0.0.1:40001`; of an engine that connects, where to bind. The same for
    /// all its lives.
    pub publish: String,
    /// Where to ask for a replay.
    pub replay: String,
}

/// What the publisher has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublisherStats {
    /// Messages handed to a publish socket, second copies and second lives included.
    pub published: u64,
    /// Messages kept off the publish socket, but replayable.
    pub dropped: u64,
    /// Messages kept off both.
    pub lost: u64,
    /// Messages published twice.
    pub duplicated: u64,
    /// Replay requests accepted.
    pub replay_requests: u64,
    /// Messages sent in answer to them.
    pub replayed: u64,
    /// Replay requests that got no answer because their frames are wrong.
    pub bad_replay_requests: u64,
    /// Engine restarts, those inside the recording included.
    pub restarts: u64,
}

/// Why the publisher could not start or go on.
#[derive(Debug, Error)]
pub enum PublisherError {
    /// An option makes no sense for this recording.
    #[error("publisher option {field}: {problem}")]
    BadOption {
        /// The option.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A port is taken or an address is not one.
    #[error("cannot bind {endpoint}: {source}")]
    Bind {
        /// The address.
        endpoint: String,
        /// What ZeroMQ said.
        source: zmq::Error,
    },
    /// A socket failed.
    #[error("engine {engine} cannot {doing}: {source}")]
    Socket {
        /// The engine.
        engine: u32,
        /// What it was doing.
        doing: &'static str,
        /// What ZeroMQ said.
        source: zmq::Error,
    },
    /// Waiting for the sockets failed.
    #[error("cannot wait for the sockets: {source}")]
    Poll {
        /// What ZeroMQ said.
        source: zmq::Error,
    },
    /// The recording has no such engine.
    #[error("no engine {engine}, the recording has {engines}")]
    UnknownEngine {
        /// The engine asked for.
        engine: u32,
        /// Engines in the recording.
        engines: usize,
    },
    /// The OS gave no thread.
    #[error("cannot start the publisher's thread: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// The publisher was stopped, or ended by an earlier error.
    #[error("the publisher has stopped")]
    Stopped,
}

/// A publisher at work in a thread of its own. Dropping it closes the sockets.
///
/// It answers replay requests for as long as it lives. Its methods can be called from several threads; one at a
/// time is served, while [`position`](Self::position) and [`stats`](Self::stats) always answer at once.
pub struct Publisher {
    recording: Arc<Recording>,
    endpoints: Vec<EngineEndpoints>,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), PublisherError>>>,
}

impl Publisher {
    /// Opens all sockets and starts the thread. Nothing is published yet.
    ///
    /// # Errors
    /// A bad option, or an address that cannot be bound.
    pub fn start(
        recording: impl Into<Arc<Recording>>,
        options: PublisherOptions,
    ) -> Result<Self, PublisherError> {
        let recording = recording.into();
        options.check(recording.header.engines.len())?;
        let shared = Arc::new(Shared::default());
        let player = Player::open(Arc::clone(&recording), options, Arc::clone(&shared))?;
        let endpoints = player.endpoints();
        let (commands, receiver) = sync_channel(COMMAND_QUEUE);
        let thread = thread::Builder::new()
            .name("recording-publisher".into())
            .spawn(move || player.run(&receiver))
            .map_err(|source| PublisherError::Thread { source })?;
        Ok(Self { recording, endpoints, commands, shared, thread: Some(thread) })
    }

    /// The recording being played.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Where each engine can be reached, at its index.
    pub fn endpoints(&self) -> &[EngineEndpoints] {
        &self.endpoints
    }

    /// Waits until every engine has its [`subscribers`](PublisherOptions::subscribers); `false` when the time is
    /// over or the publisher has stopped. Without this, the first messages go to nobody and must be replayed.
    pub fn wait_for_subscribers(&self, timeout: Duration) -> bool {
        self.ask(|reply| Command::WaitForSubscribers(timeout, reply)).unwrap_or(false)
    }

    /// Plays until `pos` records of the recording are published (the `pos` of a checkpoint), and says how many are.
    /// Never goes back. Engines that were [restarted](Self::restart) first play their life again.
    ///
    /// # Errors
    /// A socket failed, or the publisher was stopped meanwhile.
    pub fn play_until(&self, pos: usize) -> Result<usize, PublisherError> {
        self.ask(|reply| Command::Play(pos, reply))
    }

    /// Plays to the end.
    ///
    /// # Errors
    /// As [`play_until`](Self::play_until).
    pub fn play_all(&self) -> Result<usize, PublisherError> {
        self.play_until(self.recording.records.len())
    }

    /// [`play_until`](Self::play_until) that calls `progress` with the position ten times a second and at the end.
    ///
    /// # Errors
    /// As [`play_until`](Self::play_until).
    pub fn play_until_with(
        &self,
        pos: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<usize, PublisherError> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Play(pos, reply))?;
        loop {
            match answer.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => {
                    progress(self.position());
                    return result;
                }
                Err(RecvTimeoutError::Timeout) => progress(self.position()),
                Err(RecvTimeoutError::Disconnected) => return Err(PublisherError::Stopped),
            }
        }
    }

    /// Records played so far.
    pub fn position(&self) -> usize {
        self.shared.position.load(Ordering::Acquire)
    }

    /// What it has done so far.
    pub fn stats(&self) -> PublisherStats {
        self.shared.stats()
    }

    /// Restarts an engine: fresh sockets on the same ports, empty replay buffer, seq from 0. Returns when it is
    /// back and, where it had subscribers, these are too. The next play begins with its life played again.
    ///
    /// # Errors
    /// No such engine, or its port is no longer to be had.
    pub fn restart(&self, engine: u32) -> Result<(), PublisherError> {
        self.ask(|reply| Command::Restart(engine, reply))
    }

    /// Changes how an engine's replay socket misbehaves, and reopens it if it died.
    ///
    /// # Errors
    /// No such engine, or its port is no longer to be had.
    pub fn set_replay_fault(&self, engine: u32, fault: ReplayFault) -> Result<(), PublisherError> {
        self.ask(|reply| Command::SetReplayFault(engine, fault, reply))
    }

    /// Tells the publisher to stop, also in the middle of playing, and does not wait: for a signal handler or
    /// another thread. Running and later calls end with [`PublisherError::Stopped`].
    pub fn halt(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Stops and waits until the sockets are closed.
    ///
    /// # Errors
    /// The error that had ended it before.
    pub fn stop(mut self) -> Result<(), PublisherError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), PublisherError> {
        self.halt();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }

    fn send(&self, command: Command) -> Result<(), PublisherError> {
        self.commands.send(command).map_err(|_| PublisherError::Stopped)
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<Result<T, PublisherError>>) -> Command,
    ) -> Result<T, PublisherError> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| PublisherError::Stopped)?
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Nobody is left to tell; an error has been given to the command it struck, and a panic in a panic aborts.
        self.halt();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("case", &self.recording.header.case)
            .field("endpoints", &self.endpoints)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
