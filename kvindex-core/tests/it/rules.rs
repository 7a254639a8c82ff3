//! One rule a test: copies, holes, orphans, names, generations, gaps, limits.

use kvindex_core::{
    BlockStored, ClearPolicy, Command, Coverage, EngineBlockHash, EngineProfile, GapPolicy, Generation,
    Index, IndexLimits, KvEvent, Prompt, Query, QueryError, Registration, Scratch, SequenceHash, Tokens,
    WorkerId, WorkerSpec, find_matches,
};

use crate::rig::{MODEL, Rig, engine_hash, stored, stream, tokens};

#[test]
fn physical_copies_are_counted() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xyz", 0);
    rig.store("a", "xyz", 0);
    rig.remove("a", "x");
    assert_eq!(rig.hit("a", "xyz"), 3, "one of two copies of the first block is left");
    rig.remove("a", "x");
    assert_eq!(rig.hit("a", "xyz"), 0);
    assert_eq!(rig.remove("a", "x").removed_unknown, 1);
}

#[test]
fn one_workers_removal_never_touches_another() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.store("a", "xyz", 0);
    rig.store("b", "xyz", 0);
    rig.remove("a", "xy");
    assert_eq!((rig.hit("a", "xyz"), rig.hit("b", "xyz")), (1, 3));
}

#[test]
fn a_refilled_hole_gives_the_whole_prefix_back() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.store("a", "abcdefghij", 0);
    rig.store("b", "abcdefghij", 0);
    rig.remove("a", "abcd");
    assert_eq!((rig.hit("a", "abcdefghij"), rig.hit("b", "abcdefghij")), (3, 10));
    rig.send("a", vec![KvEvent::BlockStored(BlockStored { ..one(b"abcd") })]);
    assert_eq!(rig.hit("a", "abcdefghij"), 10);
}

fn one(path: &[u8]) -> BlockStored {
    stored("a", path, path.len() - 1)
}

#[test]
fn children_may_come_before_their_parents() {
    let mut rig = Rig::new(&["a"]);
    assert_eq!(rig.store("a", "wxyz", 2).orphaned, 2);
    assert_eq!(rig.store("a", "wx", 1).orphaned, 1);
    assert_eq!(rig.hit("a", "wxyz"), 0);
    let outcome = rig.store("a", "w", 0);
    assert_eq!(outcome.joined, 3);
    assert_eq!(rig.hit("a", "wxyz"), 4);
    assert_eq!(rig.index.stats().orphans, 0);
}

#[test]
fn a_removed_orphan_is_not_joined() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xyz", 2);
    rig.remove("a", "xyz");
    rig.store("a", "xy", 0);
    assert_eq!(rig.hit("a", "xyz"), 2);
    rig.index.check_invariants().unwrap();
}

#[test]
fn two_engine_hashes_of_one_block_are_one_block() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    let mut other = stored("a", b"xy", 0);
    other.block_hashes = vec![EngineBlockHash(1), EngineBlockHash(2)];
    rig.send("a", vec![KvEvent::BlockStored(other)]);
    rig.remove("a", "x");
    assert_eq!(rig.hit("a", "xy"), 2, "the other name still holds it");
    let gone = kvindex_core::BlockRemoved { block_hashes: vec![EngineBlockHash(1)], ..Default::default() };
    rig.send("a", vec![KvEvent::BlockRemoved(gone)]);
    assert_eq!(rig.hit("a", "xy"), 0);
    rig.index.check_invariants().unwrap();
}

#[test]
fn blocks_without_tokens_are_known_by_engine_hash_only() {
    let mut rig = Rig::new(&["a"]);
    let placeholder = BlockStored { token_ids: vec![], block_size: 0, ..stored("a", b"x", 0) };
    rig.send("a", vec![KvEvent::BlockStored(placeholder)]);
    assert_eq!(rig.hit("a", "x"), 0);
    assert_eq!(rig.index.stats().entries, 1);
    rig.store("a", "x", 0);
    assert_eq!(rig.hit("a", "x"), 1, "and placed when the tokens come");
    rig.remove("a", "x");
    assert_eq!(rig.hit("a", "x"), 1, "two copies were announced");
}

