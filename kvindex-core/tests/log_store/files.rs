//! Files that end early or have wrong bytes: what is there must be right, or refused.

use kvindex_core::replication::ShardId;
use kvindex_core::replication::log_store::{BackendKind, Durability, LogBackend};
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

use crate::stores::{ON_DISK, append, checked_length, open};

const SHARD: ShardId = ShardId(0);
const BATCHES: u64 = 12;

/// A log of batches of three entries each, and the end of its journal after each of them.
async fn written(kind: BackendKind, bytes: usize) -> (TempDir, Vec<u64>) {
    let folder = TempDir::new().unwrap();
    let backend = open(kind, folder.path(), Durability::Fsync).unwrap();
    let mut ends = Vec::new();
    for batch in 0..BATCHES {
        let changes = (batch * 3..batch * 3 + 3).map(|index| append(SHARD, index, bytes)).collect();
        backend.commit(changes, true).await.unwrap();
        ends.push(end_of_data(&journal(kind, folder.path())));
    }
    drop(backend);
    if kind == BackendKind::Fjall {
        // 64 MiB of zeros lie ahead of the journal's end; copies need only some.
        let file = OpenOptions::new().write(true).open(journal(kind, folder.path())).unwrap();
        file.set_len(ends.last().unwrap() + 9000).unwrap();
    }
    (folder, ends)
}

fn journal(kind: BackendKind, folder: &Path) -> PathBuf {
    match kind {
        BackendKind::Fjall => folder.join("fjall/0.jnl"),
        _ => folder.join("sled/db"),
    }
}

fn end_of_data(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// A copy of a directory, to be damaged.
fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    copy_into(from, to.path());
    to
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn zero(file: &Path, from: u64, bytes: usize) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&vec![0; bytes]).unwrap();
}

/// How many entries a copy has; it must open, and take a new entry after the last one.
async fn entries_of_usable(kind: BackendKind, folder: &Path, bytes: usize) -> u64 {
    let backend = opened_again(kind, folder);
    let length = checked_length(&*backend, SHARD, bytes).await.unwrap();
    backend.commit(vec![append(SHARD, length, bytes)], true).await.unwrap();
    drop(backend);
    let backend = opened_again(kind, folder);
    assert_eq!(checked_length(&*backend, SHARD, bytes).await, Ok(length + 1));
    length
}

/// Engines have threads that let go of the files a moment after the last handle is gone.
fn opened_again(kind: BackendKind, folder: &Path) -> Arc<dyn LogBackend> {
    for _ in 0..100 {
        match open(kind, folder, Durability::Fsync) {
            Err(error) if error.to_string().contains("has this log open") => {
                std::thread::sleep(Duration::from_millis(50));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("{kind}: still open after 5 s");
}

/// A file cut in its last commit opens without it: it may not have been acknowledged. Cut before, it is refused, or at
/// least says what is missing.
#[tokio::test]
async fn cut_files_open_or_are_refused() {
    for kind in ON_DISK {
        let (whole, ends) = written(kind, 700).await;
        let &[.., before, last] = ends.as_slice() else { panic!("{ends:?}") };
        let edges = ends.iter().flat_map(|end| [end - 1, *end, end + 1]);
        let (mut refused, mut opened) = (0, 0);
        for cut in edges.chain((0..last).step_by(1997)).filter(|cut| *cut <= last) {
            let folder = copy(whole.path());
            OpenOptions::new().write(true).open(journal(kind, folder.path())).unwrap().set_len(cut).unwrap();
            match open(kind, folder.path(), Durability::Fsync) {
                Ok(backend) => {
                    drop(backend);
                    opened += 1;
                    assert!(
                        entries_of_usable(kind, folder.path(), 700).await >= (BATCHES - 1) * 3,
                        "{kind}, {cut}"
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("has to be put aside"), "{error}");
                    assert!(kind == BackendKind::Sled || cut < before, "{cut} of {before}, {last}: {error}");
                }
            }
        }
        assert!(refused > 10 && opened > 0, "{kind}: {refused} refused, {opened} opened");
    }
}

/// The last batch with any of its sectors missing, its end included or not: it was not acknowledged, and goes.
#[tokio::test]
async fn a_torn_last_batch_is_cut_off() {
    for bytes in [300, 16 << 10] {
        let (whole, ends) = written(BackendKind::Fjall, bytes).await;
        let &[.., before, end] = ends.as_slice() else { panic!("{ends:?}") };
        let sectors = (before / 512..end.div_ceil(512)).map(|sector| (sector * 512).max(before));
        for from in sectors.step_by(if bytes > 4096 { 7 } else { 1 }) {
            let folder = copy(whole.path());
            let length = (512 - from % 512).min(end - from);
            zero(&journal(BackendKind::Fjall, folder.path()), from, usize::try_from(length).unwrap());
            let length = entries_of_usable(BackendKind::Fjall, folder.path(), bytes).await;
            assert_eq!(length, (BATCHES - 1) * 3, "sector at {from}");
        }
    }
}

/// Damage before sound entries is refused, and says where. fjall alone would drop what follows, or fail without
/// saying why.
#[tokio::test]
async fn damage_inside_fjalls_journal_is_refused() {
    let (whole, ends) = written(BackendKind::Fjall, 700).await;
    for from in (0..ends[ends.len() - 2]).step_by(211) {
        let folder = copy(whole.path());
        zero(&journal(BackendKind::Fjall, folder.path()), from, 16);
        match open(BackendKind::Fjall, folder.path(), Durability::Fsync) {
            // The sixteen bytes may have been zeros.
            Ok(backend) => assert_eq!(checked_length(&*backend, SHARD, 700).await, Ok(BATCHES * 3)),
            Err(error) => {
                let text = error.to_string();
                for part in ["0.jnl is damaged at byte", "has to be put aside", "new id"] {
                    assert!(text.contains(part), "{text}");
                }
            }
        }
    }
}

/// Whatever is wrong with a file, no wrong entry is served, and none is lost without a word.
#[tokio::test]
async fn damage_is_found() {
    for kind in ON_DISK {
        let (whole, ends) = written(kind, 700).await;
        let last = *ends.last().unwrap();
        let mut found = 0;
        for from in (0..last).step_by(1733) {
            let folder = copy(whole.path());
            let file = journal(kind, folder.path());
            let mut bytes = fs::read(&file).unwrap();
            bytes[usize::try_from(from).unwrap()] ^= 0x41;
            fs::write(&file, bytes).unwrap();
            let Ok(backend) = open(kind, folder.path(), Durability::Fsync) else {
                found += 1;
                continue;
            };
            match checked_length(&*backend, SHARD, 700).await {
                // The last commit alone may be gone: it cannot be told from a torn one.
                Ok(length) => assert!(length >= (BATCHES - 1) * 3, "{kind}, byte {from}: {length} entries"),
                Err(text) => {
                    found += 1;
                    assert!(!text.contains("another one"), "{kind}, byte {from}: {text}");
                }
            }
        }
        assert!(found > 5, "{kind}: nothing was damaged");
    }
}
