//! The hit of a hybrid model: the longest length that every one of its KV-cache groups can serve, as vLLM's
//! own coordinator finds it. Full attention needs every block, a sliding window the blocks it reaches into, a
//! Mamba group the state at the boundary. Works on one bit a hash unit and group.

use super::combine::Held;
use super::found::TierMatch;
use super::path::Stretch;
use crate::engine::gcd;
use crate::hash::EngineBlockHash;
use crate::ids::{Group, Tier};
use crate::index::{IndexReader, Need, OwnerSlot, Shape};

/// For each unit of the prompt, whether it is there.
type Present = Vec<bool>;

/// Where a prompt's units are looked up.
#[derive(Clone, Copy)]
pub(crate) enum Units<'a> {
    /// Along a walk.
    Path(&'a [Stretch]),
    /// By the engine's own hashes.
    Engine(&'a [EngineBlockHash]),
}

/// One owner of the stream, with the blocks its tier moves together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupHeld<'a> {
    pub(crate) group: Group,
    pub(crate) held: Held<'a>,
    /// 0 or 1 when blocks come alone.
    pub(crate) chunk: usize,
}

impl Units<'_> {
    /// Units that may be present: nothing is beyond the last.
    fn len(self) -> usize {
        match self {
            Self::Path(path) => path.last().map_or(0, |stretch| stretch.end),
            Self::Engine(hashes) => hashes.len(),
        }
    }

    fn present(self, reader: &IndexReader<'_>, slot: OwnerSlot) -> Present {
        match self {
            Self::Engine(hashes) => {
                let holdings = reader.holdings();
                hashes.iter().map(|hash| holdings.place(slot, *hash).is_some()).collect()
            }
            Self::Path(path) => {
                let mut present = vec![false; self.len()];
                for stretch in path {
                    let mut from = stretch.start;
                    for segment in reader.tree().run(stretch.run).map_or(&[][..], |r| r.holders.segments()) {
                        let to = (stretch.start + segment.end as usize).min(stretch.end);
                        if segment.owners.contains(slot)
                            && let Some(part) = present.get_mut(from..to)
                        {
                            part.fill(true);
                        }
                        from = to;
                    }
                }
                present
            }
        }
    }
}

