//! What a review broke once: a test for each finding, named for the rule that holds since.

use std::collections::BTreeSet;

use kvindex_core::{
    Batch, BatchSeq, BlockStored, Change, Command, Coverage, Doubt, EngineBlockHash, EngineKind,
    EngineProfile, ExtraKey, Generation, Group, GroupKind, GroupSpec, HashScheme, HiddenIdentity, Index,
    IndexLimits, KvEvent, LocalBlockHash, Notice, Outcome, Prompt, Query, Reason, Registration, Scratch,
    StoredRun, StreamEvents, Tier, Tokens, WorkerId, WorkerMatch, WorkerSpec, explain, find_matches,
};

use crate::rig::{BLOCK, MODEL, Rig, ask, engine_hash, on_host, removed, stored, stream, tokens};

fn spec(change: impl FnOnce(&mut WorkerSpec)) -> Command {
    let mut spec = WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL);
    change(&mut spec);
    Command::Register(Box::new(spec))
}

fn worker(change: impl FnOnce(&mut WorkerSpec)) -> Rig {
    let mut rig = Rig::new(&[]);
    rig.index.apply(&spec(change));
    rig
}

/// A worker whose offload tiers move single blocks.
fn offloading() -> Rig {
    worker(|spec| spec.offload_chunk = Some(1))
}

/// Of an engine whose events hide nothing.
fn blocks(path: &[u8], from: usize) -> BlockStored {
    BlockStored { carries_extra_keys: true, ..stored("a", path, from) }
}

fn store(path: &[u8], from: usize) -> KvEvent {
    KvEvent::BlockStored(blocks(path, from))
}

fn evict(path: &[u8]) -> KvEvent {
    KvEvent::BlockRemoved(removed("a", path))
}

fn restored(index: &Index) -> Index {
    Index::restore(&index.snapshot(), IndexLimits::default()).unwrap()
}

fn by_tokens(index: &Index, path: &[u8]) -> WorkerMatch {
    index.check_invariants().unwrap();
    ask(index, path).remove(0)
}

fn by_names(index: &Index, names: &[EngineBlockHash], size: u32) -> WorkerMatch {
    let prompt = Prompt::EngineHashes(names);
    let query = Query { prompt, block_size: Some(size), ..Query::tokens(MODEL, &[]) };
    find_matches(&index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0)
}

/// The engine's own word: what it holds under its names for the path.
fn by_engine(index: &Index, path: &[u8]) -> usize {
    let names: Vec<EngineBlockHash> = (1..=path.len()).map(|end| engine_hash("a", &path[..end])).collect();
    by_names(index, &names, BLOCK).matched_blocks
}

fn with_salt(index: &Index, path: &[u8], salt: &str) -> WorkerMatch {
    let tokens = tokens(path);
    let prompt = Prompt::Tokens { tokens: Tokens::Ids(&tokens), salt: Some(salt), items: &[] };
    let query = Query { prompt, ..Query::tokens(MODEL, &tokens) };
    find_matches(&index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0)
}

fn doubts(found: &WorkerMatch) -> Vec<Doubt> {
    found.doubts.iter().collect()
}

#[test]
fn an_offloaded_block_keeps_the_salt_that_its_name_has_on_the_device() {
    let mut rig = worker(|spec| {
        spec.engine_version = Some("0.33.0".into());
        spec.offload_chunk = Some(1);
    });
    let salted = vec![vec![ExtraKey::Text("s".into())], vec![]];
    // A connector's events have the tokens, but never the extra keys.
    let events = [KvEvent::BlockStored(BlockStored { extra_keys: salted, ..blocks(b"xy", 0) })];
    let offloaded = [store(b"x", 0), store(b"xy", 1)].map(on_host);
    rig.send("a", events.into_iter().chain(offloaded).collect());
    for _ in 0..2 {
        let (plain, salted) = (by_tokens(&rig.index, b"xy"), with_salt(&rig.index, b"xy", "s"));
        assert_eq!((plain.matched_blocks, salted.matched_blocks), (0, 2));
        assert!(plain.doubts.is_empty() && salted.doubts.is_empty());
        // And after the device let them go.
        rig.send("a", vec![evict(b"xy"), evict(b"x")]);
    }
}

