//! A node loses everything it kept and starts again at its address. It must come back under another id: the old one
//! stands for votes and entries that nobody has any more.

use std::sync::Arc;

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let world = Arc::clone(&strike.world);
    let _alone = world.operator.lock().await;
    // Data are safe on a majority: a cluster that is not whole, or has too few nodes, must lose no more.
    strike.wait_until_whole().await;
    if world.nodes().len() < 3 || world.incomplete().is_some() || world.engines_rest() {
        return strike.say(0, "no node can be spared");
    }
    let voters = world.members().first().map(|running| {
        let directory = running.cluster.directory();
        directory.nodes().filter(|(_, known)| known.voter).count()
    });
    let Some(node) = strike.any_node().filter(|_| voters >= Some(3)) else { return };
    node.kill(&world);
    node.disk.wipe();
    strike.say(node.number, "disk wiped");
    strike.last().await;
    node.start(&world);
    strike.wait_until_whole().await;
}
