//! Batches are lost on the way from an engine to its subscribers, as a PUB socket loses them.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let Some(engine) = strike.dice.pick(&strike.world.engines).cloned() else { return };
    let lost = [200, 600, 1_000][strike.dice.below(3)];
    // On the way to one node, or to all.
    let node = strike.any_node().map(|node| node.number).filter(|_| strike.dice.percent(50));
    strike.say(0, format!("{lost}‰ of {} lost on the way to {node:?}", engine.plan.stream));
    engine.lose(node, lost);
    strike.last().await;
    engine.lose(node, 0);
}
