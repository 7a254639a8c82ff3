//! What random histories against the naive model broke once: a test for each finding, named for the rule that holds
//! since, in as few steps as show it.

use std::collections::BTreeSet;

use kvindex_core::{
    BlockHasher, BlockRemoved, BlockStored, Change, Command, EngineBlockHash, ExtraKey, Index, IndexLimits,
    KvEvent, Notice, Score, ScoreQuery, Scratch, SequenceHash, Tier, WorkerId, WorkerSpec, score,
};

use crate::naive::{Naive, View};
use crate::rig::{BLOCK, MODEL, Rig, engine_hash, on_host, spec, stored, tokens};

/// A block at a known place, as its holder's tier and its sequence hash.
type Held = BTreeSet<(Tier, SequenceHash)>;

fn chain(path: &[u8]) -> Vec<SequenceHash> {
    let (mut hasher, mut before) = (BlockHasher::new(), None);
    let chained = path.iter().map(|letter| {
        let hash = SequenceHash::chain(before, hasher.local(&tokens(&[*letter]), &[]));
        before = Some(hash);
        hash
    });
    chained.collect()
}

fn scores(index: &Index, path: &[u8]) -> Vec<Score> {
    let hashes = chain(path);
    score(&index.reader(), &ScoreQuery::new(MODEL, BLOCK, &hashes), &mut Scratch::default()).unwrap().to_vec()
}

/// What a thread beside the index is told; `None` when it is told to ask the index itself.
fn scores_beside(index: &Index, path: &[u8]) -> Option<Vec<Score>> {
    let hashes = chain(path);
    let query = ScoreQuery::new(MODEL, BLOCK, &hashes);
    index.scorer().score(&query, &mut Scratch::default()).unwrap().map(<[Score]>::to_vec)
}

fn held(index: &Index) -> Held {
    index.check_invariants().unwrap();
    index.reader().entries().map(|(_, tier, _, _, block, _)| (tier.clone(), block)).collect()
}

fn on(tier: &Tier, path: &[u8], blocks: &[usize]) -> Held {
    let chain = chain(path);
    blocks.iter().map(|block| (tier.clone(), chain[*block])).collect()
}

fn restored(index: &Index) -> Index {
    Index::restore(&index.snapshot(), IndexLimits::default()).unwrap()
}

#[test]
fn scores_do_not_name_a_worker_that_serves_another_model_by_now() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.store("a", "y", 0);
    rig.store("b", "z", 0);
    assert_eq!((scores(&rig.index, b"y").len(), scores_beside(&rig.index, b"y").unwrap().len()), (1, 1));
    let moved = WorkerSpec { model: "n".into(), ..spec("a") };
    rig.index.apply(&Command::Register(Box::new(moved)));
    let restored = restored(&rig.index);
    for index in [&rig.index, &restored] {
        assert_eq!(held(index).len(), 2, "its block stays");
        assert_eq!(scores(index, b"y"), []);
        assert!(scores_beside(index, b"y").is_none_or(|scores| scores.is_empty()));
        let other = scores(index, b"z");
        assert_eq!(index.reader().stream_of(other[0].stream).unwrap().worker, WorkerId::new("b").unwrap());
        assert_eq!(scores_beside(index, b"z"), Some(other), "who stayed is scored as before");
    }
}

#[test]
fn scores_do_not_name_a_tier_that_was_placed_by_names_of_an_earlier_model() {
    let mut rig = Rig::new(&["a"]);
    rig.send("a", vec![on_host(KvEvent::BlockStored(stored("a", b"x", 0)))]);
    rig.index.apply(&Command::Register(Box::new(WorkerSpec { model: "n".into(), ..spec("a") })));
    let name = BlockStored { block_hashes: vec![engine_hash("a", b"x")], ..BlockStored::default() };
    rig.send("a", vec![KvEvent::BlockStored(name)]);
    let Command::Events(mut cleared) = rig.next_batch("a", Vec::new()) else { panic!("events") };
    cleared.batches[0].changes = [Change::Cleared { tier: Some(Tier::Host) }].into();
    rig.index.apply(&Command::Events(cleared));
    for index in [&rig.index, &restored(&rig.index)] {
        assert_eq!(held(index), on(&Tier::Device, b"x", &[0]), "the device is all that is left");
        assert_eq!(scores(index, b"x"), []);
        assert!(scores_beside(index, b"x").is_none_or(|scores| scores.is_empty()));
    }
}

