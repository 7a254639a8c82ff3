//! Rounds of killed processes and losses of power: nothing acknowledged may be lost.
//!
//! A child process appends to three shards and says what was acknowledged; it is killed, or loses power by way of
//! `powerloss.c`, which takes back what was not flushed. Then the log is opened, and must hold all the child said.
//! The table: `just crash-rounds`. A child that does not flush is the control: it has to lose.

use bytes::Bytes;
use kvindex_core::replication::ShardId;
use kvindex_core::replication::log_store::{
    BackendKind, Change, Durability, LogStore, Mark, StoredShard, Urgency,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::stores::{ON_DISK, open, record};

const CHILD: &str = "KVINDEX_CRASH_CHILD";
/// What a child says when its log is open.
const READY: &str = "ready";
const SHARDS: u16 = 3;
const BATCH: u64 = 16;
/// So many entries stay in a shard's log.
const KEPT: u64 = 600;

/// Small ones, some of the usual size of an entry, and a few that sled keeps in files of their own.
fn size(index: u64) -> usize {
    match index {
        index if index % 97 == 5 => 200_000,
        index if index.is_multiple_of(5) => 16 << 10,
        _ => 1 << 10,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Power,
    /// A random half of what was not flushed is there nevertheless, in pieces of 4 KiB.
    Torn,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kill => "SIGKILL",
            Self::Power => "power loss",
            Self::Torn => "power loss, torn",
        })
    }
}

/// What was acknowledged of a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Acknowledged {
    /// Entries before this one.
    next: u64,
    vote: u64,
}

fn vote(number: u64) -> Bytes {
    record(ShardId(999), number, 33)
}

/// The first index that counts.
fn purged(stored: &StoredShard) -> u64 {
    stored.purged.as_ref().map_or(0, |bytes| u64::from_le_bytes(bytes.as_ref().try_into().unwrap()))
}

/// Appends until something stops it. Not a test: the rounds start it as a process of its own.
#[test]
#[ignore = "a child process of the crash rounds"]
fn child() {
    let Ok(spec) = std::env::var(CHILD) else { return };
    let [engine, durability, folder] = spec.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let durability = match durability {
        "fsync" => Durability::Fsync,
        "async" => Durability::ASYNC,
        _ => Durability::Memory,
    };
    Runtime::new().unwrap().block_on(async {
        let backend = open(engine.parse().unwrap(), Path::new(folder), durability).unwrap();
        let store = LogStore::start(backend.clone(), durability);
        say(READY);
        let mut shards = tokio::task::JoinSet::new();
        for shard in (0..SHARDS).map(ShardId) {
            let stored = backend.shard(shard).await.unwrap();
            let next = stored.last.map_or(0, |last| last + 1);
            // Votes are flushed always, and all before them: the control must not have many.
            let votes_every = if durability == Durability::Memory { 60 } else { 10 };
            let begin = stored.first.unwrap_or(0).max(purged(&stored));
            shards.spawn(work(store.clone(), shard, begin..next, votes_every * BATCH));
        }
        shards.join_all().await;
    });
}

/// Appends, purges and votes as one shard.
async fn work(store: LogStore, shard: ShardId, log: Range<u64>, votes_every: u64) {
    let (mut first, mut next) = (log.start, log.end);
    let mut votes = next;
    loop {
        let append = |index| Change::Append { shard, index, record: record(shard, index, size(index)) };
        store.write((next..next + BATCH).map(append).collect(), Urgency::Ordinary).await.unwrap();
        next += BATCH;
        say(&format!("entries {} {next}", shard.0));
        if next.is_multiple_of(votes_every) {
            votes += 1;
            let change = Change::Mark { shard, mark: Mark::Vote, record: vote(votes) };
            store.write(vec![change], Urgency::Flushed).await.unwrap();
            say(&format!("vote {} {votes}", shard.0));
        }
        if next - first > KEPT + 100 {
            let last = next - KEPT;
            // The mark goes first, as in a raft log: a removal may be cut short.
            let record = Bytes::copy_from_slice(&(last + 1).to_le_bytes());
            let mark = Change::Mark { shard, mark: Mark::Purged, record };
            let purge = vec![mark, Change::Remove { shard, first, last }];
            store.write(purge, Urgency::Ordinary).await.unwrap();
            first = last + 1;
        }
    }
}

/// One line, whole, past the test harness's own output.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Runs a child until the fault stops it; what it said goes into `known`. The time counts from when its log is open,
/// or with `opening` from before.
fn run_child(
    known: &mut BTreeMap<u16, Acknowledged>,
    folder: &Path,
    (engine, durability, fault): (BackendKind, &str, Fault),
    (shim, after, opening): (&Path, Duration, bool),
) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child", "--ignored", "--nocapture"]);
    command.env(CHILD, format!("{engine} {durability} {}", folder.display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if fault != Fault::Kill {
        // The shim compares paths as the kernel names them.
        let folder = folder.canonicalize().unwrap();
        command.env("LD_PRELOAD", shim).env("PL_DIR", folder).env("PL_SFR", "none");
        command.env("PL_KEEP", if fault == Fault::Torn { "50" } else { "0" });
        command.env("PL_MS", after.as_millis().to_string());
        if !opening {
            command.env("PL_MARK", READY);
        }
    }
    let mut child = command.spawn().unwrap();
    let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (opened, is_open) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let (mut stdout, mut text) = (BufReader::new(stdout), String::new());
        while stdout.read_line(&mut text).unwrap() > 0 {
            if text.ends_with("ready\n") {
                opened.send(()).unwrap();
            }
        }
        text
    });
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    if fault == Fault::Kill {
        if !opening {
            is_open.recv().unwrap();
        }
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let (text, errors) = (reader.join().unwrap(), errors.join().unwrap().unwrap());
    let expected = if fault == Fault::Kill { None } else { Some(77) };
    assert_eq!(status.code(), expected, "the child stopped by itself: {text}{errors}");
    if fault != Fault::Kill {
        // A shim that sees no writes would lose nothing, and show nothing.
        let writes = errors
            .split("POWERLOSS writes=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        assert!(writes.is_some_and(|writes| writes > 0), "the shim saw no writes: {errors}");
    }
    // The last line may be cut.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        let (what, shard, number) = (words.next(), words.next(), words.next());
        let Some((shard, number)) =
            shard.and_then(|s| s.parse().ok()).zip(number.and_then(|n| n.parse().ok()))
        else {
            continue;
        };
        match what {
            Some("entries") => known.entry(shard).or_default().next = number,
            Some("vote") => known.entry(shard).or_default().vote = number,
            _ => {}
        }
    }
}

