//! Shares one by one: what they replace and what they leave alone, damage, and their bytes.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};

use kvindex_core::{
    BatchSeq, Command, Coverage, DpRank, GapPolicy, Generation, Group, Index, KvEvent, Registration,
    ScoreQuery, Scratch, SnapshotError, StreamId, Tier, WorkerId,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::formats::golden;
use crate::history::Dice;
use crate::rig::{BLOCK, MODEL, Rig, hashes, spec, stored, stream};

fn id(worker: &str) -> WorkerId {
    WorkerId::new(worker).unwrap()
}

/// Two workers that share chains and names, and have some of their own, several copies and orphans.
fn rig() -> Rig {
    let mut rig = Rig::new(&["a", "b"]);
    for worker in ["a", "b"] {
        rig.store(worker, "abcd", 0);
        rig.store(worker, "abxy", 0);
        rig.store(worker, "ab", 0);
        rig.store(worker, "pqrs", 2);
    }
    // The other one's names.
    rig.send("b", vec![KvEvent::BlockStored(stored("a", b"uvw", 0))]);
    rig.send("a", vec![KvEvent::BlockStored(stored("a", b"uvwz", 0))]);
    rig.remove("a", "abcd");
    rig
}

/// An index in which the chains of [`rig`] are cut into other runs.
fn other() -> Rig {
    let mut rig = Rig::new(&["c", "d"]);
    // What heads a run there lies amid one here, and the other way round.
    rig.store("d", "abxz", 0);
    rig.store("c", "abcdef", 0);
    rig.store("d", "uvwx", 0);
    rig
}

fn digest_of(index: &Index, worker: &str) -> u64 {
    index.reader().digest_of(|id| id.as_str() == worker)
}

#[test]
fn a_share_lands_among_runs_that_are_cut_otherwise() {
    let (source, mut target) = (rig(), other());
    let before = ["c", "d"].map(|worker| digest_of(&target.index, worker));
    let share = source.index.reader().export(&[id("b"), id("nobody"), id("a"), id("b")]);
    assert_eq!(target.index.import(&share).unwrap(), [id("a"), id("b")]);
    target.index.check_invariants().unwrap();
    assert_eq!(["a", "b"].map(|worker| target.hit(worker, "abcd")), [3, 4]);
    assert_eq!(["a", "b"].map(|worker| target.hit(worker, "uvwz")), [4, 3]);
    assert_eq!((target.hit("c", "abcdef"), target.hit("d", "uvwx")), (6, 4));
    for worker in ["a", "b"] {
        assert_eq!(digest_of(&target.index, worker), digest_of(&source.index, worker));
    }
    assert_eq!(["c", "d"].map(|worker| digest_of(&target.index, worker)), before);
    assert_eq!(target.index.reader().stream(&stream("a")), source.index.reader().stream(&stream("a")));
}

#[test]
fn a_share_replaces_what_was_there() {
    let (source, mut target) = (rig(), other());
    target.index.apply(&Command::Register(Box::new(spec("a"))));
    target.store("a", "ghij", 0);
    target.store("a", "abcdef", 0);
    target.index.import(&source.index.reader().export(&[id("a")])).unwrap();
    target.index.check_invariants().unwrap();
    assert_eq!((target.hit("a", "ghij"), target.hit("a", "abcdef")), (0, 3));
    assert_eq!(digest_of(&target.index, "a"), digest_of(&source.index, "a"));
    assert_eq!(target.index.reader().stats().orphans, 2);
}

/// Routers ask on while a shard's snapshot is installed: of other workers they hear what they always heard, and of
/// those that are replaced nothing that they never held.
#[test]
fn questions_are_answered_meanwhile() {
    let (source, mut target) = (rig(), other());
    let share = source.index.reader().export(&[id("a"), id("b")]);
    let (scorer, path) = (target.index.scorer(), hashes(b"abcdef"));
    let done = AtomicBool::new(false);
    let query = ScoreQuery::new(MODEL, BLOCK, &path);
    let ask = || {
        let mut scratch = Scratch::default();
        let found = scorer.score(&query, &mut scratch).unwrap();
        let mut found: Vec<u32> = found.unwrap().iter().map(|score| score.blocks).collect();
        found.sort_unstable_by_key(|blocks| Reverse(*blocks));
        found
    };
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) || asked == 0 {
                let found = ask();
                let theirs = found[0] == 6 && found.contains(&2);
                assert!(theirs && found.len() <= 4 && found[1..].iter().all(|n| *n <= 4), "{found:?}");
                asked += 1;
            }
            asked
        });
        for _ in 0..500 {
            target.index.import(&share).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(asked > 0);
    assert_eq!(ask(), [6, 4, 3, 2]);
}

