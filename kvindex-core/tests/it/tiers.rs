//! Tiers behind the device, and announcements that are no new copies: what the wire leaves open, and how it is
//! said.

use kvindex_core::{
    BlockStored, ClearPolicy, Command, Doubt, EngineKind, EngineProfile, Filter, HiddenIdentity, Index,
    IndexLimits, KvEvent, Query, Scratch, Tier, WorkerId, WorkerMatch, WorkerSpec, find_matches,
};

use crate::rig::{MODEL, Rig, ask, engine_hash, on_host, removed, stored, tokens};

fn worker(change: impl FnOnce(&mut WorkerSpec)) -> Rig {
    let mut rig = Rig::new(&[]);
    let mut spec = WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL);
    change(&mut spec);
    rig.index.apply(&Command::Register(Box::new(spec)));
    rig
}

/// Of an engine whose events hide nothing.
fn store(path: &[u8], from: usize) -> KvEvent {
    KvEvent::BlockStored(BlockStored { carries_extra_keys: true, ..stored("a", path, from) })
}

/// A block announced by name alone, as vLLM's offloading connector does by default.
fn placeholder(path: &[u8]) -> KvEvent {
    KvEvent::BlockStored(BlockStored {
        block_hashes: vec![engine_hash("a", path)],
        tier: Tier::Host,
        ..BlockStored::default()
    })
}

fn on_tier(rig: &Rig, path: &[u8], tier: &str) -> WorkerMatch {
    let tokens = tokens(path);
    let filter = Filter { tier: Some(tier), ..Filter::default() };
    let query = Query { filter, ..Query::tokens(MODEL, &tokens) };
    find_matches(&rig.index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0)
}

#[test]
fn a_name_alone_is_placed_by_what_the_device_says_of_it() {
    for placeholders_first in [false, true] {
        let mut rig = worker(|_| {});
        let mut events = vec![vec![store(b"xyz", 0)], vec![placeholder(b"xy"), placeholder(b"x")]];
        if placeholders_first {
            events.reverse();
        }
        rig.send("a", events.remove(0));
        if placeholders_first {
            assert!(ask(&rig.index, b"xyz")[0].doubts.contains(Doubt::UnplacedBlocks));
        }
        rig.send("a", events.remove(0));
        rig.index.check_invariants().unwrap();
        let found = on_tier(&rig, b"xyz", "host");
        assert_eq!((found.matched_blocks, found.doubts.is_empty()), (2, true));
        // And it outlives the device's copy.
        for path in [&b"xyz"[..], b"xy", b"x"] {
            rig.send("a", vec![KvEvent::BlockRemoved(removed("a", path))]);
        }
        assert_eq!(on_tier(&rig, b"xyz", "host").matched_blocks, 2);
        assert_eq!(on_tier(&rig, b"xyz", "device").matched_blocks, 0);
    }
}

#[test]
fn children_before_parents_are_placed_by_their_names() {
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(b"xyz", 0)]);
    // The job's blocks come one by one in the order of a set; each is on the device already.
    let outcome = rig.send("a", [3, 1, 2].map(|end| on_host(store(&b"xyz"[..end], end - 1))).to_vec());
    assert_eq!(outcome.orphaned, 0);
    assert_eq!(on_tier(&rig, b"xyz", "host").matched_blocks, 3);
}

#[test]
fn chunks_are_used_whole() {
    // Learned from events that always name two blocks, or told.
    for told in [None, Some(2)] {
        let mut rig = worker(|spec| spec.offload_chunk = told);
        rig.send("a", vec![store(b"xyzwv", 0), on_host(store(b"xy", 0)), on_host(store(b"xyzw", 2))]);
        assert_eq!(on_tier(&rig, b"xyzwv", "host").matched_blocks, 4);
        assert_eq!(on_tier(&rig, b"xyz", "host").matched_blocks, 2, "half a chunk is no use");
        assert_eq!(on_tier(&rig, b"xyz", "device").matched_blocks, 3);
        let both = &ask(&rig.index, b"xyz")[0];
        let tiers: Vec<(usize, usize)> = both.tiers.iter().map(|t| (t.blocks, t.prefix_blocks)).collect();
        assert_eq!(tiers, [(3, 3), (2, 3)]);
        rig.send("a", vec![on_host(KvEvent::BlockRemoved(removed("a", b"xyz")))]);
        assert_eq!(on_tier(&rig, b"xyzwv", "host").matched_blocks, 2);
    }
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(b"xyz", 0), on_host(store(b"xy", 0)), on_host(store(b"xyz", 2))]);
    assert_eq!(on_tier(&rig, b"xyz", "host").matched_blocks, 3, "blocks that come alone are no chunk");
}

