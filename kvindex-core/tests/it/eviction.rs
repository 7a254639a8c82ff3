//! Eviction as a command: how much goes, of whom, in which order, and what answers say of it.

use std::collections::BTreeMap;

use kvindex_core::{
    Command, Coverage, EngineProfile, Index, IndexLimits, KvEvent, Notice, Outcome, Query, Reason,
    Registration, Scratch, WorkerSpec, explain,
};

use crate::rig::{MODEL, Rig, removed, spec, stored, stream, tokens};

fn evict(index: &mut Index, entries: u64) -> Outcome {
    index.apply(&Command::Evict { entries, at_ms: 77 })
}

/// A rig in which worker `a` serves tenant `a`, and so on.
fn tenants(names: &[&str]) -> Rig {
    let mut rig = Rig::new(&[]);
    for name in names {
        let spec = WorkerSpec { tenant: (*name).into(), ..spec(name) };
        rig.index.apply(&Command::Register(Box::new(spec)));
    }
    rig
}

/// Stores `blocks` blocks in chains of ten.
fn fill(rig: &mut Rig, worker: &str, blocks: usize) {
    for chain in 0..blocks / 10 {
        let path: Vec<u8> = [&chain.to_le_bytes()[..3], &[b'x'; 7]].concat();
        rig.send(worker, vec![KvEvent::BlockStored(stored(worker, &path, 0))]);
    }
}

fn held(index: &Index) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for (stream, ..) in index.reader().names() {
        *held.entry(stream.worker.to_string()).or_default() += 1;
    }
    held
}

#[test]
fn tenants_with_most_give_first() {
    let mut rig = tenants(&["a", "b", "c"]);
    [("a", 10), ("b", 100), ("c", 1000)].into_iter().for_each(|(worker, n)| fill(&mut rig, worker, n));
    let mut check = |entries: u64, left: [usize; 3]| {
        let before: usize = held(&rig.index).values().sum();
        let outcome = evict(&mut rig.index, entries);
        let now = held(&rig.index);
        assert_eq!(["a", "b", "c"].map(|name| now.get(name).copied().unwrap_or(0)), left);
        assert_eq!(outcome.evicted as usize, before - left.iter().sum::<usize>());
        rig.index.check_invariants().unwrap();
    };
    check(600, [10, 100, 400]);
    check(300, [10, 100, 100]);
    check(100, [10, 50, 50]);
    check(81, [9, 10, 10]);
    check(1000, [0, 0, 0]);
    assert_eq!(evict(&mut rig.index, 5), Outcome::default());
}

#[test]
fn what_was_touched_longest_ago_goes_first_and_from_its_end() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.store("a", "pqrs", 0);
    rig.store("a", "vwxyz", 0);
    rig.store("b", "ijk", 0);
    // Stored again, and gone on below: young again.
    rig.store("a", "pq", 0);
    assert_eq!(evict(&mut rig.index, 2).evicted, 2);
    assert_eq!((rig.hit("a", "vwxyz"), rig.hit("a", "pqrs"), rig.hit("b", "ijk")), (3, 4, 3));
    assert_eq!(evict(&mut rig.index, 4).evicted, 4);
    assert_eq!((rig.hit("a", "vwxyz"), rig.hit("a", "pqrs"), rig.hit("b", "ijk")), (0, 4, 2));
    rig.store("b", "ijk", 2);
    assert_eq!(evict(&mut rig.index, 1).evicted, 1);
    assert_eq!((rig.hit("a", "pqrs"), rig.hit("b", "ijk")), (3, 3), "a child keeps its parent young");
}

