//! A worker is taken out of the registry, with all its blocks, and put back.

use kvindex_core::Command;
use kvindex_core::replication::{ShardCommand, shard_of};
use std::time::Duration;

use super::Strike;
use crate::world::registration;

const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn strike(mut strike: Strike) {
    let Some(engine) = strike.dice.pick(&strike.world.engines).cloned() else { return };
    let worker = engine.plan.stream.worker.clone();
    strike.say(0, format!("{worker} is unregistered"));
    propose(&mut strike, Command::Unregister { worker: worker.clone() }.into()).await;
    strike.last().await;
    strike.say(0, format!("{worker} is registered"));
    // Until it surely is: whoever registers asks until it has an answer.
    while !propose(&mut strike, registration(worker.clone())).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn propose(strike: &mut Strike, command: ShardCommand) -> bool {
    let ShardCommand::Index(Command::Unregister { worker }) = &command else {
        return register(strike, command).await;
    };
    let shard = shard_of(worker, strike.world.plan.shards);
    let Some(running) = strike.dice.pick(&strike.world.network.all_running()).cloned() else { return false };
    running.replica.propose(shard, &[command], PATIENCE).await.is_ok()
}

async fn register(strike: &mut Strike, command: ShardCommand) -> bool {
    let ShardCommand::Index(Command::Register(spec)) = &command else { return false };
    let shard = shard_of(&spec.id, strike.world.plan.shards);
    let Some(running) = strike.dice.pick(&strike.world.network.all_running()).cloned() else { return false };
    running.replica.propose(shard, &[command], PATIENCE).await.is_ok()
}
