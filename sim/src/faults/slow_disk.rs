//! Writes take as long as an election, or longer.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let nodes = strike.some_nodes();
    let takes = [(10, 60), (50, 400), (300, 1_500)][strike.dice.below(3)];
    nodes.iter().for_each(|node| node.disk.slow_down(Some(takes)));
    strike.last().await;
    nodes.iter().for_each(|node| node.disk.slow_down(None));
}
