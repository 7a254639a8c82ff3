//! An engine begins another life: an empty cache, batches from 0, and nothing on the wire that says so.

use tokio::time::sleep;

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    // Now and then one that fails again soon after it started.
    let times = if strike.dice.percent(25) { 3 } else { 1 };
    let Some(engine) = strike.dice.pick(&strike.world.engines).cloned() else { return };
    for _ in 0..times {
        let life = engine.restart();
        strike.say(0, format!("{} begins life {life}", engine.plan.stream));
        sleep(strike.lasts / 4).await;
    }
}
