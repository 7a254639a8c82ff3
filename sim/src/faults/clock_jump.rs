//! A node's wall clock jumps, back or ahead. Time enters the index as data only, so this must change nothing but
//! that data.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let nodes = strike.some_nodes();
    for node in &nodes {
        let offset = i64::try_from(strike.dice.within(0..7_200_000)).unwrap_or(0) - 3_600_000;
        strike.say(node.number, format!("clock {offset} ms off"));
        node.set_clock(offset);
    }
    strike.last().await;
    nodes.iter().for_each(|node| node.set_clock(0));
}
