//! The publisher's thread: owns every socket, plays the recording, answers replays in between.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use zmq::{Context, POLLIN};

use super::engine::Engine;
use super::options::{Pace, PublisherOptions, ReplayFault};
use super::{EngineEndpoints, PublisherError, PublisherStats, replay};
use crate::container::{Record, Recording};

/// How long the thread sleeps in its sockets before it looks for a command or the clock again.
const TICK: Duration = Duration::from_millis(5);
/// Unpaced, sockets are looked after once per this many messages; oftener would slow the play down.
const PUMP_EVERY: u64 = 64;
/// The OS may hold a just closed port for a moment; a port still taken after this is someone else's.
const REBIND_TIMEOUT: Duration = Duration::from_secs(10);

type Reply<T> = SyncSender<Result<T, PublisherError>>;

/// What the handle asks of the thread.
pub(super) enum Command {
    Play(usize, Reply<usize>),
    Restart(u32, Reply<()>),
    WaitForSubscribers(Duration, Reply<bool>),
    SetReplayFault(u32, ReplayFault, Reply<()>),
}

/// What the handle may look at and set without asking.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) position: AtomicUsize,
    pub(super) stop: AtomicBool,
    stats: Mutex<PublisherStats>,
}

impl Shared {
    pub(super) fn stats(&self) -> PublisherStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, add: impl FnOnce(&mut PublisherStats)) {
        add(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub(super) struct Player {
    context: Context,
    recording: Arc<Recording>,
    options: PublisherOptions,
    engines: Vec<Engine>,
    /// Per record, the position of the same engine's next one.
    next_of_engine: Vec<usize>,
    restarts: BTreeSet<(u32, u64)>,
    position: usize,
    shared: Arc<Shared>,
}

impl Player {
    /// Binds every engine's sockets.
    pub(super) fn open(
        recording: Arc<Recording>,
        options: PublisherOptions,
        shared: Arc<Shared>,
    ) -> Result<Self, PublisherError> {
        let context = Context::new();
        let engines = recording
            .header
            .engines
            .iter()
            .map(|header| Engine::open_first(&context, header, &options))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            context,
            next_of_engine: next_of_engine(&recording.records),
            restarts: options.faults.restart_after.iter().copied().collect(),
            recording,
            options,
            engines,
            position: 0,
            shared,
        })
    }

    pub(super) fn endpoints(&self) -> Vec<EngineEndpoints> {
        self.engines.iter().map(|e| e.endpoints.clone()).collect()
    }

    /// Serves commands and sockets until it is told to stop or the handle is gone.
    pub(super) fn run(mut self, commands: &Receiver<Command>) -> Result<(), PublisherError> {
        while !self.stopped() {
            match commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => self.pump(TICK)?,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) {
        // A caller that no longer waits for its answer has no use for it.
        match command {
            Command::Play(until, reply) => drop(reply.send(self.play(until))),
            Command::Restart(engine, reply) => drop(reply.send(self.restart_on_request(engine))),
            Command::WaitForSubscribers(timeout, reply) => {
                drop(reply.send(self.wait_for_subscribers(timeout)));
            }
            Command::SetReplayFault(engine, fault, reply) => {
                drop(reply.send(self.set_replay_fault(engine, fault)));
            }
        }
    }

    fn play(&mut self, until: usize) -> Result<usize, PublisherError> {
        let recording = Arc::clone(&self.recording);
        let until = until.min(recording.records.len());
        for index in 0..self.engines.len() {
            if self.engine(index as u32)?.again {
                self.play_life_again(index as u32)?;
            }
        }
        let mut clock = Clock::start(self.options.pace);
        while let Some(record) = recording.records.get(self.position).filter(|_| self.position < until) {
            if record.seq == 0 {
                // Seq 0 after others: the recorded engine itself restarted.
                if !self.engine(record.engine)?.history.is_empty() {
                    self.restart(record.engine)?;
                }
                self.engine(record.engine)?.history.clear();
            }
            self.wait_until_due(&mut clock, record)?;
            self.emit(record, until)?;
            let position = self.position;
            self.engine(record.engine)?.history.push(position);
            self.advance();
            if self.restarts.remove(&(record.engine, record.seq)) {
                self.restart(record.engine)?;
                self.play_life_again(record.engine)?;
            }
        }
        self.pump(Duration::ZERO)?;
        Ok(self.position)
    }

    fn advance(&mut self) {
        self.position += 1;
        self.shared.position.store(self.position, Ordering::Release);
    }

    fn emit(&mut self, record: &Record, until: usize) -> Result<(), PublisherError> {
        let position = self.position;
        let faults = &self.options.faults;
        // A drop shows only when a later message of the engine comes; see `Faults::drop_fraction`.
        let another_comes = self.next_of_engine.get(position).is_some_and(|&next| next < until);
        let lost = faults.loses(record.engine, record.seq);
        let dropped = !lost
            && (faults.drops(record.engine, record.seq)
                || (another_comes && faults.drops_by_chance(position)));
        let doubled = !lost && !dropped && faults.doubles(record.engine, record.seq);
        let limit = self.options.buffer_steps;
        let engine = self.engine(record.engine)?;
        for _ in 0..if lost || dropped { 0 } else { 1 + u8::from(doubled) } {
            engine.send(record)?;
        }
        if !lost {
            engine.keep(position, limit);
        }
        self.shared.count(|stats| {
            stats.published += u64::from(!lost && !dropped) + u64::from(doubled);
            stats.dropped += u64::from(dropped);
            stats.lost += u64::from(lost);
            stats.duplicated += u64::from(doubled);
        });
        Ok(())
    }

    fn restart_on_request(&mut self, index: u32) -> Result<(), PublisherError> {
        self.restart(index)?;
        self.engine(index)?.again = true;
        Ok(())
    }

    /// The engine goes away and comes back on the same ports, with nothing to replay.
    fn restart(&mut self, index: u32) -> Result<(), PublisherError> {
        let had_subscribers = self.engine(index)?.subscriptions > 0;
        // Half the time for what is queued to leave, the whole for the engine to be gone.
        self.pump_for(self.options.down / 2)?;
        self.engine(index)?.close();
        self.pump_for(self.options.down)?;
        self.reopen(index)?;
        if had_subscribers {
            let wait = self.options.resubscribe_wait;
            self.pump_until(wait, |player| player.has_subscribers(index))?;
        }
        self.shared.count(|stats| stats.restarts += 1);
        Ok(())
    }

    fn reopen(&mut self, index: u32) -> Result<(), PublisherError> {
        let end = Instant::now() + REBIND_TIMEOUT;
        loop {
            let (context, options) = (self.context.clone(), self.options.clone());
            match self.engine(index)?.open(&context, &options) {
                Ok(()) => return Ok(()),
                Err(e) if Instant::now() >= end || self.stopped() => return Err(e),
                Err(_) => self.pump_for(TICK)?,
            }
        }
    }

    /// A restarted engine gets its requests again: everything of this life, from seq 0, without faults.
    fn play_life_again(&mut self, index: u32) -> Result<(), PublisherError> {
        let recording = Arc::clone(&self.recording);
        let limit = self.options.buffer_steps;
        let history = self.engine(index)?.history.clone();
        for (sent, position) in (0..).zip(history) {
            let Some(record) = recording.records.get(position) else {
                continue;
            };
            if sent % PUMP_EVERY == 0 {
                self.pump(Duration::ZERO)?;
            }
            let engine = self.engine(index)?;
            engine.send(record)?;
            engine.keep(position, limit);
            self.shared.count(|stats| stats.published += 1);
        }
        self.engine(index)?.again = false;
        Ok(())
    }

    fn set_replay_fault(&mut self, index: u32, fault: ReplayFault) -> Result<(), PublisherError> {
        self.engine(index)?.replay_fault = fault;
        self.reopen(index)
    }

    fn has_subscribers(&self, index: u32) -> bool {
        self.engines
            .get(index as usize)
            .is_some_and(|engine| engine.subscriptions >= self.options.subscribers)
    }

    fn wait_for_subscribers(&mut self, timeout: Duration) -> Result<bool, PublisherError> {
        self.pump_until(timeout, |player| {
            (0..player.engines.len()).all(|index| player.has_subscribers(index as u32))
        })
    }

    fn wait_until_due(&mut self, clock: &mut Clock, record: &Record) -> Result<(), PublisherError> {
        let due = clock.due(record);
        if clock.played.is_multiple_of(PUMP_EVERY) {
            self.pump(Duration::ZERO)?;
        }
        clock.played += 1;
        while let Some(left) = due.and_then(|due| due.checked_sub(clock.start.elapsed())) {
            if left.is_zero() {
                break;
            }
            self.pump(Duration::ZERO)?;
            // Sockets wait in whole milliseconds, which is too coarse for a thousand messages a second.
            thread::sleep(left.min(TICK));
            self.check_stop()?;
        }
        self.check_stop()
    }

    fn pump_for(&mut self, time: Duration) -> Result<(), PublisherError> {
        self.pump_until(time, |_| false).map(drop)
    }

    /// Looks after the sockets until `done` or the time is over; whether it was done.
    fn pump_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, PublisherError> {
        let start = Instant::now();
        loop {
            self.pump(Duration::ZERO)?;
            if done(self) {
                return Ok(true);
            }
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.check_stop()?;
            self.pump(left.clamp(Duration::from_millis(1), TICK))?;
        }
    }

    /// Waits at most `timeout` for subscriptions and replay requests, and serves those there are.
    fn pump(&mut self, timeout: Duration) -> Result<(), PublisherError> {
        let mut items: Vec<_> =
            self.engines.iter().flat_map(Engine::sockets).map(|socket| socket.as_poll_item(POLLIN)).collect();
        let ready = zmq::poll(&mut items, timeout.as_millis() as i64);
        drop(items);
        match ready {
            Ok(0) | Err(zmq::Error::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(source) => return Err(PublisherError::Poll { source }),
        }
        for engine in &mut self.engines {
            engine.take_subscriptions()?;
            let served = replay::serve(engine, &self.recording.records, self.options.replay_frames)?;
            self.shared.count(|stats| {
                stats.replay_requests += served.requests;
                stats.replayed += served.messages;
                stats.bad_replay_requests += served.bad;
            });
        }
        Ok(())
    }

    fn engine(&mut self, index: u32) -> Result<&mut Engine, PublisherError> {
        let engines = self.engines.len();
        self.engines.get_mut(index as usize).ok_or(PublisherError::UnknownEngine { engine: index, engines })
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn check_stop(&self) -> Result<(), PublisherError> {
        if self.stopped() {
            return Err(PublisherError::Stopped);
        }
        Ok(())
    }
}

/// When records of one call to play are due.
struct Clock {
    pace: Pace,
    start: Instant,
    /// Records passed, this call.
    played: u64,
    /// Recorded time of the call's first record.
    first_t_us: Option<u64>,
}

impl Clock {
    fn start(pace: Pace) -> Self {
        Self { pace, start: Instant::now(), played: 0, first_t_us: None }
    }

    /// Time after the start at which the record is due; `None` is at once.
    fn due(&mut self, record: &Record) -> Option<Duration> {
        let first = *self.first_t_us.get_or_insert(record.t_us);
        let seconds = match self.pace {
            Pace::Unpaced => return None,
            Pace::Rate(rate) => self.played as f64 / rate,
            Pace::Speed(speed) => record.t_us.saturating_sub(first) as f64 / 1e6 / speed,
        };
        // Out of range only for an absurdly slow pace, which waits until it is stopped.
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

fn next_of_engine(records: &[Record]) -> Vec<usize> {
    let mut next = std::collections::BTreeMap::new();
    let mut out: Vec<usize> = records
        .iter()
        .enumerate()
        .rev()
        .map(|(at, record)| next.insert(record.engine, at).unwrap_or(usize::MAX))
        .collect();
    out.reverse();
    out
}