#[test]
fn a_new_generation_clears_and_an_old_one_is_ignored() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    let late = rig.next_batch("a", vec![KvEvent::BlockStored(stored("a", b"xyz", 0))]);
    assert_eq!(rig.restart("a", 1).generations, 1);
    assert_eq!(rig.hit("a", "xy"), 0);
    assert_eq!(rig.index.apply(&late).stale, 1);
    let stamp = rig.index.reader().stream(&stream("a")).unwrap();
    assert_eq!((stamp.generation, stamp.applied, stamp.coverage), (Generation(1), None, Coverage::Complete));
}

#[test]
fn gaps_purge_or_mark_and_a_clear_of_every_tier_heals() {
    for (policy, left, coverage) in
        [(GapPolicy::Purge, 0, Coverage::Incomplete), (GapPolicy::KeepAsSuspect, 2, Coverage::Suspect)]
    {
        let mut rig = Rig::new(&["a"]);
        rig.store("a", "xy", 0);
        let gap = Command::Gap {
            stream: stream("a"),
            generation: Generation(0),
            first: kvindex_core::BatchSeq(1),
            last: kvindex_core::BatchSeq(4),
            policy,
            at_ms: 5,
            registration: Registration::default(),
        };
        rig.index.apply(&gap);
        assert_eq!(rig.hit("a", "xy"), left);
        assert_eq!(rig.ask("xy")[0].stream.coverage, coverage);
        assert_eq!(rig.ask("xy")[0].stream.applied, Some(kvindex_core::BatchSeq(4)));
        rig.send("a", vec![KvEvent::AllBlocksCleared]);
        assert_eq!(rig.ask("xy")[0].stream.coverage, Coverage::Incomplete, "the lost ones may lie elsewhere");
        let profile = EngineProfile { cleared: ClearPolicy::AllTiers, ..EngineProfile::default() };
        rig.send_as("a", vec![KvEvent::AllBlocksCleared], &profile);
        assert_eq!(rig.ask("xy")[0].stream.coverage, Coverage::Complete);
        rig.send("a", vec![KvEvent::AllBlocksCleared]);
        assert_eq!(rig.ask("xy")[0].stream.coverage, Coverage::Complete, "nothing was missed since");
    }
}

/// Found by simulation: lost batches had put blocks on host memory, of which a clear of the device says nothing; the
/// stream claimed to be complete, and answers were too short.
#[test]
fn a_device_clear_after_a_gap_does_not_make_a_stream_complete() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "x", 0);
    rig.index.apply(&Command::Gap {
        stream: stream("a"),
        generation: Generation(0),
        first: kvindex_core::BatchSeq(1),
        last: kvindex_core::BatchSeq(1),
        policy: GapPolicy::Purge,
        at_ms: 5,
        registration: Registration(0),
    });
    // Other nodes judge as this one does, whichever way they came by the stream.
    let mut shared = Index::default();
    shared.import(&rig.index.reader().export(&[WorkerId::new("a").unwrap()])).unwrap();
    let restored = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
    let twins = [shared, restored].map(|index| Rig { index, now_ms: rig.now_ms });
    for mut rig in [rig].into_iter().chain(twins) {
        rig.send("a", vec![KvEvent::AllBlocksCleared]);
        assert_eq!(rig.ask("x")[0].stream.coverage, Coverage::Incomplete);
        rig.restart("a", 1);
        rig.send("a", vec![KvEvent::AllBlocksCleared]);
        assert_eq!(rig.ask("x")[0].stream.coverage, Coverage::Complete, "another life has missed nothing");
    }
}

