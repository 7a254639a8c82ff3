//! Several services on the sockets of one engine, and one index that they share: one leads, the others stand by, and
//! when another leads from then on, nothing that was heard is lost, with or without replay sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvindex_core::{Command, Index, StreamId, WorkerSpec};
use kvindex_recording::{Pace, Publisher, PublisherOptions};
use kvindex_server::ingest::sequencer::Phase;
use kvindex_server::ingest::{Begin, Handle, NotTaken, Resume, StreamStatus, Wiring, start};
use parking_lot::Mutex;

use crate::ingest_rig::{REGISTRATION, View, quick, recording, stream_id, subscription, truth};

/// What all services agree on, as replicas of one index would.
#[derive(Default)]
struct Agreed {
    index: Mutex<(Index, BTreeMap<StreamId, View>)>,
    /// Calls of a sink that shall be refused before the next one is taken.
    refusals: AtomicUsize,
    fell_back: Mutex<BTreeSet<StreamId>>,
    deaf: AtomicBool,
}

impl Agreed {
    fn take(&self, commands: Vec<Command>) -> Result<(), NotTaken> {
        let refuses =
            self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        // One stream's are refused, and those of the others in the same call are taken.
        let refused = commands.first().filter(|_| refuses).map(|first| stream_of(first).clone());
        let (index, views) = &mut *self.index.lock();
        for command in commands.into_iter().filter(|command| Some(stream_of(command)) != refused.as_ref()) {
            let outcome = index.apply(&command);
            let ignored =
                [outcome.duplicates, outcome.stale, outcome.unknown_worker, outcome.other_registration];
            assert_eq!(ignored, [0; 4], "{command:?}");
            views.entry(stream_of(&command).clone()).or_default().obey(command);
        }
        refused.map_or(Ok(()), |stream| Err(NotTaken::Streams([stream].into())))
    }

    fn resume(&self, stream: &StreamId) -> Option<Resume> {
        let stamp = self.index.lock().0.reader().stream(stream)?;
        let (generation, applied, payload_digest) = (stamp.generation, stamp.applied, stamp.payload_digest);
        Some(Resume { generation, applied, payload_digest })
    }

    fn view(&self, number: u32) -> View {
        self.index.lock().1.get(&stream_id(number)).cloned().unwrap_or_default()
    }
}

fn stream_of(command: &Command) -> &StreamId {
    match command {
        Command::Events(events) => &events.stream,
        Command::NewGeneration { stream, .. } | Command::Gap { stream, .. } => stream,
        other => panic!("{other:?}"),
    }
}

/// Services on standby for every engine of a publisher.
struct Fleet {
    publisher: Arc<Publisher>,
    agreed: Arc<Agreed>,
    services: Vec<Handle>,
}

impl Fleet {
    fn start(case: &str, options: PublisherOptions, services: usize, with_replay: bool) -> Self {
        let options = PublisherOptions { subscribers: services, ..options };
        let publisher = Arc::new(Publisher::start(recording(case), options).unwrap());
        let agreed = Arc::new(Agreed::default());
        for engine in publisher.endpoints() {
            let spec = WorkerSpec::new(stream_id(engine.engine).worker, "m");
            let index = &mut agreed.index.lock().0;
            index.number_registrations(REGISTRATION);
            index.apply(&Command::Register(Box::new(spec)));
        }
        let services = (0..services).map(|_| Self::service(&publisher, &agreed, with_replay)).collect();
        let fleet = Self { publisher, agreed, services };
        assert!(fleet.publisher.wait_for_subscribers(Duration::from_secs(10)));
        fleet.wait("connected", |fleet| {
            fleet.engines().all(|n| (0..fleet.services.len()).all(|s| fleet.status(s, n).connected))
        });
        fleet
    }