#[test]
fn all_owners_of_a_tenant_leave_a_block_together() {
    let mut rig = Rig::new(&["a", "b", "c"]);
    ["a", "b", "c"].into_iter().for_each(|worker| assert_eq!(rig.store(worker, "wxyz", 0).stored, 4));
    rig.store("a", "wxyz", 0);
    let mut told = 0;
    let outcome = rig.index.apply_noticed(&Command::Evict { entries: 4, at_ms: 1 }, &mut |notice| {
        told += usize::from(matches!(notice, Notice::Removed { .. }));
    });
    assert_eq!((outcome.evicted, told), (6, 6), "two blocks of three owners, with all copies");
    for worker in ["a", "b", "c"] {
        assert_eq!(rig.hit(worker, "wxyz"), 2);
        assert_eq!(rig.index.reader().stream(&stream(worker)).unwrap().coverage, Coverage::Incomplete);
        assert_eq!(rig.remove(worker, "wxyz").removed_unknown, 1);
    }
    rig.remove("a", "wx");
    assert_eq!(rig.hit("a", "wxyz"), 2, "copies of what stays are not touched");
}

#[test]
fn blocks_without_a_place_go_before_any_other() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "wxyz", 0);
    assert_eq!(rig.store("a", "pqrst", 2).orphaned, 3);
    assert_eq!(evict(&mut rig.index, 2).evicted, 2);
    assert_eq!((rig.hit("a", "wxyz"), rig.index.stats().orphans), (4, 1));
    rig.index.check_invariants().unwrap();
    rig.store("a", "pq", 0);
    assert_eq!(evict(&mut rig.index, 2).evicted, 2);
    rig.index.check_invariants().unwrap();
}

#[test]
fn explain_says_that_it_was_the_index() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "wxyz", 0);
    evict(&mut rig.index, 2);
    let tokens = tokens(b"wxyz");
    let explained =
        explain(&rig.index.reader(), &Query::tokens(MODEL, &tokens), &mut Scratch::default()).unwrap();
    assert_eq!(explained.workers[0].broke_at, Some(2));
    assert_eq!(explained.workers[0].reason, Reason::Evicted { at_ms: 77 });
    rig.send("a", vec![KvEvent::AllBlocksCleared]);
    assert_eq!(rig.index.reader().stream(&stream("a")).unwrap().coverage, Coverage::Complete);
}

#[test]
fn doubts_about_too_much_stay() {
    let mut rig = Rig::new(&["a"]);
    rig.store("a", "wxyz", 0);
    let gap = Command::Gap {
        stream: stream("a"),
        generation: kvindex_core::Generation(0),
        first: kvindex_core::BatchSeq(1),
        last: kvindex_core::BatchSeq(1),
        policy: kvindex_core::GapPolicy::KeepAsSuspect,
        at_ms: 0,
        registration: Registration::default(),
    };
    rig.index.apply(&gap);
    evict(&mut rig.index, 1);
    assert_eq!(rig.index.reader().stream(&stream("a")).unwrap().coverage, Coverage::Suspect);
}

#[test]
fn a_restored_index_evicts_the_same() {
    let mut rig = Rig::new(&["a", "b", "c"]);
    for chain in 0..60u8 {
        let path: Vec<u8> = (0..20).map(|i| if i < chain % 7 { b'p' } else { b'a' + chain / 3 }).collect();
        let worker = ["a", "b", "c"][usize::from(chain) % 3];
        rig.send(worker, vec![KvEvent::BlockStored(stored("a", &path, 0))]);
        // Runs come and go, so that their numbers differ after a restore.
        rig.send(worker, vec![KvEvent::BlockRemoved(removed("a", &path))]);
    }
    let mut twin = Index::restore(&rig.index.snapshot(), IndexLimits::default()).unwrap();
    while rig.index.stats().entries > 0 {
        assert_eq!(evict(&mut rig.index, 13), evict(&mut twin, 13));
        assert_eq!(rig.index.snapshot(), twin.snapshot());
        twin = Index::restore(&twin.snapshot(), IndexLimits::default()).unwrap();
        rig.index.check_invariants().unwrap();
    }
}