#[test]
fn an_offloaded_block_placed_by_its_tokens_alone_is_doubted() {
    let mut rig = offloading();
    rig.send("a", vec![on_host(store(b"xy", 0))]);
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, doubts(&found)), (2, vec![Doubt::HiddenIdentity]));
}

#[test]
fn a_child_of_a_parent_with_another_identity_is_unplaced_and_says_so() {
    let mut rig = offloading();
    let ahead = BlockStored { lookahead: vec![vec![9]], ..blocks(b"x", 0) };
    rig.send("a", vec![KvEvent::BlockStored(ahead), on_host(store(b"xy", 1))]);
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, doubts(&found)), (0, vec![Doubt::UnplacedBlocks]));
    assert_eq!(by_engine(&rig.index, b"xy"), 2);
}

#[test]
fn the_devices_word_on_a_parent_counts_for_its_children_elsewhere() {
    let mut rig = offloading();
    // On disk it was placed by its tokens; the device then says that there is more to it.
    let ahead = BlockStored { lookahead: vec![vec![9]], ..blocks(b"x", 0) };
    let on_disk = BlockStored { tier: Tier::Disk, ..blocks(b"x", 0) };
    rig.send("a", vec![KvEvent::BlockStored(on_disk), KvEvent::BlockStored(ahead), on_host(store(b"xy", 1))]);
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, doubts(&found)), (0, vec![Doubt::UnplacedBlocks]));
    assert_eq!(by_engine(&rig.index, b"xy"), 2);
}

#[test]
fn a_window_needs_at_least_the_last_block() {
    for (window, known) in [(0, false), (1, true)] {
        let mut rig = worker(|_| {});
        let kind = Some(GroupKind::SlidingWindow);
        let event = BlockStored { kind, sliding_window: Some(window), ..blocks(b"z", 0) };
        rig.send("a", vec![KvEvent::BlockStored(event)]);
        let found = by_tokens(&rig.index, b"xyx");
        assert_eq!((found.matched_blocks, by_engine(&rig.index, b"xyx")), (0, 0), "window {window}");
        assert_eq!(found.doubts.contains(Doubt::UnknownGroups), !known, "window {window}");
        assert_eq!(by_tokens(&rig.index, b"z").matched_blocks, 1, "window {window}");
    }
}

#[test]
fn chains_that_a_registration_cuts_anew_are_unplaced_and_say_so() {
    let mut rig = worker(|_| {});
    let event = BlockStored {
        block_size: 2 * BLOCK,
        block_hashes: vec![engine_hash("a", b"xy")],
        ..blocks(b"xy", 0)
    };
    rig.send("a", vec![KvEvent::BlockStored(event)]);
    assert_eq!(by_tokens(&rig.index, b"xy").matched_tokens, 4);
    let told = GroupSpec { group: Group(0), kind: GroupKind::Mamba, block_size: BLOCK, sliding_window: None };
    rig.index.apply(&spec(|spec| spec.groups = vec![told]));
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_tokens, doubts(&found)), (0, vec![Doubt::UnplacedBlocks]));
    assert_eq!(by_engine(&rig.index, b"xy"), 2);
}

#[test]
fn a_kind_learned_from_an_empty_event_opens_the_chains_that_are_there() {
    // Longer than a run, so that the walk must go over one that is gone.
    let path: Vec<u8> = (0..5000).map(|i| b'a' + (i % 23) as u8).collect();
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(&path, 0)]);
    rig.send("a", (1..=4096).map(|end| evict(&path[..end])).collect());
    assert_eq!(by_tokens(&rig.index, &path).matched_blocks, 0);
    let (kind, sliding_window) = (Some(GroupKind::SlidingWindow), Some(5));
    let empty = BlockStored { block_hashes: Vec::new(), kind, sliding_window, ..blocks(b"x", 0) };
    rig.send("a", vec![KvEvent::BlockStored(empty)]);
    assert_eq!((by_tokens(&rig.index, &path).matched_blocks, by_engine(&rig.index, &path)), (5000, 5000));
    assert_eq!(ask(&restored(&rig.index), &path), ask(&rig.index, &path));
}

