//! The one ingest thread of a process, without sockets: it follows the streams that the server's steering names,
//! keeps what it hears in the server's backlog, lets the server's sequencer decide where a stream is led, and hands
//! a turn's commands to the server's intake. Stands for `ingest/service` and `ingest/subscriber`.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvindex_core::{Batch, BlockHasher, Command, EngineProfile, GapPolicy, Registration, StreamId};
use kvindex_server::cluster::{self, Cluster};
use kvindex_server::ingest::sequencer::{Action, Arrival, Input, Resume, SequencerConfig};
use kvindex_server::ingest::standby::Follower;
use kvindex_server::ingest::{Batcher, IngestError, NotTaken, Subscription as Source, Wiring};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::engine::{Heard, Publication, Subscription};
use crate::invariants::acknowledgements;
use crate::life::Life;
use crate::mutation::Mutation;
use crate::node::{Node, Running};
use crate::world::World;

/// Messages that one turn takes of a stream.
const TOGETHER: usize = 48;
/// Silence after which an engine's last batch is asked for again.
const IDLE: Duration = Duration::from_millis(500);
/// Between two looks at the streams' idle timers.
const TICK: Duration = Duration::from_millis(125);
/// Orders that may wait for the thread.
const ORDERS: usize = 256;

/// What steering asks of the thread.
#[derive(Debug)]
pub(crate) enum Order {
    Follow(Box<Source>),
    Leave(StreamId, oneshot::Sender<()>),
    Lead(StreamId, Option<Resume>),
    StandBy(StreamId, oneshot::Sender<()>),
}

/// The streams of one process, as steering moves them.
#[derive(Debug)]
pub(crate) struct Streams {
    world: Weak<World>,
    life: Arc<Life>,
    orders: mpsc::Sender<Order>,
}

impl Streams {
    /// Those of a process, and where its thread finds its orders.
    #[must_use]
    pub(crate) fn new(world: &Arc<World>, life: &Arc<Life>) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        (Self { world: Arc::downgrade(world), life: Arc::clone(life), orders }, receiver)
    }

    fn say(&self, what: &'static str, text: String) {
        if let Some(world) = self.world.upgrade() {
            world.trace.say(what, self.life.node, text);
        }
    }

    /// Through when the thread has done it, or is gone.
    async fn ask(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, answer) = oneshot::channel();
        if self.orders.send(order(done)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

impl cluster::Streams for Streams {
    fn follow(&self, source: Source) -> BoxFuture<'_, Result<(), IngestError>> {
        async move {
            self.say("follows", source.stream.to_string());
            let ordered = self.orders.send(Order::Follow(Box::new(source))).await;
            ordered.map_err(|_| IngestError::ShutDown)
        }
        .boxed()
    }

    fn leave<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, ()> {
        self.say("leaves", stream.to_string());
        self.ask(|done| Order::Leave(stream.clone(), done)).boxed()
    }

    fn lead<'a>(&'a self, stream: &'a StreamId, resume: Option<Resume>) -> BoxFuture<'a, ()> {
        async move {
            self.say("leads", format!("{stream} from {resume:?}"));
            // An error says that the thread is gone.
            let _ = self.orders.send(Order::Lead(stream.clone(), resume)).await;
        }
        .boxed()
    }

    fn stand_by<'a>(&'a self, stream: &'a StreamId) -> BoxFuture<'a, ()> {
        self.say("stands by", stream.to_string());
        self.ask(|done| Order::StandBy(stream.clone(), done)).boxed()
    }
}

/// Starts the thread of a process.
pub(crate) fn start(
    world: &Arc<World>,
    node: &Arc<Node>,
    running: &Arc<Running>,
    orders: mpsc::Receiver<Order>,
) {
    let life = &running.life;
    let seed = format!("ingest on node {} in life {}", node.number, life.number);
    let thread = Thread {
        world: Arc::clone(world),
        node: Arc::clone(node),
        life: Arc::clone(life),
        cluster: Arc::downgrade(&running.cluster),
        wiring: running.cluster.wiring(&Handle::current()),
        orders,
        seats: BTreeMap::new(),
        dice: Dice::of(world.plan.seed, &seed),
        batcher: Batcher::default(),
        hasher: BlockHasher::new(),
    };
    life.spawn(thread.run());
}

