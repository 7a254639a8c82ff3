//! Hybrid models against a naive oracle: random events of three groups, with sparse and empty announcements, and
//! the hit computed from sets of held prefixes by the words of vLLM's rule.

use std::collections::BTreeMap;

use kvindex_core::{
    BlockRemoved, BlockStored, Doubt, EngineBlockHash, Group, GroupKind, Index, IndexLimits, KvEvent, Prompt,
    Query, Scratch, WorkerMatch, explain, find_matches,
};
use proptest::prelude::*;

use crate::rig::{BLOCK, MODEL, Rig, ask, compare_scores, engine_hash, tokens};

/// Group 0 has every block, of `stride` units; group 1 a window of `window` units; group 2 states at boundaries.
#[derive(Debug, Clone, Copy)]
struct Model {
    stride: usize,
    window: usize,
}

#[derive(Debug, Clone)]
enum Step {
    /// A request caches `path` from block `from` of group 0 on; `kept` says which blocks the window announces.
    Store {
        path: Vec<u8>,
        from: usize,
        kept: u32,
    },
    Remove {
        group: u16,
        path: Vec<u8>,
    },
    Clear,
    Snapshot,
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"xy".to_vec()), 1..9)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (path(), 0usize..4, any::<u32>())
            .prop_map(|(path, from, kept)| Step::Store { path, from: from.saturating_sub(2), kept }),
        8 => (0u16..3, path()).prop_map(|(group, path)| Step::Remove { group, path }),
        1 => Just(Step::Clear),
        1 => Just(Step::Snapshot),
    ]
}

/// Copies of each (group, prefix).
type Held = BTreeMap<(u16, Vec<u8>), u32>;

struct World {
    model: Model,
    rig: Rig,
    held: Held,
}

impl World {
    /// The event of one group for the blocks that end at `ends`, all below `start`, over tokens up to the last.
    fn stored(&self, path: &[u8], start: usize, end: usize, ends: &[usize], stride: usize) -> BlockStored {
        BlockStored {
            block_hashes: ends.iter().map(|end| engine_hash("a", &path[..*end])).collect(),
            parent: (start > 0).then(|| engine_hash("a", &path[..start])),
            token_ids: tokens(&path[start..end]),
            block_size: BLOCK * stride as u32,
            ..BlockStored::default()
        }
    }

    fn store(&mut self, path: &[u8], from: usize, kept: u32) {
        let stride = self.model.stride;
        let (start, end) = (from * stride, path.len() / stride * stride);
        if start >= end {
            return;
        }
        let full: Vec<usize> = (start / stride + 1..=end / stride).map(|block| block * stride).collect();
        let window: Vec<usize> = (start + 1..=end).filter(|unit| kept >> unit & 1 == 1).collect();
        let mut events = vec![
            BlockStored { kind: Some(GroupKind::Full), ..self.stored(path, start, end, &full, stride) },
            BlockStored {
                group: Group(1),
                kind: Some(GroupKind::SlidingWindow),
                sliding_window: Some(self.model.window as u32 * BLOCK + 1),
                ..self.stored(path, start, end, &window, 1)
            },
            BlockStored {
                group: Group(2),
                kind: Some(GroupKind::Mamba),
                ..self.stored(path, end - 1, end, &[end], 1)
            },
        ];
        // The engine's groups come in any order.
        events.rotate_left(kept as usize % 3);
        self.rig.send("a", events.into_iter().map(KvEvent::BlockStored).collect());
        let ends = [(0, full), (1, window), (2, vec![end])];
        for (group, ends) in ends {
            for end in ends {
                *self.held.entry((group, path[..end].to_vec())).or_default() += 1;
            }
        }
    }