/// Longest hit in units, with the share of each tier. `owners` are ordered by tier.
pub(crate) fn longest_hit(
    reader: &IndexReader<'_>,
    units: Units<'_>,
    shapes: &[Shape],
    owners: &[GroupHeld<'_>],
) -> (usize, Vec<TierMatch>) {
    let len = units.len();
    let mut groups: Vec<Present> = shapes.iter().map(|_| vec![false; len]).collect();
    // What a tier holds is told by the group that needs most: it decides how long a match may be.
    let counted = shapes.iter().position(|shape| shape.need == Need::All).unwrap_or(0);
    let (mut tiers, mut on_tier): (Vec<TierMatch>, Vec<Present>) = (Vec::new(), Vec::new());
    let mut rest = owners;
    while let Some(first) = rest.first() {
        let tier: &Tier = first.held.tier;
        let same = rest.iter().take_while(|owner| owner.held.tier == tier).count();
        let mut here = vec![false; len];
        for owner in &rest[..same] {
            let Some(at) = shapes.iter().position(|shape| shape.group == owner.group) else { continue };
            let mut present = units.present(reader, owner.held.slot);
            keep_whole_chunks(&mut present, owner.chunk * shapes[at].stride, shapes[at].stride);
            groups[at].iter_mut().zip(&present).for_each(|(all, new)| *all |= new);
            if at == counted {
                here = present;
            }
        }
        tiers.push(TierMatch { tier: tier.clone(), blocks: 0, prefix_blocks: hit(shapes, &groups, len) });
        on_tier.push(here);
        rest = &rest[same..];
    }
    let matched = tiers.last().map_or(0, |tier| tier.prefix_blocks);
    for (tier, here) in tiers.iter_mut().zip(&on_tier) {
        let stride = shapes.get(counted).map_or(1, |shape| shape.stride);
        tier.blocks = here[..matched].iter().skip(stride - 1).step_by(stride).filter(|held| **held).count();
        tier.blocks *= stride;
    }
    (matched, tiers)
}

/// Takes out what does not belong to a whole chunk: the engine uses a chunk's blocks only together. Chunks count
/// from the prompt's start, in units; only every `stride`th unit ends a block.
fn keep_whole_chunks(present: &mut Present, chunk: usize, stride: usize) {
    if chunk <= stride {
        return;
    }
    for units in present.chunks_mut(chunk) {
        let whole = units.len() == chunk && units.iter().skip(stride - 1).step_by(stride).all(|held| *held);
        if !whole {
            units.fill(false);
        }
    }
}

/// Longest prefix, in units, that every group can serve.
fn hit(shapes: &[Shape], groups: &[Present], len: usize) -> usize {
    let step = boundary(shapes);
    if step > len {
        return 0;
    }
    // For each group and each of its blocks, how many blocks on end are there up to it.
    let runs: Vec<Vec<u32>> =
        shapes.iter().zip(groups).map(|(s, present)| on_end(present, s.stride)).collect();
    let mut units = len / step * step;
    while units > 0 {
        let mut all = shapes.iter().zip(groups).zip(&runs);
        if all.all(|((shape, present), runs)| serves(shape, present, runs, units)) {
            return units;
        }
        units -= step;
    }
    0
}

/// Whether a group can go on from a boundary of so many units.
fn serves(shape: &Shape, present: &Present, runs: &[u32], units: usize) -> bool {
    let blocks = units / shape.stride;
    let on_end = blocks.checked_sub(1).and_then(|last| runs.get(last)).map_or(0, |run| *run as usize);
    match shape.need {
        Need::State => units.checked_sub(1).is_some_and(|last| present.get(last) == Some(&true)),
        Need::All => on_end == blocks,
        Need::Last(n) => on_end >= n.min(blocks),
    }
}

/// Units from one boundary to the next: where the blocks of all groups end. A state ends anywhere.
fn boundary(shapes: &[Shape]) -> usize {
    let aligned = shapes.iter().filter(|shape| shape.need != Need::State).map(|shape| shape.stride);
    aligned.fold(1, lcm)
}

/// The group that does not serve the first boundary after `units` although the groups before it in `shapes` do.
pub(crate) fn first_lacking(
    reader: &IndexReader<'_>,
    units: Units<'_>,
    shapes: &[Shape],
    owners: &[GroupHeld<'_>],
    matched: usize,
) -> Option<Shape> {
    let next = matched.checked_add(boundary(shapes)).filter(|next| *next <= units.len())?;
    let lacks = |shape: &&Shape| {
        let mut present = vec![false; units.len()];
        for owner in owners.iter().filter(|owner| owner.group == shape.group) {
            let held = units.present(reader, owner.held.slot);
            present.iter_mut().zip(&held).for_each(|(all, new)| *all |= new);
        }
        !serves(shape, &present, &on_end(&present, shape.stride), next)
    };
    shapes.iter().find(lacks).copied()
}

/// For each block of `stride` units, how many blocks on end are present up to it; a block is where its last
/// unit is.
fn on_end(present: &Present, stride: usize) -> Vec<u32> {
    let mut run = 0;
    let ends = present.iter().skip(stride - 1).step_by(stride);
    ends.map(|held| {
        run = if *held { run + 1 } else { 0 };
        run
    })
    .collect()
}

fn lcm(a: usize, b: usize) -> usize {
    (a / gcd(a, b).max(1)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(group: u16, need: Need, stride: usize) -> Shape {
        Shape { group: Group(group), need, stride, known: true }
    }

    fn bits(text: &str) -> Present {
        text.chars().map(|c| c == '1').collect()
    }

    fn hit_of(shapes: &[Shape], present: &[&str]) -> usize {
        let groups: Vec<Present> = present.iter().map(|text| bits(text)).collect();
        hit(shapes, &groups, present[0].len())
    }

    #[test]
    fn a_window_needs_its_last_blocks() {
        let shapes = [shape(0, Need::All, 1), shape(1, Need::Last(2), 1)];
        assert_eq!(hit_of(&shapes, &["111111", "000111"]), 6);
        assert_eq!(hit_of(&shapes, &["111110", "001101"]), 4);
        assert_eq!(hit_of(&shapes, &["111111", "100010"]), 1, "at the start there is less to reach back to");
        assert_eq!(hit_of(&shapes, &["011111", "111111"]), 0);
        assert_eq!(hit_of(&[shape(0, Need::Last(2), 1)], &["000011"]), 6, "no group needs the hole");
    }

    #[test]
    fn a_state_is_needed_at_the_boundary_only() {
        let shapes = [shape(0, Need::All, 1), shape(1, Need::State, 4)];
        assert_eq!(hit_of(&shapes, &["111111", "000100"]), 4);
        assert_eq!(hit_of(&shapes, &["111111", "000001"]), 6, "partial states count");
        assert_eq!(hit_of(&shapes, &["110111", "000101"]), 0);
    }

    #[test]
    fn block_sizes_align_the_hit() {
        let shapes = [shape(0, Need::All, 2), shape(1, Need::Last(3), 1)];
        assert_eq!(hit_of(&shapes, &["010101", "000111"]), 6);
        assert_eq!(hit_of(&shapes, &["010100", "011111"]), 4);
        assert_eq!(hit_of(&[shape(0, Need::All, 2), shape(1, Need::All, 3)], &["0101010", "0010010"]), 6);
        assert_eq!(hit_of(&shapes, &["", ""]), 0);
    }

    #[test]
    fn parts_of_chunks_are_not_there() {
        let mut present = bits("1111011111");
        keep_whole_chunks(&mut present, 4, 1);
        assert_eq!(present, bits("1111000000"));
        let mut present = bits("01010111");
        keep_whole_chunks(&mut present, 4, 2);
        assert_eq!(present, bits("01010111"));
    }
}