#[test]
fn a_match_cut_short_by_a_guessed_chunk_is_doubted() {
    for (told, expected) in [(None, (0, vec![Doubt::GuessedChunk])), (Some(3), (0, vec![]))] {
        let mut rig = worker(|spec| {
            spec.offload_chunk = told;
            spec.hidden_identity = HiddenIdentity::Unused;
        });
        rig.send("a", vec![on_host(store(b"xyz", 0))]);
        let found = by_tokens(&rig.index, b"xyw");
        assert_eq!((found.matched_blocks, doubts(&found)), expected);
        assert!(by_tokens(&rig.index, b"xyz").doubts.is_empty(), "the chunk is whole");
    }
}

#[test]
fn a_group_known_by_placeholders_alone_is_a_group() {
    let mut rig = offloading();
    let hold = |path| {
        let block_hashes = vec![engine_hash("a", path)];
        let event = BlockStored { block_hashes, group: Group(1), ..BlockStored::default() };
        on_host(KvEvent::BlockStored(event))
    };
    rig.send("a", vec![store(b"xy", 0), hold(b"xy"), hold(b"x"), evict(b"xy")]);
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, by_engine(&rig.index, b"xy")), (1, 1), "group 0 has one block");
    assert_eq!(doubts(&found), [Doubt::UnknownGroups]);
}

#[test]
fn a_tier_with_blocks_of_its_own_size_hides_nothing() {
    let mut rig = offloading();
    let block_hashes = vec![engine_hash("a", b"xy"), engine_hash("a", b"xyzw")];
    let large = BlockStored { block_size: 2 * BLOCK, block_hashes, ..blocks(b"xyzw", 0) };
    rig.send("a", vec![store(b"xyzw", 0)]);
    rig.send("a", vec![on_host(KvEvent::BlockStored(large))]);
    assert_eq!((by_tokens(&rig.index, b"xyzw").matched_blocks, by_engine(&rig.index, b"xyzw")), (4, 4));
    let state = BlockStored {
        group: Group(1),
        kind: Some(GroupKind::Mamba),
        block_hashes: vec![engine_hash("a", b"xyzw")],
        ..blocks(b"xyzw", 0)
    };
    rig.send("a", vec![KvEvent::BlockStored(state)]);
    assert_eq!((by_tokens(&rig.index, b"xyzw").matched_blocks, by_engine(&rig.index, b"xyzw")), (4, 4));
}

#[test]
fn an_event_of_another_block_size_takes_nothing_away() {
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(b"xyxy", 0)]);
    let block_hashes = vec![EngineBlockHash(5)];
    let other = BlockStored { block_size: 2 * BLOCK, block_hashes, ..blocks(b"zz", 0) };
    rig.send("a", vec![KvEvent::BlockStored(other)]);
    let (old, new) = (by_tokens(&rig.index, b"xyxy"), by_tokens(&rig.index, b"zz"));
    assert_eq!((old.matched_tokens, old.block_size), (8, BLOCK));
    assert_eq!((new.matched_tokens, new.block_size), (4, 2 * BLOCK));
    assert_eq!(by_names(&rig.index, &[EngineBlockHash(5)], 2 * BLOCK).matched_blocks, 1);
}

#[test]
fn copies_counted_before_a_block_left_are_not_taken_back() {
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(b"xy", 0)]);
    // A second copy, really made; both go, and one comes back.
    rig.send("a", vec![store(b"x", 0)]);
    rig.send("a", vec![evict(b"x"), evict(b"x")]);
    rig.send("a", vec![store(b"x", 0)]);
    for tail in [b"xz", b"xw"] {
        rig.send("a", vec![store(b"x", 0), store(tail, 1)]);
    }
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, doubts(&found)), (2, vec![Doubt::RepeatedReports]));
    rig.send("a", vec![evict(b"x")]);
    assert_eq!(rig.hit("a", "xy"), 0, "there was one copy");
}

