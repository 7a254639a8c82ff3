//! What a node does with engines' streams: the leader of a stream's shard subscribes, lets the real sequencer put
//! what comes into order, and proposes what that decides. A new leader goes on from what is replicated.

use bytes::Bytes;
use kvindex_core::replication::{ProposeError, ReadLevel, ShardCommand, ShardId, encode, shard_of};
use kvindex_core::{Batch, BatchSeq, BlockHasher, Command, GapPolicy, Generation, StreamEvents, StreamId};
use kvindex_server::ingest::sequencer::{Action, Arrival, Input, Sequencer, SequencerConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use crate::engine::{Engine, Heard, Publication, Subscription};
use crate::invariants::Acknowledged;
use crate::mutation::Mutation;
use crate::node::{Node, Running};
use crate::question::spec;
use crate::world::World;

/// Messages that one proposal takes together.
const TOGETHER: usize = 48;
/// A proposal whose outcome is not known is made again so many times.
const TRIES: usize = 3;

/// Follows every stream, as long as the process lives.
pub(crate) fn start(world: &Arc<World>, node: &Arc<Node>, running: &Arc<Running>) {
    for engine in &world.engines {
        let follower = Follower {
            world: Arc::clone(world),
            node: Arc::clone(node),
            running: Arc::clone(running),
            engine: Arc::clone(engine),
            shard: shard_of(&engine.plan.stream.worker, world.plan.shards),
            requests: 0,
        };
        running.life.spawn(follower.run());
    }
}

struct Follower {
    world: Arc<World>,
    node: Arc<Node>,
    running: Arc<Running>,
    engine: Arc<Engine>,
    shard: ShardId,
    /// Number of the replay that was asked for last: answers of others are of no use.
    requests: u64,
}

impl Follower {
    fn stream(&self) -> &StreamId {
        &self.engine.plan.stream
    }

    async fn run(mut self) {
        loop {
            sleep(Duration::from_millis(20)).await;
            self.running.life.gate.pass().await;
            if self.running.leads(self.shard) {
                self.lead().await;
            }
        }
    }

    /// Follows the stream for as long as this node leads its shard.
    async fn lead(&mut self) {
        let patience = Duration::from_secs(1);
        let fresh = self.running.replica.barrier([self.shard], ReadLevel::Linearizable, patience).await;
        if fresh.is_err() {
            return;
        }
        let registered = self.running.machine.registrations(&self.stream().worker);
        let Some(stamp) = self.running.machine.stamp(self.stream()) else { return };
        let resume = stamp.map(|stamp| (stamp.generation, stamp.applied.unwrap_or_default()));
        let resume = resume.filter(|_| self.world.mutation != Mutation::ForgetStamp);
        self.world.trace.say("leads", self.node.number, format!("{} from {resume:?}", self.stream()));
        let config = SequencerConfig {
            has_replay: self.engine.plan.buffer > 0,
            idle_poll_ms: 500,
            ..SequencerConfig::default()
        };
        let mut sequencer = Sequencer::new(config, resume);
        let mut subscription = self.engine.subscribe(self.node.number);
        let mut actions = Vec::new();
        while self.running.leads(self.shard) {
            if registered != self.running.machine.registrations(&self.stream().worker) {
                return;
            }
            let wait = Instant::now() + Duration::from_millis(50);
            let mut heard = subscription.hear(wait).await;
            self.running.life.gate.pass().await;
            let tick = heard.is_none();
            for _ in 0..TOGETHER {
                let Some(input) = heard.take().and_then(|heard| self.input(heard)) else { break };
                self.step(&mut sequencer, &subscription, input, &mut actions);
                heard = subscription.hear_now();
            }
            if let Some(input) = heard.take().and_then(|heard| self.input(heard)) {
                self.step(&mut sequencer, &subscription, input, &mut actions);
            }
            if tick {
                self.step(&mut sequencer, &subscription, Input::Tick, &mut actions);
            }
            let commands = self.commands(std::mem::take(&mut actions));
            if !commands.is_empty() && !self.propose(commands).await {
                return;
            }
        }
    }

    fn input(&self, heard: Heard) -> Option<Input<Publication>> {
        let arrival = |publication: Publication| Arrival {
            seq: publication.seq,
            digest: publication.digest,
            bytes: 1,
            batch: publication,
        };
        match heard {
            Heard::Connected => Some(Input::Connected),
            Heard::Disconnected => Some(Input::Disconnected),
            Heard::Live(publication) => Some(Input::Live(arrival(publication))),
            Heard::Replayed(request, publication) if request == self.requests => {
                Some(Input::Replayed(arrival(publication)))
            }
            Heard::ReplayEnd(request) if request == self.requests => Some(Input::ReplayEnd),
            Heard::ReplayFailed(request) if request == self.requests => Some(Input::ReplayFailed),
            _ => None,
        }
    }

    fn step(
        &mut self,
        sequencer: &mut Sequencer<Publication>,
        subscription: &Subscription,
        input: Input<Publication>,
        actions: &mut Vec<Action<Publication>>,
    ) {
        let before = actions.len();
        sequencer.step(input, self.world.trace.now_ms(), actions);
        for action in &actions[before..] {
            if let Action::RequestReplay { from } = action {
                self.requests += 1;
                subscription.ask_again(self.requests, from.0);
            }
        }
    }

    /// As few commands as possible.
    fn commands(&self, actions: Vec<Action<Publication>>) -> Vec<Command> {
        let at_ms = self.node.wall_ms(&self.world);
        let stream = self.stream();
        let profile = spec(stream.worker.clone()).profile();
        let mut hasher = BlockHasher::new();
        let mut commands: Vec<Command> = Vec::new();
        for action in actions {
            match action {
                Action::Apply { generation, seq, batch, .. } => {
                    let sealed = Batch { seq, changes: batch.batch.seal(&profile, &mut hasher) };
                    match commands.last_mut() {
                        Some(Command::Events(events)) if events.generation == generation => {
                            events.batches.push(sealed);
                            events.payload_digest = Some(batch.digest);
                        }
                        _ => commands.push(Command::Events(StreamEvents {
                            stream: stream.clone(),
                            generation,
                            at_ms,
                            batches: vec![sealed].into(),
                            payload_digest: Some(batch.digest),
                        })),
                    }
                }
                Action::NewGeneration(generation) => {
                    commands.push(Command::NewGeneration { stream: stream.clone(), generation, at_ms });
                }
                Action::Gap { generation, first, last } => {
                    let (stream, policy) = (stream.clone(), GapPolicy::Purge);
                    commands.push(Command::Gap { stream, generation, first, last, policy, at_ms });
                }
                Action::Duplicate | Action::RequestReplay { .. } => {}
            }
        }
        commands
    }

    /// Whether the commands were taken. An unknown outcome is asked again: what was applied already changes nothing.
    async fn propose(&self, commands: Vec<Command>) -> bool {
        let reached = commands.iter().filter_map(reached).next_back();
        let commands: Vec<ShardCommand> = commands.into_iter().map(ShardCommand::Index).collect();
        let Ok(entry) = encode(&commands) else { return false };
        if self.world.mutation == Mutation::AnswerEarly {
            self.acknowledge(None, &entry, reached);
        }
        for _ in 0..TRIES {
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
        at: Option<kvindex_core::replication::LogPosition>,
        entry: &Bytes,
        reached: Option<(Generation, Option<BatchSeq>)>,
    ) {
        let (shard, node, stream) = (self.shard, self.node.number, self.stream().clone());
        let acknowledged =
            Acknowledged { shard, node, at, entry: entry.clone(), stream: Some(stream), reached };
        self.world.judge.acknowledged(&acknowledged);
    }
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