#[test]
fn blocks_named_by_content_go_too() {
    let mut rig = Rig::new(&["a"]);
    let engine_version = Some("0.5.5".to_owned());
    let engine = kvindex_core::EngineKind::Sglang;
    let worker = WorkerSpec { engine, engine_version, ..spec("s") };
    let profile: EngineProfile = worker.profile();
    rig.index.apply(&Command::Register(Box::new(worker)));
    rig.send_as("s", vec![KvEvent::BlockStored(stored("s", b"wxyz", 0))], &profile);
    rig.send_as("s", vec![KvEvent::BlockStored(stored("s", b"pqr", 0))], &profile);
    assert_eq!((rig.hit("s", "wxyz"), rig.hit("s", "pqr")), (4, 3));
    assert_eq!(evict(&mut rig.index, 4).evicted, 4);
    assert_eq!((rig.hit("s", "wxyz"), rig.hit("s", "pqr")), (0, 3), "the older ones go");
    rig.index.check_invariants().unwrap();
    assert_eq!(evict(&mut rig.index, 9).evicted, 3);
    rig.index.check_invariants().unwrap();
    assert_eq!(rig.index.stats().runs, 0);
}

/// Whoever decides may change in the middle of a round, and two nodes may ask for the same.
#[test]
fn what_is_planned_twice_goes_once() {
    let mut rig = tenants(&["a", "b"]);
    [("a", 600), ("b", 200)].into_iter().for_each(|(worker, n)| fill(&mut rig, worker, n));
    let all = |_: &kvindex_core::WorkerId| true;
    let plan = |index: &Index| {
        let reader = index.reader();
        reader.plan_giving(&reader.giving_to_entries(500, all), 9, all)
    };
    let (first, second) = (plan(&rig.index), plan(&rig.index));
    let half = first.len().div_ceil(2);
    let apply = |index: &mut Index, commands: &[Command]| {
        commands.iter().map(|command| index.apply(command).evicted).sum::<u64>()
    };
    let mut evicted = apply(&mut rig.index, &first[..half]);
    // The next one plans from what is applied; the rest of the first plan comes late, and another copy of it too.
    let next = plan(&rig.index);
    evicted += apply(&mut rig.index, &next);
    evicted += apply(&mut rig.index, &first[half..]);
    evicted += apply(&mut rig.index, &second);
    assert_eq!((evicted, rig.index.stats().entries), (300, 500));
    assert_eq!(held(&rig.index)["b"], 200, "below its share");
    assert!(plan(&rig.index).is_empty());
}

#[test]
fn shares_are_counted_in_bytes() {
    let mut rig = Rig::new(&[]);
    // Eight workers of one tenant hold the same, under one name: many entries, few bytes.
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        rig.index.apply(&Command::Register(Box::new(WorkerSpec { tenant: "alike".into(), ..spec(name) })));
        fill(&mut rig, name, 2000);
    }
    rig.index.apply(&Command::Register(Box::new(WorkerSpec { tenant: "alone".into(), ..spec("x") })));
    fill(&mut rig, "x", 12_000);
    let usage = rig.index.reader().usage();
    let [alike, alone] = &usage.tenants[..] else { panic!("{usage:?}") };
    assert!(alike.entries > alone.entries && alike.bytes < alone.bytes, "{usage:?}");
    let target = usage.bytes - (alone.bytes - alike.bytes) / 2;
    let giving = rig.index.reader().giving_to_bytes(target, |_| true);
    assert_eq!(giving.keys().collect::<Vec<_>>(), ["alone"]);
    for command in rig.index.reader().plan_giving(&giving, 9, |_| true) {
        rig.index.apply(&command);
    }
    // What went is remembered for a while, which in an index so small is more than it took; entries are exact.
    let now = rig.index.reader().usage();
    let gave = giving["alone"];
    let entries: BTreeMap<&str, usize> =
        now.tenants.iter().map(|tenant| (tenant.tenant.as_str(), tenant.entries)).collect();
    assert_eq!(entries, BTreeMap::from([("alike", alike.entries), ("alone", alone.entries - gave)]));
    assert!(
        gave > 0 && now.tenants.iter().all(|tenant| tenant.bytes < alone.bytes),
        "{now:?} after {usage:?}"
    );
    rig.index.check_invariants().unwrap();
}
