//! On every link messages overtake each other, some come twice, some not at all.

use super::Strike;

pub(super) async fn strike(mut strike: Strike) {
    let (lost, doubled) = (strike.dice.within(0..150), strike.dice.within(50..400));
    let spread = strike.dice.within(10..120);
    let (lost, doubled) = (u32::try_from(lost).unwrap_or(0), u32::try_from(doubled).unwrap_or(0));
    let usual = strike.world.plan.link;
    let nodes: Vec<u64> = strike.world.nodes().iter().map(|node| node.number).collect();
    let each = |change: &dyn Fn(&mut crate::network::Link)| {
        for (from, to) in nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to))) {
            strike.world.network.change(from, to, |link| change(link));
        }
    };
    each(&|link| (link.delay_ms, link.lost, link.doubled) = ((0, spread), lost, doubled));
    strike.last().await;
    each(&|link| (link.delay_ms, link.lost, link.doubled) = (usual.delay_ms, usual.lost, usual.doubled));
}
