//! What a node does with engines' streams: it subscribes to all and keeps what it hears in the real backlog; the
//! leader of a stream's shard lets the real sequencer put that into order, and proposes what it decides. A new leader
//! goes on from what is replicated. Stands for the server's steering and its threads, which have sockets.

use bytes::Bytes;
use kvindex_core::replication::{LogPosition, ProposeError, ShardCommand, ShardId, encode, shard_of};
use kvindex_core::{
    Batch, BatchSeq, BlockHasher, Command, GapPolicy, Generation, Registration, StreamEvents, StreamId,
    StreamStamp,
};
use kvindex_server::ingest::sequencer::{Action, Arrival, Input, Resume, SequencerConfig};
use kvindex_server::ingest::standby::Follower;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::engine::{Engine, Heard, Publication, Subscription};
use crate::invariants::Acknowledged;
use crate::mutation::Mutation;
use crate::node::{Node, Running};
use crate::question::spec;
use crate::world::World;

/// Messages that one proposal takes together.
const TOGETHER: usize = 48;
/// How long a turn waits for something to be heard.
const TURN: Duration = Duration::from_millis(40);
/// A proposal whose outcome is not known is made again so many times.
const TRIES: usize = 3;

/// Follows every stream, as long as the process lives.
pub(crate) fn start(world: &Arc<World>, node: &Arc<Node>, running: &Arc<Running>) {
    for engine in &world.engines {
        let seed = format!("{} on node {} in life {}", engine.plan.stream, node.number, running.life.number);
        let seat = Seat {
            world: Arc::clone(world),
            node: Arc::clone(node),
            running: Arc::clone(running),
            engine: Arc::clone(engine),
            shard: shard_of(&engine.plan.stream.worker, world.plan.shards),
            dice: Dice::of(world.plan.seed, &seed),
            requests: 0,
        };
        running.life.spawn(seat.run());
    }
}

/// One stream on one node.
struct Seat {
    world: Arc<World>,
    node: Arc<Node>,
    running: Arc<Running>,
    engine: Arc<Engine>,
    shard: ShardId,
    dice: Dice,
    /// Number of the replay that was asked for last: answers of others are of no use.
    requests: u64,
}

/// What is followed, and what was decided and not yet proposed.
struct Following {
    follower: Follower<Publication>,
    subscription: Subscription,
    actions: Vec<Action<Publication>>,
    /// Which registration of the worker this is.
    registration: Registration,
}

impl Seat {
    fn stream(&self) -> &StreamId {
        &self.engine.plan.stream
    }

    async fn run(mut self) {
        loop {
            sleep(Duration::from_millis(20)).await;
            self.running.life.gate.pass().await;
            if let Some(registration) = self.running.machine.registration(&self.stream().worker) {
                self.follow(registration).await;
            }
        }
    }

    /// Follows the stream for as long as this registration of its worker stands.
    async fn follow(&mut self, registration: Registration) {
        let config = SequencerConfig {
            has_replay: self.engine.plan.buffer > 0,
            idle_poll_ms: 500,
            ..SequencerConfig::default()
        };
        let subscription = self.engine.subscribe(self.node.number);
        let (follower, actions) = (Follower::new(config), Vec::new());
        let mut following = Following { follower, subscription, actions, registration };
        loop {
            let heard = following.subscription.hear(Instant::now() + TURN).await;
            self.running.life.gate.pass().await;
            if self.running.machine.registration(&self.stream().worker) != Some(following.registration) {
                return;
            }
            self.steer(&mut following).await;
            let quiet = heard.is_none();
            self.read(&mut following, heard);
            if quiet {
                self.tick(&mut following);
            }
            let commands = self.commands(std::mem::take(&mut following.actions), following.registration);
            if commands.is_empty() || self.propose(commands).await {
                following.follower.taken();
            } else {
                self.stand_by(&mut following);
            }
        }
    }

    /// Leads the stream where this node leads its shard, from where the index stands; stands by otherwise.
    async fn steer(&mut self, following: &mut Following) {
        let leads = self.running.leads(self.shard);
        if !leads && following.follower.is_led() {
            self.stand_by(following);
        }
        if !leads || following.follower.is_led() {
            return;
        }
        // Once an entry of ours is applied, all that earlier leaders proposed is applied or void.
        let Ok(nothing) = encode(&[]) else { return };
        let sure = self.running.replica.propose_here(self.shard, nothing, Duration::from_secs(1)).await;
        self.running.life.gate.pass().await;
        let Some(stamp) = self.running.machine.stamp(self.stream()).filter(|_| sure.is_ok()) else { return };
        let resume = stamp.filter(|_| self.world.mutation != Mutation::ForgetStamp).map(resume);
        self.world.trace.say("leads", self.node.number, format!("{} from {resume:?}", self.stream()));
        self.requests += 1;
        following.follower.lead(resume);
    }

    fn stand_by(&mut self, following: &mut Following) {
        self.world.trace.say("stands by", self.node.number, self.stream().to_string());
        self.requests += 1;
        following.follower.stand_by();
    }

    /// Takes in what was heard, and what is there besides.
    fn read(&mut self, following: &mut Following, first: Option<Heard>) {
        let mut heard = first;
        for _ in 0..TOGETHER {
            let Some(message) = heard.take() else { break };
            self.take(following, message);
            heard = following.subscription.hear_now();
        }
        if let Some(message) = heard {
            self.take(following, message);
        } else if following.follower.must_drain() {
            following.follower.drained();
        }
        self.feed(following);
    }