#[test]
fn a_name_without_place_is_placed_on_the_tier_that_woke_the_others() {
    let mut rig = Rig::new(&["a"]);
    let orphans = KvEvent::BlockStored(stored("a", b"rxy", 1));
    let name = BlockStored {
        block_hashes: vec![engine_hash("a", b"rx")],
        tier: Tier::Host,
        ..BlockStored::default()
    };
    rig.send("a", vec![orphans]);
    rig.send("a", vec![KvEvent::BlockStored(name)]);
    assert_eq!(held(&rig.index), Held::new(), "nothing says yet where they lie");
    let outcome = rig.send("a", vec![on_host(KvEvent::BlockStored(stored("a", b"r", 0)))]);
    assert_eq!(outcome.joined, 3, "two orphans on the device, and the name on the host");
    let mut expected = on(&Tier::Host, b"rxy", &[0, 1]);
    expected.extend(on(&Tier::Device, b"rxy", &[1, 2]));
    assert_eq!(held(&rig.index), expected);
    assert_eq!(held(&restored(&rig.index)), expected);
}

#[test]
fn followers_hear_of_the_place_that_the_devices_word_takes_away() {
    let mut rig = Rig::new(&["a"]);
    let salt = vec![vec![ExtraKey::Text("s".into())], vec![]];
    let salted = BlockStored { carries_extra_keys: true, extra_keys: salt, ..stored("a", b"xy", 0) };
    let events = [on_host(KvEvent::BlockStored(stored("a", b"xy", 0))), KvEvent::BlockStored(salted)];
    let (mut followed, mut taken) = (Held::new(), Held::new());
    for event in events {
        let command = rig.next_batch("a", vec![event]);
        rig.index.apply_noticed(&command, &mut |notice| match notice {
            Notice::Stored { tier, blocks, .. } => {
                followed.extend(blocks.iter().map(|block| (tier.clone(), *block)));
            }
            Notice::Removed { tier, block, .. } => {
                taken.extend([(tier.clone(), block)]);
                followed.remove(&(tier.clone(), block));
            }
            _ => {}
        });
        assert_eq!(followed, held(&rig.index), "followers know what is held, and no more");
    }
    assert_eq!(taken, on(&Tier::Host, b"xy", &[0, 1]));
}

/// Blocks of these names, each with tokens that go with its name, below another name.
fn named(names: &[u64], parent: Option<u64>) -> BlockStored {
    let letters: Vec<u8> = names.iter().map(|name| b'A' + *name as u8).collect();
    BlockStored {
        block_hashes: names.iter().copied().map(EngineBlockHash).collect(),
        parent: parent.map(EngineBlockHash),
        ..stored("a", &letters, 0)
    }
}

#[test]
fn a_tier_is_corrected_by_who_placed_a_block_not_by_who_woke_it() {
    let (mut rig, mut naive) = (Rig::new(&["a"]), Naive::new(IndexLimits::default().max_orphans_per_owner));
    naive.apply(&Command::Register(Box::new(spec("a"))));
    let gone =
        BlockRemoved { block_hashes: [0, 13].map(EngineBlockHash).to_vec(), ..BlockRemoved::default() };
    let events = [
        KvEvent::BlockStored(named(&[9, 13, 0], None)),
        on_host(KvEvent::BlockStored(named(&[10], Some(3)))),
        KvEvent::BlockStored(named(&[1, 12, 7, 2], Some(0))),
        KvEvent::BlockRemoved(gone),
        on_host(KvEvent::BlockStored(named(&[0], Some(3)))),
        KvEvent::BlockStored(named(&[0], Some(10))),
        KvEvent::BlockStored(named(&[3], Some(2))),
    ];
    for event in events {
        let command = rig.next_batch("a", vec![event]);
        assert_eq!(rig.index.apply(&command), naive.apply(&command));
        rig.index.check_invariants().unwrap();
        let reader = rig.index.reader();
        let entries = reader.entries().map(|(stream, tier, _, namespace, block, copies)| {
            (&stream.worker, stream.dp_rank, tier, namespace, block, copies)
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_unstable();
        assert_eq!(entries, View::of(&naive).placed());
    }
}
