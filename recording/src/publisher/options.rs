//! What a caller may choose of the publisher: where it binds or connects, how fast it plays, what goes wrong.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::PublisherError;

/// How to play a recording.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// Address to bind, without port.
    pub host: String,
    /// Engine `i` publishes on this port + `i`; `None` lets the OS choose.
    pub port: Option<u16>,
    /// Engine `i` answers replay requests on this port + `i`; `None` lets the OS choose.
    pub replay_port: Option<u16>,
    /// Engines, by index, that publish by connecting to a subscriber's endpoint, as engines do whose own endpoint
    /// has a host; the others bind. Replay sockets always bind.
    pub publish_to: BTreeMap<u32, String>,
    /// How fast to play.
    pub pace: Pace,
    /// Framing of replay answers.
    pub replay_frames: ReplayFrames,
    /// Messages per engine that can be replayed; older ones are forgotten, as engines do.
    pub buffer_steps: usize,
    /// Send high-water mark per subscriber, in messages; a full queue drops, as an engine's would.
    pub hwm: i32,
    /// How long a closed socket may go on sending what is queued.
    pub linger: Duration,
    /// How long a restarting engine is away.
    pub down: Duration,
    /// Subscriptions per engine that count as "all are there", at the start and after a restart.
    pub subscribers: usize,
    /// How long to wait for them after a restart. Only engines that had subscribers wait.
    pub resubscribe_wait: Duration,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: None,
            replay_port: None,
            publish_to: BTreeMap::new(),
            pace: Pace::Unpaced,
            replay_frames: ReplayFrames::Three,
            // vLLM's own default.
            buffer_steps: 10_000,
            // More than any recording holds: messages go missing only where a fault says so.
            hwm: 1_000_000,
            linger: Duration::from_secs(1),
            down: Duration::from_millis(300),
            subscribers: 1,
            resubscribe_wait: Duration::from_secs(10),
            faults: Faults::default(),
        }
    }
}

/// How fast records follow each other. The clock starts with each call to play.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Pace {
    /// As fast as the sockets take them.
    #[default]
    Unpaced,
    /// Messages per second, all engines together.
    Rate(f64),
    /// The recorded timing, times this.
    Speed(f64),
}

/// Framing of a replay answer behind its empty delimiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplayFrames {
    /// `seq, payload`: vLLM before 0.26, SGLang before 0.5.22.
    Two,
    /// `topic, seq, payload`: later releases.
    #[default]
    Three,
}

/// Messages of one engine by seq, in each of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeqRange {
    /// The engine's index.
    pub engine: u32,
    /// First to last seq.
    pub seqs: RangeInclusive<u64>,
}

impl SeqRange {
    /// Seq `first..=last` of an engine.
    pub fn new(engine: u32, seqs: RangeInclusive<u64>) -> Self {
        Self { engine, seqs }
    }

    fn holds(&self, engine: u32, seq: u64) -> bool {
        self.engine == engine && self.seqs.contains(&seq)
    }
}

/// What goes wrong on the way.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Never published, but replayable: what a full send queue does.
    pub drop: Vec<SeqRange>,
    /// Never published and not replayable either.
    pub lose: Vec<SeqRange>,
    /// Published twice in a row.
    pub dup: Vec<SeqRange>,
    /// Share of all messages dropped at random, 0 to 1. The last message of each engine before a stop is spared:
    /// nobody can see that it is missing before the next one comes.
    pub drop_fraction: f64,
    /// Seed of the random drops; equal seeds drop equal messages.
    pub seed: u64,
    /// After this (engine, seq) the engine restarts and at once plays its life again from seq 0, so that the
    /// truth still holds.
    pub restart_after: Vec<(u32, u64)>,
    /// Engines whose replay socket misbehaves.
    pub replay: BTreeMap<u32, ReplayFault>,
}

