//! `explain`: each reason, from a history that causes it.

use kvindex_core::{
    BatchSeq, BlockStored, Command, GapPolicy, Generation, Index, IndexLimits, KvEvent, Query, Reason,
    Registration, Scratch, WorkerExplanation, WorkerId, WorkerSpec, explain,
};

use crate::rig::{MODEL, Rig, stored, stream, tokens};

fn why(rig: &Rig, path: &str) -> WorkerExplanation {
    let tokens = tokens(path.as_bytes());
    let query = Query::tokens(MODEL, &tokens);
    explain(&rig.index.reader(), &query, &mut Scratch::default()).unwrap().workers.remove(0)
}

#[test]
fn held_blocks_are_complete() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xyz", 0);
    let told = why(&rig, "xyz");
    assert_eq!((told.broke_at, told.reason), (None, Reason::Complete));
}

#[test]
fn evicted_blocks_are_removed_and_the_rest_is_held_beyond() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "wxyz", 0);
    rig.remove("a", "wx");
    let told = why(&rig, "wxyz");
    assert_eq!((told.broke_at, told.held_beyond, told.prompt_blocks), (Some(1), 2, 4));
    assert!(matches!(told.reason, Reason::Removed { batch: BatchSeq(1), .. }), "{:?}", told.reason);
    assert!(told.reason.to_string().starts_with("removed from device"));
}

#[test]
fn unseen_blocks_were_never_stored() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    let told = why(&rig, "xyz");
    assert_eq!((told.broke_at, told.reason.to_string().as_str()), (Some(2), "never stored"));
}

#[test]
fn clears_restarts_and_gaps_are_named() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    rig.send("a", vec![KvEvent::AllBlocksCleared]);
    assert!(matches!(why(&rig, "xy").reason, Reason::Cleared { .. }));
    assert_eq!(why(&rig, "zz").reason, Reason::NeverStored, "what was not there is not blamed on the clear");
    rig.store("a", "xy", 0);
    rig.restart("a", 1);
    assert!(matches!(why(&rig, "xy").reason, Reason::GenerationChanged { .. }));
    rig.store("a", "xy", 0);
    let gap = Command::Gap {
        stream: stream("a"),
        generation: Generation(1),
        first: BatchSeq(1),
        last: BatchSeq(3),
        policy: GapPolicy::Purge,
        at_ms: 99,
        registration: Registration::default(),
    };
    rig.index.apply(&gap);
    let lost = Reason::LostInGap { at_ms: 99, first: BatchSeq(1), last: BatchSeq(3) };
    assert_eq!(why(&rig, "xy").reason, lost);
    assert_eq!(why(&rig, "zz").reason, lost, "it may have been in the lost batches");
}

#[test]
fn other_adapters_are_found() {
    let mut rig = Rig::new(&["a"]);
    let stored = BlockStored { lora_name: Some("sql".into()), ..stored("a", b"xy", 0) };
    rig.send("a", vec![KvEvent::BlockStored(stored)]);
    assert_eq!(why(&rig, "xy").reason.to_string(), "held in another namespace: with LoRA adapter sql");
}

#[test]
fn silent_workers_say_so() {
    let rig = Rig::new(&["a"]);
    assert_eq!(why(&rig, "xy").reason, Reason::NothingHeard);
}

#[test]
fn a_full_journal_admits_its_reach() {
    let limits = IndexLimits { journal_removals: 1, ..IndexLimits::default() };
    let mut rig = Rig { index: Index::new(limits), now_ms: 0 };
    rig.index.apply(&Command::Register(Box::new(WorkerSpec::new(WorkerId::new("a").unwrap(), MODEL))));
    rig.store("a", "xy", 0);
    rig.remove("a", "xy");
    rig.remove("a", "x");
    assert!(matches!(why(&rig, "x").reason, Reason::Removed { .. }));
    rig.store("a", "x", 0);
    assert!(matches!(why(&rig, "xy").reason, Reason::BeforeJournal { .. }));
}

#[test]
fn a_restored_index_does_not_speak_of_what_was_before() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "xy", 0);
    rig.remove("a", "xy");
    rig.index = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
    assert_eq!(why(&rig, "xy").reason, Reason::BeforeJournal { since_ms: rig.now_ms });
}
