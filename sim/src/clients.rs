//! Clients: they ask any node, at any level, and write registers through any node. A write that fails may have
//! happened; they never assume that it did not.

use kvindex_core::replication::{ReadLevel, ShardId};
use kvindex_server::cluster::{ClusterError, WorkerError};
use kvindex_server::node::Origin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::invariants::{Answered, Asked, Register};
use crate::mutation::Mutation;
use crate::node::Running;
use crate::workers::{REGISTERS, register, register_id};
use crate::world::World;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Asks and writes until the engines rest.
pub(crate) async fn live(world: Arc<World>, client: u64) {
    let mut dice = Dice::of(world.plan.seed, &format!("client {client}"));
    while !world.engines_rest() {
        sleep(Duration::from_millis(dice.within(5..60))).await;
        // Nobody asks a node that says that it is not ready.
        let Some(running) = dice.pick(&world.members()).cloned() else { continue };
        let shard = ShardId(u16::try_from(dice.below(usize::from(world.plan.shards))).unwrap_or(0));
        let register = dice.within(0..REGISTERS);
        if dice.percent(35) {
            tell(&world, &running, (shard, register)).await;
        } else {
            let level = [ReadLevel::Local, ReadLevel::Lease, ReadLevel::Linearizable][dice.below(3)];
            let path = dice.pick(&world.plan.prompts).cloned().unwrap_or_default();
            ask(&world, &running, Asked { number: world.number(), level, shard }, path, register).await;
        }
    }
}

async fn tell(world: &Arc<World>, running: &Arc<Running>, (shard, number): (ShardId, u64)) {
    let Some(id) = register_id(shard, number, world.plan.shards) else { return };
    let (register_of, value) = ((shard, number), world.number());
    world.judge.register(Register::Writes { register: register_of, value });
    let there = Arc::clone(running);
    let written = running.life.spawn(async move {
        there.life.gate.pass().await;
        let written = there.cluster.register(register(id, value), Origin::Registered, true).await;
        there.life.gate.pass().await;
        written
    });
    match written.await {
        Ok(Ok(_)) => world.judge.register(Register::Wrote { register: register_of, value }),
        // A client whose node dies knows as little.
        Err(_) | Ok(Err(WorkerError::Cluster(ClusterError::Unsure { .. }))) => {}
        Ok(Err(error)) => {
            world.trace.say("refused", running.life.node, format!("{value}: {error}"));
            world.judge.register(Register::Refused { register: register_of, value });
        }
    }
}

async fn ask(world: &Arc<World>, running: &Arc<Running>, asked: Asked, path: Vec<u8>, register: u64) {
    world.judge.asked(&asked);
    let (number, level, shard) = (asked.number, asked.level, asked.shard);
    world.judge.register(Register::Reads { number });
    let (world, running) = (Arc::clone(world), Arc::clone(running));
    let life = Arc::clone(&running.life);
    let answered = life.spawn(async move {
        running.life.gate.pass().await;
        if world.mutation != Mutation::SkipBarrier {
            running.cluster.barrier(level, PATIENCE).await.ok()?;
        }
        running.life.gate.pass().await;
        let answer = running.answer(shard, &path, world.plan.shards);
        let (node, life) = (running.life.node, running.life.number);
        world.judge.answered(&Answered { asked: &asked, node, life, path: &path, answer: &answer });
        if level != ReadLevel::Local {
            let value = answer.registers.get(&register).copied();
            world.judge.register(Register::Read { number, register: (shard, register), value });
        }
        Some(())
    });
    // A client whose node dies goes to another one.
    let _ = answered.await;
}