    fn take(&mut self, following: &mut Following, heard: Heard) {
        let now = self.world.trace.now_ms();
        match heard {
            Heard::Connected => following.follower.link_changed(true, 0),
            Heard::Disconnected => following.follower.link_changed(false, 0),
            Heard::Live(publication) => {
                following.follower.hear(arrival(publication), now);
            }
            // Batches that were kept go first.
            Heard::Replayed(request, publication) if request == self.requests => {
                self.feed(following);
                self.step(following, Input::Replayed(arrival(publication)), now);
            }
            Heard::ReplayEnd(request) if request == self.requests => {
                self.feed(following);
                self.step(following, Input::ReplayEnd, now);
            }
            Heard::ReplayFailed(request) if request == self.requests => {
                self.feed(following);
                self.step(following, Input::ReplayFailed, now);
            }
            Heard::Replayed(..) | Heard::ReplayEnd(_) | Heard::ReplayFailed(_) => {}
        }
    }

    /// Gives the sequencer what is in the backlog, if the stream is led.
    fn feed(&mut self, following: &mut Following) {
        while let Some((input, heard_ms)) = following.follower.next_input() {
            self.step(following, input, heard_ms);
        }
    }

    fn step(&mut self, following: &mut Following, input: Input<Publication>, at_ms: u64) {
        let before = following.actions.len();
        following.follower.step(input, at_ms, &mut following.actions);
        for action in &following.actions[before..] {
            if let Action::RequestReplay { from } = action {
                self.requests += 1;
                following.subscription.ask_again(self.requests, from.0);
            }
        }
    }

    fn tick(&mut self, following: &mut Following) {
        let now = self.world.trace.now_ms();
        if following.follower.is_led() {
            self.step(following, Input::Tick, now);
        } else if following.follower.wants_trim() {
            let stamp = self.running.machine.stamp(self.stream()).flatten();
            following.follower.trim(stamp.map(resume));
        }
    }

    /// As few commands as possible.
    fn commands(&self, actions: Vec<Action<Publication>>, registration: Registration) -> Vec<Command> {
        let forgets = self.world.mutation == Mutation::ForgetRegistration;
        let registration = if forgets { Registration(0) } else { registration };
        let at_ms = self.node.wall_ms(&self.world);
        let stream = self.stream();
        let profile = spec(stream.worker.clone()).profile();
        let mut hasher = BlockHasher::new();
        let mut commands: Vec<Command> = Vec::new();
        for action in actions {
            match action {
                Action::Apply { generation, seq, digest, batch } => {
                    let sealed = Batch { seq, changes: batch.batch.seal(&profile, &mut hasher) };
                    match commands.last_mut() {
                        Some(Command::Events(events)) if events.generation == generation => {
                            events.batches.push(sealed);
                            events.payload_digest = Some(digest);
                        }
                        _ => commands.push(Command::Events(StreamEvents {
                            stream: stream.clone(),
                            generation,
                            at_ms,
                            batches: vec![sealed].into(),
                            payload_digest: Some(digest),
                            registration,
                        })),
                    }
                }
                Action::NewGeneration(generation) => {
                    let stream = stream.clone();
                    commands.push(Command::NewGeneration { stream, generation, at_ms, registration });
                }
                Action::Gap { generation, first, last } => {
                    let (stream, policy) = (stream.clone(), GapPolicy::Purge);
                    commands.push(Command::Gap {
                        stream,
                        generation,
                        first,
                        last,
                        policy,
                        at_ms,
                        registration,
                    });
                }
                Action::Duplicate | Action::RequestReplay { .. } => {}
            }
        }
        commands
    }

    /// Whether the commands were taken. Where the outcome is not known the stream falls back to standby, or now and
    /// then the same is proposed again: what was applied already changes nothing.
    async fn propose(&mut self, commands: Vec<Command>) -> bool {
        let reached = commands.iter().filter_map(reached).next_back();
        let commands: Vec<ShardCommand> = commands.into_iter().map(ShardCommand::Index).collect();
        let Ok(entry) = encode(&commands) else { return false };
        if self.world.mutation == Mutation::AnswerEarly {
            self.acknowledge(None, &entry, reached);
        }
        let tries = if self.dice.percent(50) { TRIES } else { 1 };
        for _ in 0..tries {
            let patience = Duration::from_millis(800);
            let proposed = self.running.replica.propose_here(self.shard, entry.clone(), patience).await;
            self.running.life.gate.pass().await;
            match proposed {
                Ok((at, _)) => {
                    self.acknowledge(Some(at), &entry, reached);
                    return true;
                }
                Err(ProposeError::Unsure { .. }) => {
                    self.world.trace.say(
                        "unsure",
                        self.node.number,
                        format!("{} {reached:?}", self.stream()),
                    );
                }
                Err(_) => return false,
            }
        }
        false
    }

    fn acknowledge(
        &self,
        at: Option<LogPosition>,
        entry: &Bytes,
        reached: Option<(Generation, Option<BatchSeq>)>,
    ) {
        let (shard, node, stream) = (self.shard, self.node.number, self.stream().clone());
        let acknowledged =
            Acknowledged { shard, node, at, entry: entry.clone(), stream: Some(stream), reached };
        self.world.judge.acknowledged(&acknowledged);
    }
}

fn arrival(publication: Publication) -> Arrival<Publication> {
    Arrival { seq: publication.seq, digest: publication.digest, bytes: 1, batch: publication }
}

fn resume(stamp: StreamStamp) -> Resume {
    Resume { generation: stamp.generation, applied: stamp.applied, payload_digest: stamp.payload_digest }
}

/// Up to where a command brings its stream.
fn reached(command: &Command) -> Option<(Generation, Option<BatchSeq>)> {
    match command {
        Command::Events(events) => Some((events.generation, events.batches.last().map(|batch| batch.seq))),
        Command::Gap { generation, last, .. } => Some((*generation, Some(*last))),
        Command::NewGeneration { generation, .. } => Some((*generation, None)),
        _ => None,
    }
}
