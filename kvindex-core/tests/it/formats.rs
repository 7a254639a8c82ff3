//! Golden bytes: what is persisted or sent never changes unnoticed. A new version gets new bytes beside these.

use kvindex_core::{
    Command, EngineBlockHash, ForgottenBlocks, Generation, Group, Index, IndexLimits, KvEvent, Registration,
    Tier,
};

use crate::rig::{Rig, ask, removed, stored, stream};

fn history() -> (Rig, Vec<Command>) {
    let mut rig = Rig::new(&["a", "b"]);
    let mut commands = Vec::new();
    let events = [
        ("a", KvEvent::BlockStored(stored("a", b"xyz", 0))),
        ("b", KvEvent::BlockStored(stored("b", b"xyw", 0))),
        ("a", KvEvent::BlockStored(stored("a", b"xyz", 0))),
        ("a", KvEvent::BlockRemoved(removed("a", b"xy"))),
        ("b", KvEvent::BlockStored(stored("b", b"qrs", 1))),
        ("b", KvEvent::AllBlocksCleared),
        ("b", KvEvent::BlockStored(stored("b", b"pqr", 1))),
    ];
    for (worker, event) in events {
        let command = rig.next_batch(worker, vec![event]);
        rig.index.apply(&command);
        commands.push(command);
    }
    (rig, commands)
}

/// Compares with the kept file; set `KVINDEX_WRITE_GOLDEN=1` to write one for a new version.
pub(crate) fn golden(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("KVINDEX_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    assert!(kept == bytes, "{name} changed: {} bytes kept, {} now", kept.len(), bytes.len());
}

#[test]
fn snapshot_version_5() {
    let (rig, _) = history();
    golden("snapshot-v5.bin", &rig.index.snapshot());
    let kept = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshot-v5.bin")).unwrap();
    let restored = Index::restore(&kept, IndexLimits::default()).unwrap();
    assert_eq!(restored.digest(), rig.index.digest());
    assert_eq!(restored.snapshot(), kept);
    assert_eq!(ask(&restored, b"xyz"), ask(&rig.index, b"xyz"));
}

/// The same history as versions 2 to 4 wrote it: nothing is lost but when runs were touched, and digests of payloads,
/// of which there are none. Registrations had no numbers, as they have none here.
#[test]
fn snapshots_of_versions_2_to_4_are_read() {
    let (rig, _) = history();
    for kept in [
        &include_bytes!("../golden/snapshot-v2.bin")[..],
        include_bytes!("../golden/snapshot-v3.bin"),
        include_bytes!("../golden/snapshot-v4.bin"),
    ] {
        let restored = Index::restore(kept, IndexLimits::default()).unwrap();
        assert_eq!(restored.digest(), rig.index.digest());
        assert_eq!(ask(&restored, b"xyz"), ask(&rig.index, b"xyz"));
    }
}

/// The same history as the release before wrote it: the answers are the same.
#[test]
fn snapshot_version_1_is_read() {
    let (rig, _) = history();
    let restored =
        Index::restore(include_bytes!("../golden/snapshot-v1.bin"), IndexLimits::default()).unwrap();
    for path in [&b"xyz"[..], b"xyw", b"pqr"] {
        let blocks = |index: &Index| {
            ask(index, path).iter().map(|w| (w.block_size, w.matched_blocks)).collect::<Vec<_>>()
        };
        assert_eq!(blocks(&restored), blocks(&rig.index));
    }
}

#[test]
fn commands_version_4() {
    let (rig, commands) = history();
    let bytes = rmp_serde::to_vec(&commands).unwrap();
    golden("commands-v4.bin", &bytes);
    let read: Vec<Command> = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(read, commands);
    let before: Vec<Command> = rmp_serde::from_slice(include_bytes!("../golden/commands-v3.bin")).unwrap();
    assert_eq!(before, commands, "version 3 did not say for which registration");
    let mut again = Rig::new(&["a", "b"]);
    for command in &read {
        again.index.apply(command);
    }
    assert_eq!(again.index.digest(), rig.index.digest());
}

/// A command of its own, so that logs of older releases keep their bytes.
#[test]
fn eviction_as_a_command() {
    let command = Command::Evict { entries: 1000, at_ms: 5 };
    let bytes = rmp_serde::to_vec(&command).unwrap();
    golden("evict-v1.bin", &bytes);
    assert_eq!(rmp_serde::from_slice::<Command>(&bytes).unwrap(), command);
}

#[test]
fn forgetting_as_a_command() {
    let command = Command::Forget(ForgottenBlocks {
        stream: stream("a"),
        generation: Generation(3),
        tier: Tier::Host,
        group: Group(1),
        hashes: vec![EngineBlockHash(0x1122), EngineBlockHash(7)],
        at_ms: 5,
        registration: Registration(0),
    });
    let bytes = rmp_serde::to_vec(&command).unwrap();
    golden("forget-v2.bin", &bytes);
    assert_eq!(rmp_serde::from_slice::<Command>(&bytes).unwrap(), command);
    let before = include_bytes!("../golden/forget-v1.bin");
    assert_eq!(rmp_serde::from_slice::<Command>(before).unwrap(), command);
}

/// 16 bytes a block and little around it: what consensus will have to carry.
#[test]
fn a_stored_run_costs_sixteen_bytes_a_block() {
    let mut rig = Rig::new(&["a"]);
    let path = vec![b'x'; 1000];
    let command = rig.next_batch("a", vec![KvEvent::BlockStored(stored("a", &path, 0))]);
    let bytes = rmp_serde::to_vec(&command).unwrap();
    assert!(bytes.len() < 16 * 1000 + 100, "{} bytes", bytes.len());
}

#[test]
fn newer_and_foreign_files_are_told_apart() {
    let (rig, _) = history();
    let mut bytes = rig.index.snapshot();
    bytes[8] = 9;
    let newer = Index::restore(&bytes, IndexLimits::default()).unwrap_err();
    assert!(newer.to_string().contains("version 9 is newer"), "{newer}");
    let foreign =
        Index::restore(b"PK\x03\x04 something else altogether", IndexLimits::default()).unwrap_err();
    assert_eq!(foreign.to_string(), "not a kvindex snapshot");
}
