//! A node that speaks and does not hear, or hears and does not speak.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let Some(node) = strike.any_node().map(|node| node.number) else { return };
    let deaf = strike.dice.percent(50);
    // All its links, or the one to a single other node.
    let some = strike.dice.percent(50).then(|| strike.any_node().map(|node| node.number)).flatten();
    strike.say(node, format!("{} by {some:?}", if deaf { "does not hear" } else { "is not heard" }));
    for cut in [true, false] {
        for other in strike.world.nodes().iter().map(|other| other.number).filter(|other| *other != node) {
            if some.is_none_or(|some| some == other) {
                let (from, to) = if deaf { (other, node) } else { (node, other) };
                strike.world.network.change(from, to, |link| link.cut = cut);
            }
        }
        if cut {
            strike.last().await;
        }
    }
}