#[test]
fn a_full_index_refuses_counts_and_marks() {
    let limits = IndexLimits { max_entries: 3, ..IndexLimits::default() };
    let mut rig = Rig { index: Index::new(limits), now_ms: 0 };
    rig.index.apply(&Command::Register(Box::new(WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL))));
    rig.store("a", "xyz", 0);
    assert_eq!(rig.store("a", "xyzw", 3).refused, 1);
    assert_eq!(rig.ask("xyz")[0].stream.coverage, Coverage::Incomplete);
    assert_eq!(rig.hit("a", "xyzw"), 3);
}

#[test]
fn too_many_orphans_are_kept_by_hash_but_not_joined() {
    let limits = IndexLimits { max_orphans_per_owner: 2, ..IndexLimits::default() };
    let mut rig = Rig { index: Index::new(limits), now_ms: 0 };
    rig.index.apply(&Command::Register(Box::new(WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL))));
    let outcome = rig.store("a", "vwxyz", 1);
    assert_eq!((outcome.orphaned, outcome.unjoinable), (2, 2));
    rig.store("a", "v", 0);
    assert_eq!(rig.hit("a", "vwxyz"), 3);
    rig.index.check_invariants().unwrap();
}

#[test]
fn unknown_workers_are_ignored_and_counted() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.store("nobody", "x", 0).unknown_worker, 1);
    let gone = Command::Unregister { worker: WorkerId::new("nobody").unwrap() };
    assert_eq!(rig.index.apply(&gone), kvindex_core::Outcome::default());
}

#[test]
fn namespaces_never_meet() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    let tokens = tokens(b"xy");
    let base = Query::tokens(MODEL, &tokens);
    let hit = |query: &Query<'_>| {
        let found = find_matches(&rig.index.reader(), query, &mut Scratch::default()).unwrap();
        found.workers.iter().map(|w| w.matched_blocks).max()
    };
    assert_eq!(hit(&base), Some(2));
    assert_eq!(hit(&Query { lora: Some("l"), ..base.clone() }), Some(0));
    assert_eq!(hit(&Query { model: "n", ..base.clone() }), None);
    assert_eq!(hit(&Query { tenant: "t", ..base.clone() }), None);
    assert_eq!(hit(&Query { block_size: Some(4), ..base.clone() }), Some(0));
}

#[test]
fn all_three_forms_of_a_prompt_agree() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xyz", 0);
    let ids = tokens(b"xyw");
    let packed: Vec<u8> = ids.iter().flat_map(|t| t.to_le_bytes()).collect();
    let mut before = None;
    let mut hasher = kvindex_core::BlockHasher::new();
    let sequence: Vec<SequenceHash> = ids
        .chunks(2)
        .map(|block| {
            before = Some(SequenceHash::chain(before, hasher.local(block, &[])));
            before.unwrap()
        })
        .collect();
    let engine: Vec<_> = (1..=3).map(|n| engine_hash("a", &b"xyw"[..n])).collect();
    let base = Query { block_size: Some(2), ..Query::tokens(MODEL, &ids) };
    let le = Prompt::Tokens { tokens: Tokens::LeBytes(&packed), salt: None, items: &[] };
    for prompt in [base.prompt, le, Prompt::SequenceHashes(&sequence), Prompt::EngineHashes(&engine)] {
        let query = Query { prompt, ..base.clone() };
        let found = find_matches(&rig.index.reader(), &query, &mut Scratch::default()).unwrap();
        assert_eq!((found.prompt_tokens, found.workers[0].matched_tokens), (6, 4), "{prompt:?}");
    }
}

