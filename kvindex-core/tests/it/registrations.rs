//! Registrations are told apart: what was made for one changes nothing in another of the same worker.

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, Command, Coverage, EngineBlockHash, EngineProfile, EventBatch,
    ForgottenBlocks, GapPolicy, Generation, Group, Index, IndexLimits, KvEvent, Outcome, Registration,
    StreamEvents, Tier, WorkerId,
};

use crate::rig::{Rig, engine_hash, spec, stored, stream};

const ANOTHER: Outcome = Outcome {
    other_registration: 1,
    batches: 0,
    duplicates: 0,
    stale: 0,
    unknown_worker: 0,
    generations: 0,
    stored: 0,
    copies: 0,
    removed: 0,
    removed_unknown: 0,
    orphaned: 0,
    joined: 0,
    unjoinable: 0,
    refused: 0,
    dropped: 0,
    evicted: 0,
};

fn register(index: &mut Index, number: u64) {
    index.number_registrations(Registration(number));
    index.apply(&Command::Register(Box::new(spec("a"))));
}

fn worker() -> WorkerId {
    WorkerId::new("a").unwrap()
}

fn batch(seq: u64, registration: u64) -> Command {
    let event = KvEvent::BlockStored(stored("a", b"xy", 0));
    let batch = EventBatch { events: vec![event], ..EventBatch::default() };
    let changes = batch.seal(&EngineProfile::default(), &mut BlockHasher::new());
    Command::Events(StreamEvents {
        stream: stream("a"),
        generation: Generation(0),
        at_ms: 5,
        batches: vec![Batch { seq: BatchSeq(seq), changes }].into(),
        payload_digest: None,
        registration: Registration(registration),
    })
}

/// Every kind of command that speaks of a stream.
fn of_every_kind(registration: u64) -> [Command; 4] {
    let (generation, at_ms, number) = (Generation(0), 5, Registration(registration));
    let (first, last, policy) = (BatchSeq(0), BatchSeq(9), GapPolicy::Purge);
    [
        batch(7, registration),
        Command::NewGeneration {
            stream: stream("a"),
            generation: Generation(3),
            at_ms,
            registration: number,
        },
        Command::Gap { stream: stream("a"), generation, first, last, policy, at_ms, registration: number },
        Command::Forget(ForgottenBlocks {
            stream: stream("a"),
            generation,
            tier: Tier::Device,
            group: Group(0),
            hashes: vec![EngineBlockHash(0), engine_hash("a", b"x")],
            at_ms,
            registration: number,
        }),
    ]
}

/// Found by simulation: a proposal of an earlier leader came after its worker was unregistered and registered again,
/// and was taken for the new registration's first batch, with its old number and nothing missing.
#[test]
fn a_late_batch_of_an_earlier_registration_does_not_open_the_new_one() {
    let mut index = Index::default();
    register(&mut index, 3);
    assert_eq!(index.apply(&batch(0, 3)).batches, 1);
    index.apply(&Command::Unregister { worker: worker() });
    register(&mut index, 8);
    let before = index.digest();
    assert_eq!(index.apply(&batch(1, 3)), ANOTHER);
    assert_eq!((index.digest(), index.reader().stream(&stream("a"))), (before, None));
    assert_eq!(index.apply(&batch(0, 8)).batches, 1);
    let stamp = index.reader().stream(&stream("a")).unwrap();
    assert_eq!((stamp.applied, stamp.coverage), (Some(BatchSeq(0)), Coverage::Complete));
}

#[test]
fn nothing_of_another_registration_changes_a_stream_that_has_begun() {
    let mut index = Index::default();
    register(&mut index, 8);
    index.apply(&batch(0, 8));
    let before = index.snapshot();
    for other in [3, 9] {
        for command in of_every_kind(other) {
            assert_eq!(index.apply(&command), ANOTHER, "{command:?}");
        }
    }
    assert_eq!(index.snapshot(), before);
    for command in of_every_kind(8).into_iter().rev() {
        assert_eq!(index.apply(&command).other_registration, 0, "{command:?}");
    }
}

#[test]
fn a_worker_described_anew_keeps_its_registration() {
    let mut index = Index::default();
    register(&mut index, 3);
    index.apply(&batch(0, 3));
    register(&mut index, 8);
    assert_eq!(index.reader().registration(&worker()), Some(Registration(3)));
    assert_eq!(index.apply(&batch(1, 3)).batches, 1);
}

#[test]
fn snapshots_and_shares_keep_registrations() {
    let mut index = Index::default();
    register(&mut index, 3);
    let silent = Index::restore(&index.snapshot(), IndexLimits::default()).unwrap();
    index.apply(&batch(0, 3));
    let restored = Index::restore(&index.snapshot(), IndexLimits::default()).unwrap();
    let mut shared = Index::default();
    shared.import(&index.reader().export(&[worker()])).unwrap();
    assert_eq!([restored.digest(), shared.digest()], [index.digest(); 2]);
    for mut index in [silent, restored, shared] {
        assert_eq!(index.reader().registration(&worker()), Some(Registration(3)));
        assert_eq!(index.apply(&batch(1, 2)), ANOTHER);
        assert_eq!(index.apply(&batch(1, 3)).batches, 1);
    }
}

#[test]
fn replicas_that_number_differently_have_different_digests() {
    let digest = |number| {
        let mut index = Index::default();
        register(&mut index, number);
        index.digest()
    };
    assert_eq!(digest(3), digest(3));
    assert_ne!(digest(3), digest(4));
}

#[test]
fn what_nobody_numbered_belongs_to_any_registration() {
    let mut index = Index::default();
    register(&mut index, 3);
    assert_eq!(index.apply(&batch(0, 0)).batches, 1, "a log of an older release goes on");
    let mut rig = Rig::new(&["a"]);
    assert_eq!(rig.index.apply(&batch(0, 3)), ANOTHER);
    assert_eq!(rig.store("a", "xy", 0).batches, 1);
}
