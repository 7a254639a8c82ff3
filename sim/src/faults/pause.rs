//! A process stands still, mostly for longer than a lease, and goes on as if nothing had been.

use tokio::time::Instant;

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let until = Instant::now() + strike.lasts;
    for node in strike.some_nodes() {
        strike.say(node.number, "stands still");
        node.gate.close(Some(until));
    }
}