/// How an engine's replay socket misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplayFault {
    /// Not at all.
    #[default]
    None,
    /// It answers messages with wrong frame counts and seq widths, and no end marker.
    Garbage,
    /// It takes the request and never answers.
    Silent,
    /// It answers in full but for the end marker.
    NoEndMarker,
    /// It answers this many messages, then its socket closes until the engine restarts or the fault is set anew.
    DieMidway(usize),
    /// It answers this many messages and then no more, as an engine that hangs does.
    StallAfter(usize),
}

impl Faults {
    pub(super) fn drops(&self, engine: u32, seq: u64) -> bool {
        self.drop.iter().any(|range| range.holds(engine, seq))
    }

    pub(super) fn loses(&self, engine: u32, seq: u64) -> bool {
        self.lose.iter().any(|range| range.holds(engine, seq))
    }

    pub(super) fn doubles(&self, engine: u32, seq: u64) -> bool {
        self.dup.iter().any(|range| range.holds(engine, seq))
    }

    /// Whether chance drops the record at `position`.
    pub(super) fn drops_by_chance(&self, position: usize) -> bool {
        let random = crate::splitmix64(self.seed ^ crate::splitmix64(position as u64));
        // The upper 53 bits, as many as an f64 holds exactly, as a number in 0..1.
        ((random >> 11) as f64) / ((1u64 << 53) as f64) < self.drop_fraction
    }

    fn engines(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        let ranges = [("faults.drop", &self.drop), ("faults.lose", &self.lose), ("faults.dup", &self.dup)];
        let ranges =
            ranges.into_iter().flat_map(|(name, list)| list.iter().map(move |range| (name, range.engine)));
        let restarts = self.restart_after.iter().map(|&(engine, _)| ("faults.restart_after", engine));
        let replay = self.replay.keys().map(|&engine| ("faults.replay", engine));
        ranges.chain(restarts).chain(replay)
    }
}

impl PublisherOptions {
    /// Refuses what cannot be played with this many engines.
    pub(super) fn check(&self, engines: usize) -> Result<(), PublisherError> {
        let bad = |field, problem| Err(PublisherError::BadOption { field, problem });
        if let Pace::Rate(pace) | Pace::Speed(pace) = self.pace
            && !(pace.is_finite() && pace > 0.0)
        {
            return bad("pace", format!("{pace} is not a number above 0"));
        }
        let fraction = self.faults.drop_fraction;
        if !(0.0..=1.0).contains(&fraction) {
            return bad("faults.drop_fraction", format!("{fraction} is not within 0 to 1"));
        }
        for (field, engine) in self.faults.engines() {
            if engine as usize >= engines {
                return bad(field, format!("engine {engine}, the recording has {engines}"));
            }
        }
        for (&engine, endpoint) in &self.publish_to {
            if engine as usize >= engines {
                return bad("publish_to", format!("engine {engine}, the recording has {engines}"));
            }
            if !endpoint.starts_with("tcp://") && !endpoint.starts_with("ipc://") {
                return bad("publish_to", format!("{endpoint:?} is neither tcp://host:port nor ipc://path"));
            }
        }
        for (field, port) in [("port", self.port), ("replay_port", self.replay_port)] {
            if let Some(port) = port
                && (port == 0 || usize::from(port) + engines > 1 + usize::from(u16::MAX))
            {
                return bad(field, format!("{port} leaves no room for {engines} ports from 1 to 65535"));
            }
        }
        if let (Some(publish), Some(replay)) = (self.port, self.replay_port)
            && usize::from(publish.abs_diff(replay)) < engines
        {
            return bad("replay_port", format!("{replay} overlaps the {engines} ports from {publish}"));
        }
        if self.hwm < 0 {
            return bad("hwm", format!("{} is below 0 (0 is no limit)", self.hwm));
        }
        if self.buffer_steps == 0 {
            return bad("buffer_steps", "0, the least is 1".into());
        }
        Ok(())
    }
}
