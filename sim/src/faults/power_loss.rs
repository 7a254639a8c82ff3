//! Machines lose power: the process is gone, and what it had written and not flushed with it, but for a beginning.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let nodes = strike.some_nodes();
    for node in &nodes {
        node.kill(&strike.world);
        let lost = node.disk.lose_power();
        strike.say(node.number, format!("power lost, {lost} writes gone"));
    }
    strike.last().await;
    nodes.iter().for_each(|node| node.start(&strike.world));
}