#[test]
fn refused_repeats_are_not_taken_back() {
    let mut index = Index::new(IndexLimits { max_entries: 3, ..IndexLimits::default() });
    index.apply(&spec(|_| {}));
    let mut rig = Rig { index, now_ms: 1 };
    rig.send("a", vec![store(b"xyz", 0)]);
    assert_eq!(rig.send("a", vec![store(b"xy", 0), store(b"xyw", 2)]).refused, 3);
    rig.send("a", vec![evict(b"xyz")]);
    rig.send("a", vec![store(b"xy", 0), store(b"xyv", 2)]);
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, found.stream.coverage), (2, Coverage::Incomplete));
}

#[test]
fn a_silent_clear_is_no_doubt_where_no_tier_lengthens_the_match() {
    let mut rig = offloading();
    rig.send("a", vec![store(b"x", 0), on_host(store(b"x", 0)), KvEvent::AllBlocksCleared]);
    assert!(by_tokens(&rig.index, b"x").doubts.contains(Doubt::SilentClear));
    rig.send("a", vec![on_host(evict(b"x")), store(b"xy", 0)]);
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, doubts(&found)), (2, vec![]));
}

/// One hand-made run of a one-unit chain for each (group, units a block).
fn send_runs(rig: &mut Rig, strides: &[u32]) -> Outcome {
    let run = |(group, stride): (u16, &u32)| {
        Change::Stored(StoredRun {
            lora: None,
            block_size: 1,
            stride: *stride,
            scheme: HashScheme::default(),
            tier: Tier::Device,
            group: Group(group),
            kind: None,
            sliding_window: None,
            parent: None,
            engine_hashes: vec![EngineBlockHash(1)].into(),
            local_hashes: vec![LocalBlockHash(1)].into(),
        })
    };
    let batch = Batch { seq: BatchSeq(0), changes: (0..).zip(strides).map(run).collect() };
    let events = StreamEvents {
        stream: stream("a"),
        generation: Generation(0),
        at_ms: 1,
        payload_digest: None,
        registration: Registration::default(),
        batches: vec![batch].into(),
    };
    rig.index.apply(&Command::Events(events))
}

#[test]
fn blocks_of_groups_that_never_end_together_match_nothing() {
    let names = [EngineBlockHash(1); 5000];
    // Their common multiple is beyond 64 bits; the other's wraps round them to 0.
    let primes = [4093, 4091, 4079, 4073, 4057, 4051, 4049];
    let wrapping = [1_896_708_011, 1_715_386_105, 3_110_759_427, 2_958_137_563];
    for (strides, refused) in [(&primes[..], 0), (&wrapping[..], 4)] {
        let mut rig = worker(|_| {});
        assert_eq!(send_runs(&mut rig, strides).refused, refused, "{strides:?}");
        assert_eq!(by_tokens(&rig.index, &[1; 2500]).matched_blocks, 0, "{strides:?}");
        assert_eq!(by_names(&rig.index, &names, 1).matched_blocks, 0, "{strides:?}");
    }
}

#[test]
fn orphans_of_one_parent_join_in_an_order_that_a_snapshot_keeps() {
    let mut bytes = Vec::new();
    for [first, second] in [[b"xz", b"xy"], [b"xy", b"xz"]] {
        let mut rig = worker(|_| {});
        rig.send("a", vec![store(first, 1), store(second, 1)]);
        let mut twin = Rig { index: restored(&rig.index), now_ms: rig.now_ms };
        for rig in [&mut rig, &mut twin] {
            assert_eq!(rig.send("a", vec![store(b"x", 0)]).joined, 2);
            bytes.push((rig.index.digest(), rig.index.snapshot()));
        }
    }
    assert!(bytes.iter().all(|other| *other == bytes[0]));
}

