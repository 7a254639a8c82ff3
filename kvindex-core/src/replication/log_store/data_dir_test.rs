//! Directories that are not this log, and how a log was left.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use tempfile::TempDir;

use super::backend::{BackendKind, Durability};
use super::data_dir::DataDir;
use super::error::LogError;
use super::{FjallBackend, SledBackend};

fn take(path: &Path, durability: Durability, boot: &str) -> Result<DataDir, LogError> {
    let mut dir = DataDir::take_in_boot(path, BackendKind::Fjall, durability, boot)?;
    dir.founded()?;
    Ok(dir)
}

/// Whether the tail may be gone at a second opening.
fn doubt(durability: Durability, boot: &str, close: bool) -> bool {
    let folder = TempDir::new().unwrap();
    let mut dir = take(folder.path(), durability, "first").unwrap();
    assert!(!dir.tail_may_be_gone());
    if close {
        dir.close().unwrap();
    }
    drop(dir);
    let doubt = take(folder.path(), durability, boot).unwrap().tail_may_be_gone();
    // It stays: a third opening, in the same boot as the second, must not forget.
    assert_eq!(
        take(folder.path(), durability, boot).unwrap().tail_may_be_gone(),
        doubt || boot.is_empty() && !close && durability != Durability::Fsync
    );
    doubt
}

#[test]
fn the_tail_may_be_gone_after_a_loss_of_power_without_flushes() {
    for durability in [Durability::ASYNC, Durability::Memory] {
        assert!(doubt(durability, "second", false));
        assert!(doubt(durability, "", false), "a boot without a name is another one");
        assert!(!doubt(durability, "first", false), "a killed process loses nothing");
        assert!(!doubt(durability, "second", true), "it was closed");
    }
    assert!(!doubt(Durability::Fsync, "second", false));
}

#[test]
fn another_durability_does_not_hide_the_doubt() {
    let folder = TempDir::new().unwrap();
    drop(take(folder.path(), Durability::ASYNC, "first").unwrap());
    assert!(take(folder.path(), Durability::Fsync, "second").unwrap().tail_may_be_gone());
}

fn fjall(path: &Path) -> String {
    FjallBackend::open(path, Durability::Fsync).unwrap_err().to_string()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
}

#[test]
fn the_other_engines_directory_is_refused() {
    let folder = TempDir::new().unwrap();
    drop(SledBackend::open(folder.path(), Durability::Fsync).unwrap());
    says(
        &fjall(folder.path()),
        &["written by sled", "set the log store to sled", "put this directory aside"],
    );
    let folder = TempDir::new().unwrap();
    drop(FjallBackend::open(folder.path(), Durability::Fsync).unwrap());
    let error = SledBackend::open(folder.path(), Durability::Fsync).unwrap_err().to_string();
    says(&error, &["written by fjall", "set the log store to fjall"]);
}

#[test]
fn foreign_directories_are_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("letters"), "dear").unwrap();
    says(&fjall(folder.path()), &["this is no log", "letters", "Put this directory aside"]);
    assert_eq!(fs::read(folder.path().join("letters")).unwrap(), b"dear");
    let file = folder.path().join("letters");
    says(&fjall(&file), &["cannot be used"]);
}

#[test]
fn truncated_directories_are_refused() {
    let folder = TempDir::new().unwrap();
    drop(FjallBackend::open(folder.path(), Durability::Fsync).unwrap());
    let marker = folder.path().join("log-store");
    let whole = fs::read_to_string(&marker).unwrap();
    for length in 0..whole.len() - 1 {
        fs::write(&marker, &whole[..length]).unwrap();
        says(&fjall(folder.path()), &["no usable log", "Put this directory aside"]);
    }
    fs::write(&marker, whole.replace("format 1", "format 2")).unwrap();
    says(&fjall(folder.path()), &["its format is 2"]);
    fs::write(&marker, &whole).unwrap();
    drop(FjallBackend::open(folder.path(), Durability::Fsync).unwrap());
    fs::remove_dir_all(folder.path().join("fjall")).unwrap();
    says(&fjall(folder.path()), &["the folder fjall is missing", "Put this directory aside"]);
}

#[test]
fn one_process_at_a_time() {
    let folder = TempDir::new().unwrap();
    let first = FjallBackend::open(folder.path(), Durability::Fsync).unwrap();
    says(&fjall(folder.path()), &["another process has this log open"]);
    drop(first);
    drop(FjallBackend::open(folder.path(), Durability::Fsync).unwrap());
}

/// A founding that was cut short left nothing that was acknowledged: it is begun again.
#[test]
fn a_founding_is_begun_again() {
    let folder = TempDir::new().unwrap();
    let dir = DataDir::take(folder.path(), BackendKind::Fjall, Durability::Fsync).unwrap();
    fs::write(dir.engine_folder().join("lock"), "").unwrap();
    drop(dir);
    drop(FjallBackend::open(folder.path(), Durability::Fsync).unwrap());
}