    fn remove(&mut self, group: u16, path: &[u8]) {
        let block_hashes = vec![engine_hash("a", path)];
        let removed = BlockRemoved { block_hashes, group: Group(group), ..BlockRemoved::default() };
        self.rig.send("a", vec![KvEvent::BlockRemoved(removed)]);
        if let Some(copies) = self.held.get_mut(&(group, path.to_vec())) {
            *copies -= 1;
        }
        self.held.retain(|_, copies| *copies > 0);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Store { path, from, kept } => self.store(&path, from, kept),
            Step::Remove { group, path } => self.remove(group, &path),
            Step::Clear => {
                self.rig.send("a", vec![KvEvent::AllBlocksCleared]);
                self.held.clear();
            }
            Step::Snapshot => {
                let bytes = self.rig.index.snapshot();
                self.rig.index = Index::restore(&bytes, IndexLimits::default()).unwrap();
                assert_eq!(self.rig.index.snapshot(), bytes);
            }
        }
    }

    /// The longest length, in units, that every group can serve.
    fn hit(&self, path: &[u8]) -> usize {
        let Model { stride, window } = self.model;
        let holds = |group: u16, end: usize| self.held.contains_key(&(group, path[..end].to_vec()));
        let serves = |end: &usize| {
            end.is_multiple_of(stride)
                && (1..=end / stride).all(|block| holds(0, block * stride))
                && (end.saturating_sub(window) + 1..=*end).all(|unit| holds(1, unit))
                && holds(2, *end)
        };
        (1..=path.len()).rev().find(serves).unwrap_or(0)
    }

    fn compare(&self, path: &[u8]) {
        compare_scores(&self.rig.index, path);
        let expected = self.hit(path);
        let hashes: Vec<EngineBlockHash> =
            (1..=path.len()).map(|end| engine_hash("a", &path[..end])).collect();
        let prompt = Prompt::EngineHashes(&hashes);
        let query = Query { prompt, block_size: Some(BLOCK), ..Query::tokens(MODEL, &[]) };
        let found = find_matches(&self.rig.index.reader(), &query, &mut Scratch::default()).unwrap().workers;
        let shown = String::from_utf8_lossy(path);
        assert_eq!(found[0].matched_blocks, expected, "by engine hash on {shown:?}");
        let by_tokens = &ask(&self.rig.index, path)[0];
        assert!(by_tokens.matched_blocks <= expected, "too high by tokens on {shown:?}");
        let unplaced = by_tokens.doubts.contains(Doubt::UnplacedBlocks);
        assert!(by_tokens.matched_blocks == expected || unplaced, "unmarked by tokens on {shown:?}");
        assert_eq!(by_tokens.tiers.last().map_or(0, |tier| tier.prefix_blocks), by_tokens.matched_blocks);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(600), ..ProptestConfig::default() })]

    #[test]
    fn hits_equal_the_oracles(
        stride in 1usize..3,
        window in 1usize..4,
        steps in prop::collection::vec(step(), 1..50),
        asked in prop::collection::vec(path(), 4),
    ) {
        let model = Model { stride, window };
        let mut world = World { model, rig: Rig::new(&["a"]), held: Held::new() };
        // The first request makes every group known, as an engine's first one does.
        world.store(b"xxxxxx", 0, u32::MAX);
        for step in steps {
            let about = match &step {
                Step::Store { path, .. } | Step::Remove { path, .. } => Some(path.clone()),
                Step::Clear | Step::Snapshot => None,
            };
            world.step(step);
            world.rig.index.check_invariants().unwrap();
            asked.iter().chain(&about).for_each(|path| world.compare(path));
        }
    }
}

fn one(group: u16, kind: Option<GroupKind>, path: &[u8], ends: &[usize], units: usize) -> BlockStored {
    BlockStored {
        block_hashes: ends.iter().map(|end| engine_hash("a", &path[..*end])).collect(),
        token_ids: tokens(&path[..units]),
        block_size: BLOCK,
        group: Group(group),
        kind,
        ..BlockStored::default()
    }
}

fn only(rig: &Rig, path: &[u8]) -> WorkerMatch {
    ask(&rig.index, path).remove(0)
}

#[test]
fn a_group_that_announced_nothing_yet_serves_nothing() {
    let mut rig = Rig::new(&["a"]);
    let full = one(0, Some(GroupKind::Full), b"xyz", &[1, 2, 3], 3);
    let window =
        BlockStored { sliding_window: Some(5), ..one(1, Some(GroupKind::SlidingWindow), b"xyz", &[], 3) };
    rig.send("a", vec![KvEvent::BlockStored(full), KvEvent::BlockStored(window)]);
    assert_eq!(only(&rig, b"xyz").matched_blocks, 0);
}

