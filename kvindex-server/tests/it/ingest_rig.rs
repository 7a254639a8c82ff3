//! A rig for ingest tests: recorded engines on real sockets, the real service, and the view that an index would
//! have of what it delivers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvindex_core::{
    BlockHasher, Changes, Command, DpRank, EngineProfile, GapPolicy, Registration, StreamId, WorkerId,
};
use kvindex_recording::{Publisher, PublisherOptions, Recording};
use kvindex_server::ingest::{
    Begin, Handle, IngestConfig, StreamStatus, Subscription, Wiring, decode, sequencer, start,
};
use parking_lot::Mutex;

/// A stream that is taken in from the start, into an index that knows nothing of it.
pub(crate) const LED: Begin = Begin::Led(None);

/// The registration for which every stream here is followed.
pub(crate) const REGISTRATION: Registration = Registration(7);

/// Quick timers, so that tests of silence and dead sockets take no longer than they must.
pub(crate) fn quick() -> IngestConfig {
    IngestConfig {
        idle_poll: Duration::from_millis(300),
        replay_timeout: Duration::from_millis(500),
        ..IngestConfig::default()
    }
}

pub(crate) fn stream_id(number: u32) -> StreamId {
    StreamId { worker: WorkerId::new(format!("engine-{number}")).unwrap(), dp_rank: DpRank(0) }
}

pub(crate) fn subscription(number: u32, endpoint: &str, replay: Option<&str>) -> Subscription {
    Subscription {
        stream: stream_id(number),
        registration: REGISTRATION,
        profile: EngineProfile::default(),
        endpoint: endpoint.into(),
        replay_endpoint: replay.map(String::from),
        topic: String::new(),
        gap_policy: GapPolicy::Purge,
        hash_profile: None,
    }
}

/// One stream as an index would have it: each number of the current generation applied with its changes, or
/// declared lost.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) generation: u64,
    pub(crate) batches: BTreeMap<u64, Option<Changes>>,
}

impl View {
    pub(crate) fn next(&self) -> u64 {
        self.batches.last_key_value().map_or(0, |(seq, _)| seq + 1)
    }

    pub(crate) fn lost(&self) -> Vec<u64> {
        self.batches.iter().filter(|(_, batch)| batch.is_none()).map(|(seq, _)| *seq).collect()
    }

    pub(crate) fn applied(&self) -> usize {
        self.batches.values().flatten().count()
    }

    pub(crate) fn obey(&mut self, command: Command) {
        match command {
            Command::Events(events) => {
                assert_eq!((events.generation.0, events.registration), (self.generation, REGISTRATION));
                for batch in events.batches {
                    assert_eq!(batch.seq.0, self.next(), "in order, once, without holes");
                    self.batches.insert(batch.seq.0, Some(batch.changes));
                }
            }
            Command::NewGeneration { generation, registration, .. } => {
                assert!(generation.0 > self.generation && registration == REGISTRATION);
                *self = Self { generation: generation.0, ..Self::default() };
            }
            Command::Gap { generation, first, last, registration, .. } => {
                assert_eq!(registration, REGISTRATION);
                assert_eq!((generation.0, first.0), (self.generation, self.next()));
                self.batches.extend((first.0..=last.0).map(|seq| (seq, None)));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The service with the views of its streams.
pub(crate) struct Rig {
    pub(crate) ingest: Handle,
    views: Arc<Mutex<BTreeMap<StreamId, View>>>,
    /// Where Linux accounts for the ingest thread that called the sink last.
    pub(crate) thread: Arc<Mutex<PathBuf>>,
}

impl Rig {
    pub(crate) fn start(config: IngestConfig) -> Self {
        let views: Arc<Mutex<BTreeMap<StreamId, View>>> = Arc::default();
        let shared = Arc::clone(&views);
        let thread: Arc<Mutex<PathBuf>> = Arc::default();
        let caller = Arc::clone(&thread);
        let wiring = Wiring::to(move |commands| {
            let task = std::fs::read_link("/proc/thread-self").unwrap_or_default();
            *caller.lock() = Path::new("/proc").join(task);
            let mut views = shared.lock();
            for command in commands {
                let stream = match &command {
                    Command::Events(events) => &events.stream,
                    Command::NewGeneration { stream, .. } | Command::Gap { stream, .. } => stream,
                    other => panic!("{other:?}"),
                };
                views.entry(stream.clone()).or_default().obey(command);
            }
        });
        Self { ingest: start(config, &wiring).unwrap(), views, thread }
    }

    /// Lets the index hold this of a stream from before.
    pub(crate) fn restore(&self, number: u32, view: View) {
        self.views.lock().insert(stream_id(number), view);
    }

    pub(crate) fn view(&self, number: u32) -> View {
        self.views.lock().get(&stream_id(number)).cloned().unwrap_or_default()
    }

    pub(crate) fn status(&self, number: u32) -> StreamStatus {
        self.ingest.status(&stream_id(number)).unwrap()
    }

    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            let streams = self.ingest.statuses();
            assert!(Instant::now() < deadline, "{what}: {streams:?} {:?}", self.ingest.counters());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a stream has come to `next` and is live.
    pub(crate) fn wait_live(&self, number: u32, next: u64) {
        self.wait(&format!("engine {number} live at {next}"), |rig| {
            let status = rig.status(number);
            status.next.0 == next && status.phase == sequencer::Phase::Live && status.behind_ms.is_none()
        });
    }

    pub(crate) fn is_connected(&self, number: u32) -> bool {
        self.status(number).connected
    }
}

pub(crate) fn recording(case: &str) -> Recording {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases");
    Recording::open(&cases.join(case)).unwrap()
}

/// Recorded engines, followed with or without their replay sockets, and connected.
pub(crate) fn follow(case: &str, options: PublisherOptions, with_replay: bool) -> (Publisher, Rig) {
    let publisher = Publisher::start(recording(case), options).unwrap();
    let rig = Rig::start(quick());
    for engine in publisher.endpoints() {
        let replay = with_replay.then_some(engine.replay.as_str());
        rig.ingest.subscribe(subscription(engine.engine, &engine.publish, replay), LED).unwrap();
    }
    assert!(publisher.wait_for_subscribers(Duration::from_secs(10)));
    for engine in publisher.endpoints() {
        rig.wait("connected", |rig| rig.is_connected(engine.engine));
    }
    (publisher, rig)
}

/// What an engine's last life sent among the first `pos` records.
pub(crate) fn truth(recording: &Recording, engine: u32, pos: usize) -> BTreeMap<u64, Option<Changes>> {
    let mut batches = BTreeMap::new();
    for record in recording.records.iter().take(pos).filter(|record| record.engine == engine) {
        if record.seq == 0 {
            batches.clear();
        }
        batches.insert(record.seq, Some(sealed(&record.payload)));
    }
    batches
}

pub(crate) fn sealed(payload: &[u8]) -> Changes {
    let decoded = decode::decode(payload).unwrap();
    assert_eq!((decoded.unknown_events, decoded.skipped.total(), decoded.events_without_tokens), (0, 0, 0));
    decoded.batch.seal(&EngineProfile::default(), &mut BlockHasher::new())
}

/// Waits until every engine's whole truth has arrived, nothing lost.
pub(crate) fn assert_exact(publisher: &Publisher, rig: &Rig) {
    for engine in publisher.endpoints() {
        let truth = truth(publisher.recording(), engine.engine, publisher.position());
        rig.wait_live(engine.engine, truth.len() as u64);
        assert_eq!(rig.view(engine.engine).batches, truth, "engine {}", engine.engine);
    }
}
