//! What the log of a replicated index carries for a stored block: recorded engines' commands as log entries.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kvindex_core::replication::{EntryEncoder, ShardCommand, decode, encode};
use kvindex_core::{Change, Command, Registration};
use kvindex_recording::Recording;

use crate::ingest::{commands, decode_all, seal_all, workers};
use crate::stopwatch::{median, timed};

/// An entry is closed when it has so many bytes.
const ENTRY_BYTES: usize = 16 << 10;
/// Or when its oldest command has waited so long.
const ENTRY_US: u64 = 2_000;
/// Batches of a full entry, where speed is measured.
const BATCHES_PER_ENTRY: usize = 48;
/// The recordings begin at 0; a log's times are of this century.
const BASE_MS: u64 = 1_760_000_000_000;

/// Bytes of all entries, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
struct Log {
    entries: usize,
    bytes: usize,
}

/// One recording's row. `Cost` of entries as a leader gathers them, and of entries of one batch each.
struct Row {
    case: String,
    batches: usize,
    stored: usize,
    removed: usize,
    gathered: Cost,
    alone: Cost,
}

/// All of a recording's commands as a log, and the same commands without removals.
struct Cost {
    all: Log,
    stores: Log,
}

/// A recording's commands, each with its time in microseconds.
fn recorded(recording: &Recording) -> anyhow::Result<Vec<(u64, ShardCommand)>> {
    let workers = workers(recording)?;
    let sealed = seal_all(recording, &workers, &decode_all(recording)?);
    let timed = commands(recording, &workers, sealed).into_iter().zip(&recording.records);
    let stamped = timed.map(|(mut command, record)| {
        if let Command::Events(events) = &mut command {
            events.at_ms += BASE_MS;
            // Of a log that is not young: three bytes once an entry.
            events.registration = Registration(100_000);
            // Any 8 bytes cost the same.
            events.payload_digest = Some(record.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        (record.t_us, ShardCommand::Index(command))
    });
    Ok(stamped.collect())
}

impl Log {
    /// Entries as a shard's leader gathers them, or of one command each.
    fn of(commands: &[(u64, ShardCommand)], gathered: bool) -> anyhow::Result<Self> {
        let mut log = Self::default();
        let mut entry = EntryEncoder::new();
        let mut opened = 0;
        for (at, command) in commands {
            let full = entry.size() >= ENTRY_BYTES || at - opened >= ENTRY_US;
            if !entry.is_empty() && (full || !gathered) {
                log.add(std::mem::take(&mut entry));
            }
            if entry.is_empty() {
                opened = *at;
            }
            entry.push(command)?;
        }
        log.add(entry);
        Ok(log)
    }

    fn add(&mut self, entry: EntryEncoder) {
        self.entries += 1;
        self.bytes += entry.finish().len();
    }
}

impl Cost {
    fn of(commands: &[(u64, ShardCommand)], gathered: bool) -> anyhow::Result<Self> {
        let stores = Log::of(&without_removals(commands), gathered)?;
        Ok(Self { all: Log::of(commands, gathered)?, stores })
    }

    /// Bytes a stored block, a removed block, and of all by stored blocks.
    fn shares(&self, stored: usize, removed: usize) -> [f64; 3] {
        let share = |bytes: usize, blocks: usize| bytes as f64 / blocks.max(1) as f64;
        let of_removals = self.all.bytes.saturating_sub(self.stores.bytes);
        [share(self.stores.bytes, stored), share(of_removals, removed), share(self.all.bytes, stored)]
    }
}

fn changes(commands: &[(u64, ShardCommand)]) -> impl Iterator<Item = &Change> {
    commands
        .iter()
        .flat_map(|(_, command)| match command {
            ShardCommand::Index(Command::Events(events)) => events.batches.as_slice(),
            _ => &[],
        })
        .flat_map(|batch| &batch.changes)
}

fn without_removals(commands: &[(u64, ShardCommand)]) -> Vec<(u64, ShardCommand)> {
    let mut stores = commands.to_vec();
    for (_, command) in &mut stores {
        if let ShardCommand::Index(Command::Events(events)) = command {
            for batch in &mut events.batches {
                batch.changes.retain(|change| !matches!(change, Change::Removed { .. }));
            }
        }
    }
    stores
}

fn row(case: &str, commands: &[(u64, ShardCommand)]) -> anyhow::Result<Row> {
    let (mut stored, mut removed) = (0, 0);
    for change in changes(commands) {
        match change {
            Change::Stored(run) => stored += run.engine_hashes.len(),
            Change::Removed { hashes, .. } => removed += hashes.len(),
            Change::Cleared { .. } | Change::Unreadable => {}
        }
    }
    let (gathered, alone) = (Cost::of(commands, true)?, Cost::of(commands, false)?);
    Ok(Row { case: case.to_owned(), batches: commands.len(), stored, removed, gathered, alone })
}

/// Nanoseconds a block that encoding and decoding cost, in entries of about 16 KiB.
fn times(commands: &[(u64, ShardCommand)], blocks: usize, rounds: usize) -> anyhow::Result<[f64; 2]> {
    let commands: Vec<ShardCommand> = commands.iter().map(|(_, command)| command.clone()).collect();
    let (mut encoding, mut decoding) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (mut writing, mut reading) = (Duration::ZERO, Duration::ZERO);
        for part in commands.chunks(BATCHES_PER_ENTRY) {
            let (time, entry) = timed(|| encode(part));
            writing += time;
            let entry = entry?;
            let (time, read) = timed(|| decode(&entry));
            reading += time;
            anyhow::ensure!(read? == part, "an entry reads as something else than was written");
        }
        encoding.push(writing);
        decoding.push(reading);
    }
    Ok([encoding, decoding].map(|times| median(times).0.as_nanos() as f64 / blocks.max(1) as f64))
}

/// Every recording of a folder, as a Markdown page.
pub(crate) fn run(folder: &Path, rounds: usize) -> anyhow::Result<String> {
    let files = std::fs::read_dir(folder).with_context(|| format!("folder {}", folder.display()))?;
    let mut cases = Vec::new();
    for file in files {
        let name = file?.file_name();
        cases.extend(name.to_str().and_then(|name| name.strip_suffix(".kvrec.gz")).map(str::to_owned));
    }
    cases.sort_unstable();
    let (mut rows, mut speed) = (Vec::new(), String::new());
    for case in &cases {
        let commands = recorded(&Recording::open(&folder.join(case))?)?;
        let row = row(case, &commands)?;
        if case.as_str() == "conv-a" {
            let [encoding, decoding] = times(&commands, row.stored + row.removed, rounds)?;
            let _ = write!(
                speed,
                "\nOne thread encodes {case} in {encoding:.1} ns and decodes it in {decoding:.1} ns a stored or \
                 removed block, {BATCHES_PER_ENTRY} batches an entry, median of {rounds} rounds.\n"
            );
        }
        rows.push(row);
    }
    Ok(page(&rows) + &speed)
}

const INTRODUCTION: &str = "# Consensus bytes of recorded engines

Written by `just bench`. What the replicated log carries for each block that an engine stores, over every recording. \
A block's two hashes are 16 bytes, its removal is 8; the rest is what the log adds. Entries are gathered as a shard's \
leader does: closed at 16 KiB, or 2 ms of recorded time after their first batch. The worst case beside it is an entry \
for every batch. Every batch carries the 8-byte digest of its payload.

*Stored* counts the log without removals; *removed* is what removals add to it; *all* is the whole log by stored \
blocks. Below 16 are streams that say the same hashes again, for other tiers and groups: an entry spells them once.

A batch costs some 30 bytes besides its hashes, 8 of them its digest, and a block stored while a prompt is being \
answered names its parent, 8 more: recordings with fewer than about six stored blocks a batch are above 20. These are \
the small ones, made to show one behaviour each; traces of real load (conv-a, hot-a, mixed-a, synth-a) are below.

| recording | blocks stored | removed | stored a batch | batches an entry | stored, B/block | removed, B/block | all, B/block \
| alone: stored, B/block | alone: all, B/block |
|---|---|---|---|---|---|---|---|---|---|
";

fn page(rows: &[Row]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for row in rows {
        let each = row.stored as f64 / row.batches.max(1) as f64;
        let gathered = row.batches as f64 / row.gathered.all.entries.max(1) as f64;
        let [stored, removed, all] = row.gathered.shares(row.stored, row.removed);
        let [alone, _, alone_all] = row.alone.shares(row.stored, row.removed);
        let _ = writeln!(
            page,
            "| {} | {} | {} | {each:.1} | {gathered:.1} | {stored:.2} | {removed:.2} | {all:.2} | {alone:.2} | \
             {alone_all:.2} |",
            row.case, row.stored, row.removed,
        );
    }
    page
}