#[test]
fn a_group_of_unknown_kind_needs_everything_and_says_so() {
    let mut rig = Rig::new(&["a"]);
    let groups = [one(0, None, b"xyz", &[1, 2, 3], 3), one(1, None, b"xyz", &[1, 2], 2)];
    rig.send("a", groups.into_iter().map(KvEvent::BlockStored).collect());
    let found = only(&rig, b"xyz");
    assert_eq!(found.matched_blocks, 2);
    assert!(found.doubts.contains(Doubt::UnknownGroups));
}

#[test]
fn a_lone_window_goes_over_holes() {
    let mut rig = Rig::new(&["a"]);
    let path = b"xyzxyz";
    let all = one(0, Some(GroupKind::SlidingWindow), path, &[1, 2, 3, 4, 5, 6], 6);
    rig.send("a", vec![KvEvent::BlockStored(BlockStored { sliding_window: Some(5), ..all })]);
    for end in [1, 2, 3] {
        rig.remove("a", std::str::from_utf8(&path[..end]).unwrap());
    }
    assert_eq!(only(&rig, path).matched_blocks, 6, "the window reaches back two blocks");
    compare_scores(&rig.index, path);
    assert_eq!(only(&rig, &path[..4]).matched_blocks, 0);
    let restored = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
    assert_eq!(ask(&restored, path)[0].matched_blocks, 6);
}

#[test]
fn chains_cut_anew_forget_their_places() {
    let mut rig = Rig::new(&["a"]);
    let coarse = BlockStored {
        block_hashes: vec![engine_hash("a", b"xy")],
        token_ids: tokens(b"xy"),
        block_size: 2 * BLOCK,
        kind: Some(GroupKind::Full),
        ..BlockStored::default()
    };
    rig.send("a", vec![KvEvent::BlockStored(coarse.clone())]);
    assert_eq!(only(&rig, b"xy").matched_tokens, 4);
    // A group of smaller blocks comes up later: the unit of all chains is its size from now on.
    let fine = one(1, Some(GroupKind::Mamba), b"xy", &[2], 2);
    rig.send("a", vec![KvEvent::BlockStored(fine)]);
    rig.index.check_invariants().unwrap();
    let found = only(&rig, b"xy");
    assert_eq!((found.block_size, found.matched_tokens), (BLOCK, 0));
    assert!(found.doubts.contains(Doubt::UnplacedBlocks));
    // Announced again together, both are where they belong.
    let fine = one(1, Some(GroupKind::Mamba), b"xy", &[1, 2], 2);
    rig.send("a", vec![KvEvent::BlockStored(coarse), KvEvent::BlockStored(fine)]);
    assert_eq!(only(&rig, b"xy").matched_tokens, 4);
}

#[test]
fn explain_names_the_group_that_ends_the_match() {
    let mut rig = Rig::new(&["a"]);
    let full = one(0, Some(GroupKind::Full), b"xyz", &[1, 2, 3], 3);
    let state = one(1, Some(GroupKind::Mamba), b"xyz", &[1], 1);
    rig.send("a", vec![KvEvent::BlockStored(full), KvEvent::BlockStored(state)]);
    let tokens = tokens(b"xyz");
    let why = explain(&rig.index.reader(), &Query::tokens(MODEL, &tokens), &mut Scratch::default()).unwrap();
    assert_eq!(why.workers[0].broke_at, Some(1));
    let said = why.workers[0].reason.to_string();
    assert_eq!(said, "KV-cache group 1 lacks what it needs further on: the state at a boundary (mamba)");
    // With the full group's block gone as well, that is the reason.
    rig.remove("a", "xy");
    let why = explain(&rig.index.reader(), &Query::tokens(MODEL, &tokens), &mut Scratch::default()).unwrap();
    assert!(why.workers[0].reason.to_string().starts_with("removed from device"), "{:?}", why.workers[0]);
}