#[test]
fn contradictory_queries_are_refused_by_name() {
    let index = Index::default();
    let base = Query::tokens(MODEL, &[]);
    let refused =
        |query: &Query<'_>| find_matches(&index.reader(), query, &mut Scratch::default()).unwrap_err();
    let hashes = Query { prompt: Prompt::SequenceHashes(&[SequenceHash(1)]), ..base.clone() };
    assert_eq!(refused(&hashes), QueryError::NoBlockSize);
    assert_eq!(refused(&Query { block_size: Some(0), ..base.clone() }), QueryError::BlockSize(0));
    let torn = Prompt::Tokens { tokens: Tokens::LeBytes(&[1, 2, 3]), salt: None, items: &[] };
    assert_eq!(refused(&Query { prompt: torn, ..base.clone() }), QueryError::TornTokens(3));
    let long = vec![0u8; (kvindex_core::limits::MAX_PROMPT_TOKENS + 1) * 4];
    let long = Prompt::Tokens { tokens: Tokens::LeBytes(&long), salt: None, items: &[] };
    assert!(refused(&Query { prompt: long, ..base }).to_string().contains("the limit is"));
}

/// Long chains cross the run limit; branches in the middle and re-stores keep them whole.
#[test]
fn chains_longer_than_a_run_match_whole() {
    let mut rig = Rig::new(&["a", "b"]);
    let long: String = (0..10_000).map(|i| if i % 3 == 0 { 'x' } else { 'y' }).collect();
    let branch = format!("{}zz", &long[..5000]);
    rig.store("a", &long, 0);
    rig.store("b", &branch, 0);
    assert_eq!((rig.hit("a", &long), rig.hit("b", &long)), (10_000, 5000));
    assert_eq!((rig.hit("a", &branch), rig.hit("b", &branch)), (5000, 5002));
    rig.remove("a", &long[..4096]);
    assert_eq!(rig.hit("a", &long), 4095);
    rig.store("a", &long[..4096], 4095);
    assert_eq!(rig.hit("a", &long), 10_000);
    rig.index.check_invariants().unwrap();
}

/// Found by the history test: an offloaded block arrived before its parent, which then came to the device.
#[test]
fn a_block_on_host_finds_its_parent_on_the_device() {
    let mut rig = Rig::new(&["a"]);
    let child = crate::rig::on_host(KvEvent::BlockStored(one(b"xy")));
    rig.send("a", vec![child]);
    rig.store("a", "x", 0);
    assert_eq!(rig.hit("a", "xy"), 2);
}

#[test]
fn made_up_tiers_are_bounded() {
    let mut rig = Rig::new(&["a"]);
    let mut refused = 0;
    for i in 0..300 {
        let tier = kvindex_core::Tier::Other(format!("tier-{i}"));
        let event = BlockStored { tier, ..stored("a", b"x", 0) };
        refused += rig.send("a", vec![KvEvent::BlockStored(event)]).refused;
    }
    assert_eq!(refused, 300 - kvindex_core::limits::MAX_OWNERS_PER_STREAM as u64);
    assert_eq!(rig.ask("x")[0].stream.coverage, Coverage::Incomplete);
}

/// Found in review: the second position of a repeated engine hash had a holder but no name.
#[test]
fn an_engine_hash_twice_in_one_event_leaves_no_phantom() {
    let mut rig = Rig::new(&["a", "b"]);
    let twice = BlockStored {
        block_hashes: vec![EngineBlockHash(7), EngineBlockHash(7), EngineBlockHash(9)],
        ..stored("a", b"xxy", 0)
    };
    rig.send("a", vec![KvEvent::BlockStored(twice)]);
    rig.index.check_invariants().unwrap();
    let hashes = vec![EngineBlockHash(7), EngineBlockHash(7), EngineBlockHash(9)];
    let gone = kvindex_core::BlockRemoved { block_hashes: hashes, ..Default::default() };
    rig.send("a", vec![KvEvent::BlockRemoved(gone)]);
    let stats = rig.index.stats();
    assert_eq!((stats.entries, stats.blocks), (0, 0));
    rig.index.apply(&Command::Unregister { worker: WorkerId::new("a").unwrap() });
    rig.store("b", "x", 0);
    assert_eq!(rig.hit("b", "xxy"), 1);
}

