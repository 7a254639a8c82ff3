//! From the owners of an ordinary model to one answer for a stream: tiers add up.

use super::found::TierMatch;
use super::path::Stretch;
use crate::hash::EngineBlockHash;
use crate::ids::Tier;
use crate::index::{IndexReader, OwnerSlot};

/// One owner of the stream in question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) slot: OwnerSlot,
    pub(crate) tier: &'a Tier,
}

/// Length of the prefix that these owners (one group, ordered by tier) hold together, with the share of each
/// tier. `spans` yields consecutive stretches of prompt blocks with the same holders: end and who holds them.
fn add_up<'a>(
    owners: &[Held<'a>],
    spans: impl Iterator<Item = (usize, Vec<bool>)>,
) -> (usize, Vec<TierMatch>) {
    let mut tiers: Vec<TierMatch> =
        owners.iter().map(|o| TierMatch { tier: o.tier.clone(), blocks: 0, prefix_blocks: 0 }).collect();
    let mut open: Vec<bool> = vec![true; owners.len()];
    let mut start = 0;
    for (end, holders) in spans {
        let mut any = false;
        for (i, holds) in holders.iter().enumerate() {
            any |= holds;
            open[i] &= any;
            if open[i] {
                tiers[i].prefix_blocks = end;
            }
        }
        if !any {
            break;
        }
        for (tier, holds) in tiers.iter_mut().zip(&holders) {
            tier.blocks += if *holds { end - start } else { 0 };
        }
        start = end;
    }
    (tiers.last().map_or(0, |tier| tier.prefix_blocks), tiers)
}

/// [`add_up`] along a path through the tree.
pub(crate) fn by_path(
    reader: &IndexReader<'_>,
    path: &[Stretch],
    owners: &[Held<'_>],
) -> (usize, Vec<TierMatch>) {
    let mut reached = 0;
    let path = path.iter().take_while(move |s| s.start == std::mem::replace(&mut reached, s.end));
    let spans = path.flat_map(|stretch| {
        let segments = reader.tree().run(stretch.run).map_or(&[][..], |run| run.holders.segments());
        let mut done = false;
        segments.iter().map_while(move |segment| {
            if std::mem::replace(&mut done, stretch.start + segment.end as usize >= stretch.end) {
                return None;
            }
            let end = (stretch.start + segment.end as usize).min(stretch.end);
            Some((end, owners.iter().map(|o| segment.owners.contains(o.slot)).collect()))
        })
    });
    add_up(owners, spans)
}

/// [`add_up`] by the engine's own block hashes, which need no tree.
pub(crate) fn by_engine_hashes(
    reader: &IndexReader<'_>,
    hashes: &[EngineBlockHash],
    owners: &[Held<'_>],
) -> (usize, Vec<TierMatch>) {
    let holds = |slot, hash| reader.holdings().place(slot, hash).is_some();
    let spans = hashes
        .iter()
        .enumerate()
        .map(|(i, hash)| (i + 1, owners.iter().map(|o| holds(o.slot, *hash)).collect()));
    add_up(owners, spans)
}