#[test]
fn blocks_named_by_content_stay_doubted_after_an_upgrade_is_registered() {
    let sglang = |version: &'static str| {
        move |spec: &mut WorkerSpec| {
            spec.engine = EngineKind::Sglang;
            spec.engine_version = Some(version.into());
            spec.hidden_identity = HiddenIdentity::Unused;
        }
    };
    let mut rig = worker(sglang("0.5.4"));
    let profile = EngineProfile { kind: EngineKind::Sglang, version: Some((0, 5, 4)), ..Default::default() };
    rig.send_as("a", vec![store(b"xy", 0)], &profile);
    rig.index.apply(&spec(sglang("0.5.23")));
    let found = by_tokens(&rig.index, b"xy");
    assert_eq!((found.matched_blocks, doubts(&found)), (2, vec![Doubt::ContentHashes]));
}

#[test]
fn blocks_named_by_content_come_back_without_their_tokens() {
    let profile = EngineProfile { kind: EngineKind::Sglang, version: Some((0, 5, 4)), ..Default::default() };
    let mut rig = worker(|spec| spec.engine = EngineKind::Sglang);
    let nameless = BlockStored { token_ids: Vec::new(), ..blocks(b"x", 0) };
    for event in [store(b"xy", 0), evict(b"x"), KvEvent::BlockStored(nameless)] {
        rig.send_as("a", vec![event], &profile);
        rig.index.check_invariants().unwrap();
    }
    assert_eq!(by_tokens(&rig.index, b"xy").matched_blocks, 2, "what was known of x holds again");
    assert_eq!(restored(&rig.index).digest(), rig.index.digest());
}

#[test]
fn explain_passes_over_a_group_that_lacks_nothing() {
    let mut rig = worker(|_| {});
    let event = |group, kind, sliding_window, n| {
        let (group, kind) = (Group(group), Some(kind));
        KvEvent::BlockStored(BlockStored { group, kind, sliding_window, ..blocks(&b"xyz"[..n], 0) })
    };
    let window = event(1, GroupKind::SlidingWindow, Some(5), 3);
    rig.send("a", vec![event(0, GroupKind::Full, None, 3), window, event(2, GroupKind::Mamba, None, 1)]);
    let tokens = tokens(b"xyz");
    let query = Query::tokens(MODEL, &tokens);
    let explained = explain(&rig.index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0);
    assert_eq!(explained.broke_at, Some(1));
    let need = "the state at a boundary (mamba)".to_owned();
    assert_eq!(explained.reason, Reason::GroupLacks { group: Group(2), need });
}

#[test]
fn followers_are_told_that_a_repeated_name_has_one_place() {
    let mut rig = worker(|_| {});
    let twice = BlockStored { block_hashes: vec![EngineBlockHash(1); 2], ..blocks(b"xy", 0) };
    let command = rig.next_batch("a", vec![KvEvent::BlockStored(twice)]);
    let mut seen = BTreeSet::new();
    rig.index.apply_noticed(&command, &mut |notice| match notice {
        Notice::Stored { blocks, .. } => seen.extend(blocks.iter().map(|block| block.0)),
        Notice::Removed { block, .. } => assert!(seen.remove(&block.0)),
        _ => {}
    });
    let held: BTreeSet<u64> = rig.index.reader().entries().map(|(.., block, _)| block.0).collect();
    assert_eq!((seen.len(), seen), (1, held));
}

#[test]
fn a_name_in_two_namespaces_stays_where_it_lies() {
    // The adapter's chain goes on below a block of the other namespace, or below one that is not known.
    for parent in [engine_hash("a", b"x"), EngineBlockHash(77)] {
        let lora_name = Some("adapter".to_owned());
        let adapted = BlockStored { lora_name, parent: Some(parent), ..blocks(b"xyz", 1) };
        for (order, held) in [
            ([store(b"xyz", 0), KvEvent::BlockStored(adapted.clone())], 3),
            ([KvEvent::BlockStored(adapted), store(b"x", 0)], 1),
        ] {
            let mut rig = worker(|_| {});
            rig.send("a", order.to_vec());
            assert_eq!(by_tokens(&rig.index, b"xyz").matched_blocks, held);
            assert_eq!(restored(&rig.index).digest(), rig.index.digest());
        }
    }
}
