//! Messages of a node take long, in one direction or both.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let Some(node) = strike.any_node().map(|node| node.number) else { return };
    let (out, back) = [(true, true), (true, false), (false, true)][strike.dice.below(3)];
    let slow = [(20, 80), (80, 300), (200, 900)][strike.dice.below(3)];
    let usual = strike.world.plan.link.delay_ms;
    for delay in [slow, usual] {
        for other in strike.world.nodes().iter().map(|other| other.number).filter(|other| *other != node) {
            if out {
                strike.world.network.change(node, other, |link| link.delay_ms = delay);
            }
            if back {
                strike.world.network.change(other, node, |link| link.delay_ms = delay);
            }
        }
        if delay == slow {
            strike.last().await;
        }
    }
}