    fn service(publisher: &Publisher, agreed: &Arc<Agreed>, with_replay: bool) -> Handle {
        let [sink, applied, fell_back] = [(); 3].map(|()| Arc::clone(agreed));
        let wiring = Wiring {
            sink: Arc::new(move |commands| sink.take(commands)),
            applied: Arc::new(move |stream| {
                applied.resume(stream).filter(|_| !applied.deaf.load(Ordering::Relaxed))
            }),
            fresh: Arc::new(|_| true),
            fell_back: Arc::new(move |streams| fell_back.fell_back.lock().extend(streams.iter().cloned())),
        };
        let service = start(quick(), &wiring).unwrap();
        for engine in publisher.endpoints() {
            let replay = with_replay.then_some(engine.replay.as_str());
            let source = subscription(engine.engine, &engine.publish, replay);
            service.subscribe(source, Begin::OnStandby).unwrap();
        }
        service
    }

    fn engines(&self) -> impl Iterator<Item = u32> + '_ {
        self.publisher.endpoints().iter().map(|engine| engine.engine)
    }

    fn status(&self, service: usize, number: u32) -> StreamStatus {
        self.services[service].status(&stream_id(number)).unwrap()
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            let states: Vec<_> = self.services.iter().map(Handle::statuses).collect();
            assert!(Instant::now() < deadline, "{what}: {states:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lead(&self, service: usize, stream: &StreamId) {
        assert!(self.services[service].lead(stream, self.agreed.resume(stream)));
    }

    fn lead_all(&self, service: usize) {
        self.engines().for_each(|number| self.lead(service, &stream_id(number)));
    }

    fn hand_over(&self, from: usize, to: usize) {
        for number in self.engines() {
            assert!(self.services[from].stand_by(&stream_id(number)));
            self.lead(to, &stream_id(number));
        }
    }

    /// Plays the rest while `meanwhile` is called again and again.
    fn play(&self, mut meanwhile: impl FnMut(usize)) {
        let publisher = Arc::clone(&self.publisher);
        let player = std::thread::spawn(move || publisher.play_all().unwrap());
        for round in 0.. {
            meanwhile(round);
            if player.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        player.join().unwrap();
    }

    /// Leads again what fell back, and waits until the index has all that the engines' last lives said.
    fn assert_exact(&self, leader: usize) {
        for number in self.engines() {
            let truth = truth(self.publisher.recording(), number, self.publisher.position());
            self.wait(&format!("engine {number} at {}", truth.len()), |fleet| {
                fleet.lead_what_fell_back(leader);
                let status = fleet.status(leader, number);
                // It may wait for the engine's next word to be sure of its life: then it has nothing to catch up.
                let still = status.phase != Phase::CatchingUp && status.behind_ms.is_none();
                status.led && still && status.next.0 == truth.len() as u64
            });
            let view = self.agreed.view(number);
            let (lost, generation) = (view.lost(), view.generation);
            assert!(lost.is_empty(), "engine {number} in generation {generation}: {lost:?}");
            assert!(view.batches == truth, "engine {number} in generation {generation}");
        }
        for service in &self.services {
            assert_eq!((service.counters().gaps.get(), service.counters().backlog_dropped.get()), (0, 0));
        }
    }

    fn lead_what_fell_back(&self, leader: usize) -> usize {
        let fell_back = std::mem::take(&mut *self.agreed.fell_back.lock());
        fell_back.iter().for_each(|stream| self.lead(leader, stream));
        fell_back.len()
    }

    /// New generations began only where the engines began new lives: all else was proven. A life of which nothing
    /// was applied needs none.
    fn assert_lives_were_proven(&self) {
        let generations = self.engines().map(|number| self.agreed.view(number).generation).sum::<u64>();
        assert!(generations <= self.publisher.stats().restarts, "{generations} generations");
    }
}

fn slowly() -> PublisherOptions {
    PublisherOptions { pace: Pace::Rate(4_000.0), ..PublisherOptions::default() }
}

#[test]
fn leadership_moves_between_two_services_and_no_event_is_lost() {
    for with_replay in [false, true] {
        let fleet = Fleet::start("conv-a", slowly(), 2, with_replay);
        fleet.lead_all(0);
        let mut leader = 0;
        let mut moves = 0;
        fleet.play(|_| {
            fleet.hand_over(leader, 1 - leader);
            leader = 1 - leader;
            moves += 1;
        });
        fleet.assert_exact(leader);
        assert!(moves > 10, "{moves} moves");
        fleet.assert_lives_were_proven();
    }
}

#[test]
fn a_service_that_dies_is_followed_by_one_that_stood_by() {
    let mut fleet = Fleet::start("conv-a", slowly(), 2, false);
    fleet.lead_all(0);
    let publisher = Arc::clone(&fleet.publisher);
    let player = std::thread::spawn(move || publisher.play_all().unwrap());
    fleet.wait("half of it", |fleet| {
        fleet.publisher.position() > fleet.publisher.recording().records.len() / 2
    });
    let dead = fleet.services.remove(0);
    dead.shutdown();
    // An election takes its time, and what comes meanwhile is kept.
    std::thread::sleep(Duration::from_millis(200));
    fleet.lead_all(0);
    player.join().unwrap();
    fleet.assert_exact(0);
    fleet.assert_lives_were_proven();
}

#[test]
fn what_a_sink_does_not_take_comes_again() {
    for with_replay in [false, true] {
        let fleet = Fleet::start("conv-a", slowly(), 1, with_replay);
        fleet.lead_all(0);
        let mut fell_back = 0;
        fleet.play(|round| {
            fell_back += fleet.lead_what_fell_back(0);
            fleet.agreed.refusals.store(round % 3, Ordering::Relaxed);
        });
        fleet.agreed.refusals.store(0, Ordering::Relaxed);
        fleet.assert_exact(0);
        assert!(fell_back > 10, "{fell_back} streams fell back");
        fleet.assert_lives_were_proven();
    }
}

#[test]
fn engines_that_restart_while_leadership_moves_are_followed() {
    for with_replay in [false, true] {
        let fleet = Fleet::start("restart", slowly(), 2, with_replay);
        fleet.lead_all(0);
        let mut leader = 0;
        fleet.play(|_| {
            fleet.hand_over(leader, 1 - leader);
            leader = 1 - leader;
        });
        fleet.assert_exact(leader);
        assert!(fleet.publisher.stats().restarts > 0);
        fleet.assert_lives_were_proven();
    }
}

#[test]
fn a_standby_tells_how_far_the_index_is_behind_what_it_hears() {
    let fleet = Fleet::start("basic", PublisherOptions::default(), 2, false);
    assert_eq!(fleet.status(1, 0).phase, Phase::Pending, "never heard");
    fleet.publisher.play_until(40).unwrap();
    let behind = |fleet: &Fleet| fleet.status(1, 0).behind_ms.is_some_and(|ms| ms > 300);
    fleet.wait("nobody leads, so the index is behind", behind);
    assert_eq!((fleet.status(1, 0).led, fleet.status(1, 0).phase), (false, Phase::CatchingUp));
    fleet.lead_all(0);
    fleet.wait("the other one leads, so it is not", |fleet| {
        let status = fleet.status(1, 0);
        (status.phase, status.behind_ms) == (Phase::Live, None)
    });
    let next = truth(fleet.publisher.recording(), 0, 40).len() as u64;
    assert_eq!((fleet.status(1, 0).next.0, fleet.status(0, 0).next.0), (next, next));
    // What is applied cannot be learned for a while: nothing is dropped, and nothing comes twice.
    fleet.agreed.deaf.store(true, Ordering::Relaxed);
    fleet.publisher.play_all().unwrap();
    let end = truth(fleet.publisher.recording(), 0, fleet.publisher.position()).len() as u64;
    fleet.wait("the leader is through", |fleet| fleet.status(0, 0).next.0 == end);
    fleet.hand_over(0, 1);
    fleet.assert_exact(1);
}
