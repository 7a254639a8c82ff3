//! Any bytes as a log entry: nothing panics, what is read can be written and reads the same, and it is in proportion
//! to the bytes. Run with `cargo +nightly fuzz run entry`.
#![no_main]

use kvindex_core::replication::{ShardCommand, decode, encode};
use kvindex_core::{Change, Command};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|entry: &[u8]| {
    let Ok(commands) = decode(entry) else { return };
    assert!(hashes(&commands) <= 17 * entry.len() / 8, "more hashes than the bytes justify");
    let again = encode(&commands).expect("what was read can be written");
    assert_eq!(decode(&again).as_ref(), Ok(&commands));
});

fn hashes(commands: &[ShardCommand]) -> usize {
    let batches = commands.iter().flat_map(|command| match command {
        ShardCommand::Index(Command::Events(events)) => events.batches.as_slice(),
        _ => &[],
    });
    let changes = batches.flat_map(|batch| &batch.changes);
    let hashes = changes.map(|change| match change {
        Change::Stored(run) => run.engine_hashes.len() + run.local_hashes.len(),
        Change::Removed { hashes, .. } => hashes.len(),
        Change::Cleared { .. } | Change::Unreadable => 0,
    });
    hashes.sum()
}