#[test]
fn a_digest_knows_the_workers_it_is_of_and_no_others() {
    let mut rig = rig();
    let before = digest_of(&rig.index, "a");
    rig.store("b", "qqq", 0);
    assert_eq!(digest_of(&rig.index, "a"), before);
    let mut seen = vec![before];
    let registration = Registration::default();
    let events = [
        Command::Gap {
            stream: stream("a"),
            generation: Generation(0),
            first: BatchSeq(90),
            last: BatchSeq(90),
            policy: GapPolicy::KeepAsSuspect,
            at_ms: 1,
            registration,
        },
        Command::NewGeneration { stream: stream("a"), generation: Generation(1), at_ms: 1, registration },
        Command::NewGeneration {
            stream: StreamId { dp_rank: DpRank(3), ..stream("a") },
            generation: Generation(0),
            at_ms: 1,
            registration,
        },
        Command::Unregister { worker: id("a") },
    ];
    for command in events {
        rig.index.apply(&command);
        let now = digest_of(&rig.index, "a");
        assert!(!seen.contains(&now), "{command:?}");
        seen.push(now);
    }
}

#[test]
fn damaged_bytes_change_nothing() {
    let (source, mut target) = (rig(), other());
    let share = source.index.reader().export(&[id("a"), id("b")]);
    let before = target.index.digest();
    for at in 0..share.len() {
        let mut damaged = share.clone();
        damaged[at] ^= 0x20;
        assert!(target.index.import(&damaged).is_err(), "byte {at}");
        assert!(target.index.import(&share[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(target.index.digest(), before);
    let snapshot = target.index.import(&source.index.snapshot());
    assert_eq!(snapshot, Err(SnapshotError::NotASnapshot));
    assert_eq!(target.index.digest(), before);
    assert_eq!(target.index.stats().workers, 2);
}

/// Whatever else comes in a sound envelope: the index keeps its rules, and other workers what they have. That blocks
/// follow each other as a share says is taken on trust, because nothing but the tokens could prove it.
#[test]
fn forged_bytes_do_no_harm() {
    let source = rig();
    let share = source.index.reader().export(&[id("a"), id("b")]);
    let (mut dice, mut taken) = (Dice::new(5), 0);
    for _ in 0..20_000 {
        let mut target = other();
        let before = ["c", "d"].map(|worker| digest_of(&target.index, worker));
        let mut forged = share.clone();
        let end = forged.len() - 8;
        for _ in 0..1 + dice.below(3) {
            let at = 24 + dice.below(end - 24);
            forged[at] = dice.below(256) as u8;
        }
        let digest = xxh3_64(&forged[..end]).to_le_bytes();
        forged[end..].copy_from_slice(&digest);
        let workers = target.index.import(&forged).unwrap_or_default();
        taken += usize::from(!workers.is_empty());
        let checked = target.index.check_invariants();
        assert!(checked.as_ref().err().is_none_or(|error| error.contains("lies twice")), "{checked:?}");
        let theirs = workers.iter().any(|worker| ["c", "d"].contains(&worker.as_str()));
        assert!(theirs || ["c", "d"].map(|worker| digest_of(&target.index, worker)) == before);
    }
    assert!((100..19_900).contains(&taken), "{taken} of 20000 are taken");
}

#[test]
fn share_version_2() {
    let source = rig();
    let share = source.index.reader().export(&[id("a"), id("b")]);
    golden("share-v2.bin", &share);
    for kept in [&share[..], include_bytes!("../golden/share-v1.bin")] {
        let mut index = Index::default();
        index.import(kept).unwrap();
        assert_eq!(index.digest(), source.index.digest());
        index.check_invariants().unwrap();
    }
}

#[test]
fn a_newer_share_is_refused() {
    let mut share = rig().index.reader().export(&[id("a")]);
    share[8] = 9;
    let error = Index::default().import(&share).unwrap_err();
    assert_eq!(error.to_string(), "snapshot version 9 is newer than this program, which reads up to 2");
}

#[test]
fn a_plan_takes_from_the_chosen_only_and_not_from_their_next_life() {
    let mut rig = rig();
    let (a, b) = (digest_of(&rig.index, "a"), digest_of(&rig.index, "b"));
    let plan = rig.index.reader().plan_eviction(1000, 9, |worker| worker.as_str() == "a");
    for command in &plan {
        assert!(matches!(command, Command::Forget(blocks) if blocks.stream == stream("a")
            && blocks.tier == Tier::Device && blocks.group == Group(0)));
        rig.index.apply(command);
    }
    assert_eq!(digest_of(&rig.index, "b"), b);
    assert_ne!(digest_of(&rig.index, "a"), a);
    assert_eq!((rig.hit("a", "abxy"), rig.hit("b", "abxy")), (0, 4));
    assert_eq!(rig.index.reader().stream(&stream("a")).unwrap().coverage, Coverage::Incomplete);
    rig.index.check_invariants().unwrap();
    // The engine restarts, and names mean what they mean there.
    rig.restart("a", 1);
    rig.store("a", "abxy", 0);
    let outcomes: Vec<_> = plan.iter().map(|command| rig.index.apply(command)).collect();
    assert!(outcomes.iter().all(|outcome| outcome.stale == 1 && outcome.evicted == 0));
    assert_eq!(rig.hit("a", "abxy"), 4);
}