struct Thread {
    world: Arc<World>,
    node: Arc<Node>,
    life: Arc<Life>,
    cluster: Weak<Cluster>,
    /// Its sink is not used: it waits as only a thread of its own can.
    wiring: Wiring,
    orders: mpsc::Receiver<Order>,
    seats: BTreeMap<StreamId, Seat>,
    dice: Dice,
    batcher: Batcher,
    hasher: BlockHasher,
}

/// A followed stream.
struct Seat {
    stream: StreamId,
    /// Of its worker, for which it is followed.
    registration: Registration,
    profile: EngineProfile,
    gap_policy: GapPolicy,
    follower: Follower<Publication>,
    subscription: Subscription,
    /// Number of the replay that was asked for last: answers of others are of no use.
    requests: u64,
    /// Commands of it were made in this turn.
    deciding: bool,
}

/// What all streams share during one turn.
struct Turn<'a> {
    now_ms: u64,
    wall_ms: u64,
    batcher: &'a mut Batcher,
    hasher: &'a mut BlockHasher,
}

impl Thread {
    async fn run(mut self) {
        let mut next_tick = Instant::now();
        loop {
            sleep(Duration::from_millis(self.dice.within(1..9))).await;
            self.life.gate.pass().await;
            self.obey();
            let tick = Instant::now() >= next_tick;
            if tick {
                next_tick = Instant::now() + TICK;
            }
            let mut turn = Turn {
                now_ms: self.world.trace.now_ms(),
                wall_ms: self.node.wall_ms(&self.world),
                batcher: &mut self.batcher,
                hasher: &mut self.hasher,
            };
            for seat in self.seats.values_mut() {
                seat.read(&mut turn);
                if tick {
                    seat.tick(&self.wiring, &mut turn);
                }
            }
            self.flush().await;
        }
    }

    fn obey(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Follow(source) => {
                    if let Some(seat) = self.follow(*source) {
                        self.seats.insert(seat.stream.clone(), seat);
                    }
                }
                Order::Leave(stream, done) => {
                    self.seats.remove(&stream);
                    let _ = done.send(());
                }
                Order::Lead(stream, resume) => {
                    let resume = resume.filter(|_| self.world.mutation != Mutation::ForgetStamp);
                    self.seats.get_mut(&stream).into_iter().for_each(|seat| seat.lead(resume));
                }
                Order::StandBy(stream, done) => {
                    self.seats.get_mut(&stream).into_iter().for_each(Seat::stand_by);
                    let _ = done.send(());
                }
            }
        }
    }

    fn follow(&self, source: Source) -> Option<Seat> {
        let engine = self.world.engine_at(&source.endpoint)?;
        let config = SequencerConfig {
            has_replay: source.replay_endpoint.is_some(),
            idle_poll_ms: u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX),
            ..SequencerConfig::default()
        };
        let Source { stream, profile, gap_policy, registration, .. } = source;
        let forgets = self.world.mutation == Mutation::ForgetRegistration;
        let registration = if forgets { Registration(0) } else { registration };
        let subscription = engine.subscribe(self.node.number);
        let (follower, requests, deciding) = (Follower::new(config), 0, false);
        Some(Seat { stream, registration, profile, gap_policy, follower, subscription, requests, deciding })
    }

    /// Hands the turn's commands over; streams whose own were not taken fall back to standby.
    async fn flush(&mut self) {
        let commands = self.batcher.take();
        let mut refused = None;
        if !commands.is_empty() {
            refused = self.hand_over(commands).await.err();
        }
        let mut fell_back = Vec::new();
        for seat in self.seats.values_mut() {
            if seat.settle(refused.as_ref()) {
                self.world.trace.say("falls back", self.node.number, seat.stream.to_string());
                fell_back.push(seat.stream.clone());
            }
        }
        if !fell_back.is_empty() {
            (self.wiring.fell_back)(&fell_back);
        }
    }

    /// Now and then what was taken is handed over once more: what was applied already changes nothing.
    async fn hand_over(&mut self, commands: Vec<Command>) -> Result<(), NotTaken> {
        let Some(cluster) = self.cluster.upgrade() else { return Err(NotTaken::All) };
        let acknowledged = acknowledgements(self.node.number, &commands, self.world.plan.shards);
        let judge = &self.world.judge;
        if self.world.mutation == Mutation::AnswerEarly {
            acknowledged.iter().for_each(|of_a_shard| judge.acknowledged(of_a_shard));
        }
        let again = self.dice.percent(15).then(|| commands.clone());
        let taken = cluster.take_in(commands).await;
        self.life.gate.pass().await;
        if taken.is_ok() {
            acknowledged.iter().for_each(|of_a_shard| judge.acknowledged(of_a_shard));
            if let Some(commands) = again {
                // Whatever becomes of it.
                let _ = cluster.take_in(commands).await;
                self.life.gate.pass().await;
            }
        }
        taken
    }
}

