//! Processes are killed where they stand, and start again from what they had written.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let nodes = strike.some_nodes();
    nodes.iter().for_each(|node| node.kill(&strike.world));
    strike.last().await;
    nodes.iter().for_each(|node| node.start(&strike.world));
}