#[test]
fn a_clear_says_nothing_of_the_tiers_behind() {
    for (policy, left) in [(ClearPolicy::Device, 2), (ClearPolicy::AllTiers, 0)] {
        let mut rig = worker(|spec| spec.cleared = policy);
        rig.send("a", vec![store(b"xy", 0), on_host(store(b"xy", 0))]);
        assert!(ask(&rig.index, b"xy")[0].doubts.is_empty());
        let profile = EngineProfile { cleared: policy, ..EngineProfile::default() };
        rig.send_as("a", vec![KvEvent::AllBlocksCleared], &profile);
        let found = &ask(&rig.index, b"xy")[0];
        assert_eq!(
            (found.matched_blocks, found.doubts.contains(Doubt::SilentClear)),
            (left, true),
            "{policy:?}"
        );
        let device = on_tier(&rig, b"xy", "device");
        assert_eq!((device.matched_blocks, device.doubts.is_empty()), (0, true), "the device is as it says");
        let restored = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
        assert_eq!(&ask(&restored, b"xy")[0], found);
        rig.restart("a", 1);
        rig.send("a", vec![store(b"x", 0)]);
        assert!(ask(&rig.index, b"x")[0].doubts.is_empty(), "another life has nothing to doubt");
    }
}

/// One request of report mode `full`: what it hit is announced again, and it goes on below that.
fn reported(rig: &mut Rig, hit: &[u8], path: &[u8]) {
    rig.send("a", vec![store(hit, 0), store(path, hit.len())]);
}

#[test]
fn hits_announced_again_are_no_copies() {
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(b"xy", 0)]);
    reported(&mut rig, b"xy", b"xyz");
    assert!(ask(&rig.index, b"xy")[0].doubts.is_empty(), "one such pair happens by chance");
    reported(&mut rig, b"xy", b"xyw");
    reported(&mut rig, b"xyw", b"xywv");
    assert!(ask(&rig.index, b"xy")[0].doubts.contains(Doubt::RepeatedReports));
    let restored = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
    assert_eq!(restored.digest(), rig.index.digest());
    // Every block was there once, so one removal ends it, also of what was counted before it was known.
    for path in [&b"xywv"[..], b"xyw", b"xyz", b"xy"] {
        rig.send("a", vec![KvEvent::BlockRemoved(removed("a", path))]);
    }
    assert_eq!(ask(&rig.index, b"xy")[0].matched_blocks, 1);
    rig.send("a", vec![KvEvent::AllBlocksCleared]);
    assert!(ask(&rig.index, b"xy")[0].doubts.is_empty(), "a clear heals it");
}

#[test]
fn second_copies_of_an_ordinary_engine_count() {
    let mut rig = worker(|_| {});
    rig.send("a", vec![store(b"xy", 0)]);
    for _ in 0..8 {
        // A request that may not read the cache stores everything again in one event.
        rig.send("a", vec![store(b"xy", 0)]);
    }
    for _ in 0..8 {
        rig.send("a", vec![KvEvent::BlockRemoved(removed("a", b"x"))]);
    }
    let found = &ask(&rig.index, b"xy")[0];
    assert_eq!((found.matched_blocks, found.doubts.is_empty()), (2, true));
}

#[test]
fn what_events_hide_is_doubted_unless_unused() {
    let cases: [(EngineKind, &str, Option<&str>, bool); 6] = [
        (EngineKind::Vllm, "0.33.0", None, false),
        (EngineKind::Vllm, "0.33.0", Some("ad"), true),
        (EngineKind::Vllm, "0.30.0", Some("ad"), false),
        (EngineKind::Vllm, "0.16.0", None, true),
        (EngineKind::Sglang, "0.5.23", None, true),
        (EngineKind::Sglang, "0.5.4", None, true),
    ];
    for (engine, version, lora, doubted) in cases {
        for hidden in [HiddenIdentity::Possible, HiddenIdentity::Unused] {
            let mut rig = worker(|spec| {
                spec.engine = engine;
                spec.engine_version = Some(version.into());
                spec.hidden_identity = hidden;
            });
            let parsed = WorkerSpec {
                engine_version: Some(version.into()),
                ..WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL)
            };
            let profile =
                EngineProfile { kind: engine, version: parsed.version(), ..EngineProfile::default() };
            let mut event = stored("a", b"xy", 0);
            event.carries_extra_keys = version >= "0.17" && engine == EngineKind::Vllm;
            event.lora_name = lora.map(Into::into);
            rig.send_as("a", vec![KvEvent::BlockStored(event)], &profile);
            let tokens = tokens(b"xy");
            let query = Query { lora, ..Query::tokens(MODEL, &tokens) };
            let found =
                find_matches(&rig.index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0);
            assert_eq!(found.matched_blocks, 2);
            let expected = doubted && hidden == HiddenIdentity::Possible;
            assert_eq!(
                found.doubts.contains(Doubt::HiddenIdentity),
                expected,
                "{engine:?} {version} {lora:?}"
            );
            assert_eq!(found.doubts.contains(Doubt::ContentHashes), version == "0.5.4");
        }
    }
}
