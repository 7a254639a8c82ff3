//! Every write fails. The process must stop rather than acknowledge what it could not keep; it starts again once
//! there is room.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let Some(node) = strike.any_node() else { return };
    strike.say(node.number, "disk full");
    node.disk.fill(true);
    strike.last().await;
    node.disk.fill(false);
    node.start(&strike.world);
}
