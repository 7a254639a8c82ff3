//! Clients: they ask any node, at any level, and write registers through any node. A write that fails may have
//! happened; they never assume that it did not.

use kvindex_core::replication::{ReadLevel, ShardId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::invariants::{Answered, Asked, Register};
use crate::machine::RegisterWrite;
use crate::mutation::Mutation;
use crate::node::Running;
use crate::world::World;

/// Registers of each shard.
const REGISTERS: u64 = 2;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Asks and writes until the engines rest.
pub(crate) async fn live(world: Arc<World>, client: u64) {
    let mut dice = Dice::of(world.plan.seed, &format!("client {client}"));
    let mut writes = 0;
    while !world.engines_rest() {
        sleep(Duration::from_millis(dice.within(5..60))).await;
        let Some(running) = dice.pick(&world.network.all_running()).cloned() else { continue };
        let shard = ShardId(u16::try_from(dice.below(usize::from(world.plan.shards))).unwrap_or(0));
        let register = dice.within(0..REGISTERS);
        if dice.percent(35) {
            writes += 1;
            let write = RegisterWrite { client, number: writes, register, value: world.number() };
            tell(&world, &running, shard, write).await;
        } else {
            let level = [ReadLevel::Local, ReadLevel::Lease, ReadLevel::Linearizable][dice.below(3)];
            let path = dice.pick(&world.plan.prompts).cloned().unwrap_or_default();
            ask(&world, &running, Asked { number: world.number(), level, shard }, path, register).await;
        }
    }
}

async fn tell(world: &Arc<World>, running: &Arc<Running>, shard: ShardId, write: RegisterWrite) {
    let (register, value) = ((shard, write.register), write.value);
    world.judge.register(Register::Writes { register, value });
    let replica = Arc::clone(&running.replica);
    let gate = Arc::clone(&running.life.gate);
    let written = running.life.spawn(async move {
        gate.pass().await;
        let written = replica.propose(shard, &[write.command()], PATIENCE).await;
        gate.pass().await;
        written
    });
    if matches!(written.await, Ok(Ok(_))) {
        world.judge.register(Register::Wrote { register, value });
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
            running.replica.barrier([shard], level, PATIENCE).await.ok()?;
        }
        running.life.gate.pass().await;
        let answer = running.machine.answer(shard, &path);
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
