//! What the log store's engines cost, beside each other in one run: durable batches of one writer, group commit over
//! eight shards, and the disk that is left when a log is purged as it grows. For docs/decisions/0012-log-store.md.
//!
//! `cargo run --release -p kvindex-core --features replication --example log_store -- [directory] [rounds]`

use bytes::Bytes;
use kvindex_core::replication::ShardId;
use kvindex_core::replication::log_store::{
    BackendKind, Change, Durability, FjallBackend, LogBackend, LogError, LogStore, MemoryBackend,
    SledBackend, Urgency,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ENGINES: [BackendKind; 2] = [BackendKind::Fjall, BackendKind::Sled];
const MEASURED: Duration = Duration::from_secs(3);
const SHARDS: u16 = 8;

fn open(kind: BackendKind, folder: &Path, durability: Durability) -> Result<Arc<dyn LogBackend>, LogError> {
    let _ = std::fs::remove_dir_all(folder);
    Ok(match kind {
        BackendKind::Fjall => Arc::new(FjallBackend::open(folder, durability)?),
        BackendKind::Sled => Arc::new(SledBackend::open(folder, durability)?),
        BackendKind::Memory => Arc::new(MemoryBackend::default()),
    })
}

/// Bytes that do not compress.
fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

/// CPU seconds and bytes written by this process so far, as the kernel counts them.
fn used() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0);
    #[allow(clippy::cast_precision_loss)]
    (ticks as f64 / 100.0, written)
}

/// One writer, 64 records of 4 KiB a batch, each batch flushed.
#[allow(clippy::cast_precision_loss)]
async fn batches(kind: BackendKind, folder: &Path) -> Result<f64, LogError> {
    let backend = open(kind, folder, Durability::Fsync)?;
    let records: Vec<_> = (0..64).map(|seed| noise(4 << 10, seed)).collect();
    let (cpu, written) = used();
    let (begin, mut times, mut index) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < MEASURED {
        let started = Instant::now();
        let changes = records.iter().map(|record| {
            index += 1;
            Change::Append { shard: ShardId(0), index, record: record.clone() }
        });
        backend.commit(changes.collect(), true).await?;
        times.push(started.elapsed());
    }
    let seconds = begin.elapsed().as_secs_f64();
    drop(backend);
    let (cpu_after, written_after) = used();
    times.sort();
    let bytes = times.len() as f64 * f64::from(256 << 10);
    let at =
        |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let rate = times.len() as f64 / seconds;
    println!(
        "| {kind} | {rate:.0} | {:.0} | {:.2} / {:.2} | {:.2} | {:.1} |",
        bytes / seconds / f64::from(1 << 20),
        at(50),
        at(99),
        (written_after - written) as f64 / bytes,
        (cpu_after - cpu) / (bytes / f64::from(1 << 30)),
    );
    Ok(rate)
}

/// Eight shards, each with one entry of 16 KiB on its way at any time.
#[allow(clippy::cast_precision_loss)]
async fn group_commit(kind: BackendKind, folder: &Path, durability: Durability) -> Result<(), LogError> {
    let store = LogStore::start(open(kind, folder, durability)?, durability);
    let mut shards = tokio::task::JoinSet::new();
    let begin = Instant::now();
    for shard in (0..SHARDS).map(ShardId) {
        let (store, record) = (store.clone(), noise(16 << 10, shard.0.into()));
        shards.spawn(async move {
            let mut index = 0;
            while begin.elapsed() < MEASURED {
                let change = Change::Append { shard, index, record: record.clone() };
                store.write(vec![change], Urgency::Ordinary).await?;
                index += 1;
            }
            Ok::<_, LogError>(index)
        });
    }
    let mut entries = 0;
    for done in shards.join_all().await {
        entries += done?;
    }
    let rate = entries as f64 / begin.elapsed().as_secs_f64();
    store.close().await?;
    println!("| {kind} | {} | {rate:.0} | {:.0} |", durability.name(), rate / 64.0);
    Ok(())
}

/// Appends 1 GiB over eight shards, never keeping more than 64 MiB of it.
async fn purged(kind: BackendKind, folder: &Path) -> Result<(), LogError> {
    const KEPT: u64 = 512;
    let begin = Instant::now();
    let backend = open(kind, folder, Durability::Fsync)?;
    let record = noise(16 << 10, 1);
    let (mut most, rounds) = (0, 8192 / 32);
    for round in 0..rounds {
        for shard in (0..SHARDS).map(ShardId) {
            let from = round * 32;
            let append = |index| Change::Append { shard, index, record: record.clone() };
            let mut changes: Vec<_> = (from..from + 32).map(append).collect();
            if from >= KEPT {
                let first = from - KEPT;
                changes.push(Change::Remove { shard, first, last: first + 31 });
            }
            backend.commit(changes, round % 8 == 0).await?;
        }
        most = most.max(folder_bytes(folder));
    }
    backend.close().await?;
    drop(backend);
    let left = folder_bytes(folder);
    println!("| {kind} | {} | {} | {:.1} |", most >> 20, left >> 20, begin.elapsed().as_secs_f64());
    Ok(())
}

/// Bytes that a folder's files take on disk.
fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[tokio::main]
async fn main() -> Result<(), LogError> {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(|| std::env::temp_dir().join("kvindex-log-store"), PathBuf::from);
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    println!(
        "| engine | batches/s | MiB/s | p50 / p99 ms | bytes written per byte | CPU s/GiB |\n|---|---|---|---|---|---|"
    );
    for _ in 0..rounds {
        for kind in ENGINES {
            batches(kind, &folder).await?;
        }
    }
    println!("\n| engine | durability | entries/s | MiB/s |\n|---|---|---|---|");
    for durability in [Durability::Fsync, Durability::ASYNC] {
        for kind in ENGINES {
            group_commit(kind, &folder, durability).await?;
        }
    }
    println!("\n| engine | most MiB on disk | MiB left | seconds |\n|---|---|---|---|");
    for kind in ENGINES {
        purged(kind, &folder).await?;
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}
