//! Snapshots are taken at once, so that followers that are behind need them.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    for shard in strike.world.shards() {
        for running in strike.world.members() {
            if let Some(replica) = running.replica().filter(|_| strike.dice.percent(70)) {
                // A node that stops meanwhile takes none.
                let _ = replica.snapshot(shard).await;
            }
        }
    }
}