impl Seat {
    fn lead(&mut self, resume: Option<Resume>) {
        self.requests += 1;
        self.follower.lead(resume);
    }

    fn stand_by(&mut self) {
        self.requests += 1;
        self.follower.stand_by();
    }

    /// Takes in what is there.
    fn read(&mut self, turn: &mut Turn<'_>) {
        let mut left = true;
        for _ in 0..TOGETHER {
            let Some(message) = self.subscription.hear_now() else {
                left = false;
                break;
            };
            self.take(message, turn);
        }
        if !left && self.follower.must_drain() {
            self.follower.drained();
        }
        self.feed(turn);
    }

    fn take(&mut self, heard: Heard, turn: &mut Turn<'_>) {
        let now = turn.now_ms;
        match heard {
            Heard::Connected => self.follower.link_changed(true, 0),
            Heard::Disconnected => self.follower.link_changed(false, 0),
            Heard::Live(publication) => {
                self.follower.hear(arrival(publication), now);
            }
            // Batches that were kept go first.
            Heard::Replayed(request, publication) if request == self.requests => {
                self.feed(turn);
                self.step(Input::Replayed(arrival(publication)), now, turn);
            }
            Heard::ReplayEnd(request) if request == self.requests => {
                self.feed(turn);
                self.step(Input::ReplayEnd, now, turn);
            }
            Heard::ReplayFailed(request) if request == self.requests => {
                self.feed(turn);
                self.step(Input::ReplayFailed, now, turn);
            }
            Heard::Replayed(..) | Heard::ReplayEnd(_) | Heard::ReplayFailed(_) => {}
        }
    }

    /// Gives the sequencer what is in the backlog, if the stream is led.
    fn feed(&mut self, turn: &mut Turn<'_>) {
        while let Some((input, heard_ms)) = self.follower.next_input() {
            self.step(input, heard_ms, turn);
        }
    }

    fn tick(&mut self, wiring: &Wiring, turn: &mut Turn<'_>) {
        if self.follower.is_led() {
            self.step(Input::Tick, turn.now_ms, turn);
        } else if self.follower.wants_trim() {
            self.follower.trim((wiring.applied)(&self.stream));
        }
    }

    /// Puts one input into the sequencer and does what it says.
    fn step(&mut self, input: Input<Publication>, at_ms: u64, turn: &mut Turn<'_>) {
        let mut actions = Vec::new();
        self.follower.step(input, at_ms, &mut actions);
        let followed = (&self.stream, self.registration);
        for action in actions {
            self.deciding |= !matches!(action, Action::Duplicate | Action::RequestReplay { .. });
            match action {
                Action::Apply { generation, seq, digest, batch } => {
                    let batch = Batch { seq, changes: batch.batch.seal(&self.profile, turn.hasher) };
                    turn.batcher.batch(followed, generation, (batch, digest), 1, turn.wall_ms);
                }
                Action::NewGeneration(generation) => {
                    turn.batcher.new_generation(followed, generation, turn.wall_ms);
                }
                Action::Gap { generation, first, last } => {
                    turn.batcher.gap(followed, generation, (first, last), self.gap_policy, turn.wall_ms);
                }
                Action::RequestReplay { from } => {
                    self.requests += 1;
                    self.subscription.ask_again(self.requests, from.0);
                }
                Action::Duplicate => {}
            }
        }
    }

    /// Learns what became of the turn's commands; whether the stream fell back to standby.
    fn settle(&mut self, refused: Option<&NotTaken>) -> bool {
        let concerned = refused.is_some_and(|refused| match refused {
            NotTaken::All => true,
            NotTaken::Streams(streams) => streams.contains(&self.stream),
        });
        let falls_back = std::mem::take(&mut self.deciding) && concerned;
        if falls_back {
            self.stand_by();
        } else {
            self.follower.taken();
        }
        falls_back
    }
}

fn arrival(publication: Publication) -> Arrival<Publication> {
    Arrival { seq: publication.seq, digest: publication.digest, bytes: 1, batch: publication }
}
