//! A worker is taken out of the registry, with all its blocks, and put back.

use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

use super::Strike;
use crate::engine::EnginePlan;
use crate::workers;

pub(super) async fn strike(mut strike: Strike) {
    let engines: Vec<EnginePlan> = strike.world.engines.iter().map(|engine| engine.plan.clone()).collect();
    let Some(worker) = strike.dice.pick(&workers::all(&engines)).cloned() else { return };
    let id = worker.spec.id.clone();
    strike.say(0, format!("{id} is unregistered"));
    if let Some(asked) = strike.dice.pick(&strike.world.members()).cloned() {
        let (there, id) = (Arc::clone(&asked), id.clone());
        let gone = asked.life.spawn(async move { there.cluster.unregister(id).await }).await;
        strike.say(asked.life.node, format!("says {gone:?}"));
    }
    strike.last().await;
    strike.say(0, format!("{id} is registered"));
    // Until it surely is: whoever registers asks until there is an answer.
    loop {
        if let Some(asked) = strike.dice.pick(&strike.world.members()).cloned()
            && strike.world.register(&asked, worker.clone()).await
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