/// What a round found.
#[derive(Debug, Default)]
struct Found {
    rounds: u32,
    acknowledged: u64,
    lost: u64,
    lost_votes: u64,
    refused: u32,
}

/// Opens what the child left, and compares.
async fn check(
    found: &mut Found,
    known: &mut BTreeMap<u16, Acknowledged>,
    folder: &Path,
    engine: BackendKind,
) {
    let backend = match open(engine, folder, Durability::Fsync) {
        Ok(backend) => backend,
        Err(error) => {
            println!("{engine}: {error}");
            found.refused += 1;
            return;
        }
    };
    for shard in (0..SHARDS).map(ShardId) {
        let known = known.entry(shard.0).or_default();
        let stored = backend.shard(shard).await.unwrap();
        let next = stored.last.map_or(0, |last| last + 1);
        found.lost += known.next.saturating_sub(next);
        if let Some((first, last)) = stored.first.zip(stored.last) {
            let first = first.max(purged(&stored));
            let entries = match backend.read(shard, first, last, usize::MAX).await {
                Ok(entries) => entries,
                Err(error) => {
                    println!("{engine}: {error}");
                    found.refused += 1;
                    return;
                }
            };
            assert_eq!(entries.len() as u64, last - first + 1, "{engine}, {shard}: holes");
            for (index, bytes) in entries {
                assert!(
                    bytes == record(shard, index, size(index)),
                    "{engine}, {shard}: entry {index} is another one"
                );
            }
        }
        // A vote may have been kept without its acknowledgement, but only the one after.
        let kept = (known.vote..=known.vote + 1).any(|number| stored.vote == Some(vote(number)));
        found.lost_votes += u64::from(known.vote > 0 && !kept);
        // The next round goes on from what is there.
        known.next = next;
    }
}

fn rounds(engine: BackendKind, durability: &str, fault: Fault, rounds: u32, shim: &Path) -> Found {
    let folder = TempDir::new().unwrap();
    let runtime = Runtime::new().unwrap();
    let (mut found, mut known) = (Found::default(), BTreeMap::new());
    for round in 0..rounds {
        let before: u64 = known.values().map(|known: &Acknowledged| known.next).sum();
        // Votes are numbered from the log's length on, anew for each child.
        known.values_mut().for_each(|known| known.vote = 0);
        let after = Duration::from_millis(u64::from(100 + round * 173 % 500));
        run_child(&mut known, folder.path(), (engine, durability, fault), (shim, after, round % 4 == 3));
        let acknowledged: u64 = known.values().map(|known| known.next).sum();
        found.rounds += 1;
        found.acknowledged += acknowledged.saturating_sub(before);
        runtime.block_on(check(&mut found, &mut known, folder.path(), engine));
        if found.refused > 0 {
            break;
        }
    }
    found
}

/// Compiles the shim.
fn shim(folder: &TempDir) -> PathBuf {
    let target = folder.path().join("powerloss.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/log_store/powerloss.c");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O2", "-w", "-o"])
        .arg(&target)
        .arg(source)
        .args(["-ldl", "-lpthread"]);
    let status = compiler.status().expect("a C compiler named cc");
    assert!(status.success(), "powerloss.c does not compile");
    target
}

fn print_row(engine: BackendKind, durability: &str, fault: Fault, found: &Found) {
    let Found { rounds, acknowledged, lost, lost_votes, refused } = found;
    println!(
        "| {engine} | {durability} | {fault} | {rounds} | {acknowledged} | {lost} | {lost_votes} | {refused} |"
    );
}

/// All faults on both engines, and the control.
fn table(count: u32) {
    let folder = TempDir::new().unwrap();
    let shim = shim(&folder);
    println!("| engine | durability | fault | rounds | acknowledged entries | lost | votes lost | refused |");
    println!("|---|---|---|---|---|---|---|---|");
    let cases =
        [("fsync", Fault::Kill), ("fsync", Fault::Power), ("fsync", Fault::Torn), ("async", Fault::Kill)];
    let mut failed = Vec::new();
    for engine in ON_DISK {
        for (durability, fault) in cases {
            let found = rounds(engine, durability, fault, count, &shim);
            print_row(engine, durability, fault, &found);
            if found.lost + found.lost_votes + u64::from(found.refused) > 0 || found.acknowledged == 0 {
                failed.push((engine, durability, fault));
            }
        }
        let found = rounds(engine, "none", Fault::Power, count, &shim);
        print_row(engine, "none (control)", Fault::Power, &found);
        assert!(
            found.lost > 0 || found.refused > 0,
            "{engine}: the control loses nothing, so the rounds show nothing"
        );
        assert_eq!(found.lost_votes, 0, "{engine}: votes are flushed always");
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn two_rounds_lose_nothing() {
    table(2);
}

#[test]
#[ignore = "minutes; `just crash-rounds`"]
fn twenty_rounds_lose_nothing() {
    table(20);
}
