//! Nodes fall into two halves that cannot reach each other.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let nodes = strike.world.nodes();
    let cut: Vec<bool> = nodes.iter().map(|_| strike.dice.percent(40)).collect();
    set(&strike, &cut, true);
    strike.last().await;
    set(&strike, &cut, false);
}

fn set(strike: &Strike, side: &[bool], cut: bool) {
    let nodes = strike.world.nodes();
    for (from, left) in nodes.iter().zip(side) {
        for (to, right) in nodes.iter().zip(side) {
            if left != right {
                strike.world.network.change(from.number, to.number, |link| link.cut = cut);
            }
        }
    }
    let here: Vec<u64> = nodes.iter().zip(side).filter(|(_, side)| **side).map(|(n, _)| n.number).collect();
    strike.say(0, format!("{here:?} {}", if cut { "cut off" } else { "back" }));
}