/// Found in review: an orphan announced again at a known position stayed an orphan as well.
#[test]
fn an_orphan_stored_again_at_a_known_position_is_none_any_more() {
    let mut rig = Rig::new(&["a"]);
    let orphan = BlockStored { parent: Some(EngineBlockHash(99)), ..stored("a", b"x", 0) };
    rig.send("a", vec![KvEvent::BlockStored(orphan)]);
    rig.store("a", "x", 0);
    rig.index.check_invariants().unwrap();
    assert_eq!((rig.hit("a", "x"), rig.index.stats().orphans), (1, 0));
    Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
}

/// Found in review: a child followed its parent into the parent's namespace.
#[test]
fn a_parent_in_another_namespace_is_no_parent() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "x", 0);
    let child = BlockStored { lora_name: Some("l".into()), ..one(b"xy") };
    rig.send("a", vec![KvEvent::BlockStored(child)]);
    assert_eq!(rig.hit("a", "xy"), 1);
    rig.index.check_invariants().unwrap();
}

#[test]
fn an_unreadable_event_makes_the_stream_suspect_until_a_clear() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "x", 0);
    let mut command = rig.next_batch("a", vec![]);
    if let Command::Events(events) = &mut command {
        events.batches[0].changes.push(kvindex_core::Change::Unreadable);
    }
    rig.index.apply(&command);
    assert_eq!((rig.hit("a", "x"), rig.ask("x")[0].stream.coverage), (1, Coverage::Suspect));
    rig.send("a", vec![KvEvent::AllBlocksCleared]);
    assert_eq!(rig.ask("x")[0].stream.coverage, Coverage::Incomplete, "nothing is too much any more");
}

/// Found in review: a device clear says nothing of blocks on host memory that an earlier gap hid.
#[test]
fn a_device_clear_does_not_heal_a_stream_with_other_tiers() {
    let mut rig = Rig::new(&["a"]);
    rig.send("a", vec![crate::rig::on_host(KvEvent::BlockStored(stored("a", b"x", 0)))]);
    let gap = Command::Gap {
        stream: stream("a"),
        generation: Generation(0),
        first: kvindex_core::BatchSeq(1),
        last: kvindex_core::BatchSeq(1),
        policy: GapPolicy::Purge,
        at_ms: 5,
        registration: Registration::default(),
    };
    rig.index.apply(&gap);
    // A restored index must judge as one that never stopped.
    let restored = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
    let mut restored = Rig { index: restored, now_ms: rig.now_ms };
    for rig in [&mut rig, &mut restored] {
        rig.send("a", vec![KvEvent::AllBlocksCleared]);
        assert_eq!(rig.ask("x")[0].stream.coverage, Coverage::Incomplete);
    }
}

#[test]
fn made_up_block_sizes_are_bounded() {
    let mut rig = Rig::new(&["a"]);
    let mut refused = 0;
    for size in 1..=100 {
        let event =
            BlockStored { block_size: size, token_ids: vec![1; size as usize], ..stored("a", b"x", 0) };
        refused += rig.send("a", vec![KvEvent::BlockStored(event)]).refused;
    }
    assert_eq!(refused, 100 - 64);
}

/// Found in review: a chain went on below a repeated engine hash with the hashes of another chain, so that a run
/// held a block that did not follow the one before it.
#[test]
fn a_chain_goes_on_below_a_repeated_engine_hash_where_that_lies() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    let mut repeats = stored("a", b"xzw", 0);
    repeats.block_hashes[1] = engine_hash("a", b"xy");
    rig.send("a", vec![KvEvent::BlockStored(repeats)]);
    assert_eq!((rig.hit("a", "xzw"), rig.hit("a", "xyw")), (1, 3));
    rig.index.check_invariants().unwrap();
}
