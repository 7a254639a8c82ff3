//! A prompt that is hashed while no reader is held, and candidates that are found by their hash.

use kvindex_core::{
    BlockStored, KvEvent, Query, Scratch, find_hashed, find_matches, hash_noted, is_noted, note_namespaces,
};

use crate::rig::{MODEL, Rig, spec, stored, tokens};

#[test]
fn a_prompt_hashed_without_a_reader_is_answered_as_one_hashed_with_it() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.store("a", "xyz", 0);
    let ids = tokens(b"xyz");
    let query = Query::tokens(MODEL, &ids);
    let mut scratch = Scratch::default();
    note_namespaces(&rig.index.reader(), &query, &mut scratch).unwrap();
    hash_noted(&query, &mut scratch);
    // Blocks in a namespace that was noted do not make it another one.
    rig.store("b", "xy", 0);
    assert!(is_noted(&rig.index.reader(), &query, &scratch));
    let found = find_hashed(&rig.index.reader(), &query, &mut scratch);
    assert_eq!(found, find_matches(&rig.index.reader(), &query, &mut Scratch::default()).unwrap());
    assert_eq!(found.workers.iter().map(|worker| worker.matched_blocks).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_namespace_that_came_while_the_prompt_was_hashed_is_noticed() {
    let mut rig = Rig::new(&["a"]);
    let ids = tokens(b"xyz");
    let query = Query::tokens(MODEL, &ids);
    let other = Query { lora: Some("l"), ..query.clone() };
    let note = |rig: &Rig, query: &Query<'_>| {
        let mut scratch = Scratch::default();
        note_namespaces(&rig.index.reader(), query, &mut scratch).unwrap();
        hash_noted(query, &mut scratch);
        scratch
    };
    let (before, before_other) = (note(&rig, &query), note(&rig, &other));
    rig.store("a", "xyz", 0);
    assert!(!is_noted(&rig.index.reader(), &query, &before), "the first of its family");
    assert!(is_noted(&rig.index.reader(), &other, &before_other), "another adapter's is none of it");
    let before = note(&rig, &query);
    let of_four = BlockStored { block_size: 4, token_ids: tokens(b"vwxy"), ..stored("a", b"vw", 0) };
    rig.send("a", vec![KvEvent::BlockStored(of_four)]);
    assert!(!is_noted(&rig.index.reader(), &query, &before), "another block size");
    let narrow = Query { block_size: Some(2), ..query.clone() };
    assert!(is_noted(&rig.index.reader(), &narrow, &before), "which is not asked for");
}

#[test]
fn many_candidates_are_found_as_few_are() {
    let names: Vec<String> = (0..20).map(|i| format!("w{i:02}")).collect();
    let mut rig = Rig::new(&[]);
    for (i, name) in names.iter().enumerate() {
        let address = (i % 2 == 0).then(|| format!("10.0.0.{i}:80"));
        let spec = kvindex_core::WorkerSpec { address, ..spec(name) };
        rig.index.apply(&kvindex_core::Command::Register(Box::new(spec)));
    }
    let ids = tokens(b"x");
    let found = |candidates: &[&str]| {
        let mut query = Query::tokens(MODEL, &ids);
        query.filter.candidates = candidates;
        let found = find_matches(&rig.index.reader(), &query, &mut Scratch::default()).unwrap();
        found.workers.iter().map(|worker| worker.worker.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    let wanted = ["w03", "10.0.0.4:80", "nobody", "w05", "w05"];
    let many: Vec<&str> = wanted.iter().copied().chain(["x"; 300]).collect();
    assert_eq!(found(&wanted), ["w03", "w04", "w05"]);
    assert_eq!(found(&many), ["w03", "w04", "w05"]);
    assert_eq!(found(&["x"; 300]), [""; 0]);
    assert_eq!(found(&[]).len(), 20);
}
