//! Decode, hash, apply: a recording's batches through the real decoder into a real index, on one thread.

use std::fmt::Write;
use std::time::Duration;

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, Change, Changes, Command, DpRank, EngineKind, EventBatch, Generation,
    Index, Registration, StreamEvents, StreamId, WorkerId, WorkerSpec,
};
use kvindex_recording::Recording;
use kvindex_server::ingest::decode::decode;

use crate::stopwatch::{median, timed};

/// A recording's engines as registered workers.
pub(crate) fn workers(recording: &Recording) -> anyhow::Result<Vec<(WorkerSpec, StreamId)>> {
    let version = recording.header.version;
    let spec = |engine: &kvindex_recording::EngineHeader| {
        let mut spec = WorkerSpec::new(WorkerId::new(engine.name.clone())?, "bench");
        if recording.header.engine == kvindex_recording::EngineKind::Sglang {
            spec.engine = EngineKind::Sglang;
        }
        spec.engine_version = Some(format!("{}.{}.{}", version.major, version.minor, version.patch));
        let stream = StreamId { worker: spec.id.clone(), dp_rank: DpRank(engine.dp_rank) };
        Ok((spec, stream))
    };
    recording.header.engines.iter().map(spec).collect()
}

/// An index that knows the recording's workers and nothing else.
pub(crate) fn empty_index(workers: &[(WorkerSpec, StreamId)]) -> Index {
    let mut index = Index::default();
    for (spec, _) in workers {
        index.apply(&Command::Register(Box::new(spec.clone())));
    }
    index
}

/// Commands of sealed batches, restarts of recorded engines as new generations.
pub(crate) fn commands(
    recording: &Recording,
    workers: &[(WorkerSpec, StreamId)],
    sealed: Vec<Changes>,
) -> Vec<Command> {
    let mut lives = vec![(0u64, false); workers.len()];
    let records = recording.records.iter().zip(sealed);
    let command = |(record, changes): (&kvindex_recording::Record, Changes)| {
        let life = lives.get_mut(record.engine as usize)?;
        life.0 += u64::from(record.seq == 0 && life.1);
        life.1 = true;
        let (_, stream) = workers.get(record.engine as usize)?;
        Some(Command::Events(StreamEvents {
            stream: stream.clone(),
            generation: Generation(life.0),
            at_ms: record.t_us / 1000,
            payload_digest: None,
            registration: Registration::default(),
            batches: vec![Batch { seq: BatchSeq(record.seq), changes }].into(),
        }))
    };
    records.filter_map(command).collect()
}

pub(crate) fn decode_all(recording: &Recording) -> anyhow::Result<Vec<EventBatch>> {
    recording.records.iter().map(|record| Ok(decode(&record.payload)?.batch)).collect()
}

pub(crate) fn seal_all(
    recording: &Recording,
    workers: &[(WorkerSpec, StreamId)],
    batches: &[EventBatch],
) -> Vec<Changes> {
    let mut hasher = BlockHasher::new();
    let engines = recording.records.iter().filter_map(|record| workers.get(record.engine as usize));
    engines.zip(batches).map(|((spec, _), batch)| batch.seal(&spec.profile(), &mut hasher)).collect()
}

/// Blocks named by stores and removals.
pub(crate) fn blocks(sealed: &[Changes]) -> (usize, usize) {
    let changes = || sealed.iter().flatten();
    let stored = changes().map(|c| if let Change::Stored(run) = c { run.engine_hashes.len() } else { 0 });
    let removed = changes().map(|c| if let Change::Removed { hashes, .. } = c { hashes.len() } else { 0 });
    (stored.sum(), removed.sum())
}

/// All rounds, as a Markdown page.
pub(crate) fn run(recording: &Recording, rounds: usize) -> anyhow::Result<String> {
    let workers = workers(recording)?;
    let (mut decoding, mut hashing, mut applying) = (Vec::new(), Vec::new(), Vec::new());
    let mut counted = (0, 0);
    for _ in 0..rounds {
        let (time, batches) = timed(|| decode_all(recording));
        decoding.push(time);
        let batches = batches?;
        let (time, sealed) = timed(|| seal_all(recording, &workers, &batches));
        hashing.push(time);
        counted = blocks(&sealed);
        let commands = commands(recording, &workers, sealed);
        let mut index = empty_index(&workers);
        let (time, ()) = timed(|| commands.iter().for_each(|command| drop_outcome(&mut index, command)));
        applying.push(time);
    }
    Ok(page(recording, rounds, counted, [("decode", decoding), ("hash", hashing), ("apply", applying)]))
}

fn page(
    recording: &Recording,
    rounds: usize,
    (stored, removed): (usize, usize),
    steps: [(&str, Vec<Duration>); 3],
) -> String {
    let all = stored + removed;
    let case = &recording.header.case;
    let mut page = format!(
        "# Ingest of recorded engines\n\nWritten by `just bench`. Recording `{case}`: {} messages of {} engines, \
         {stored} blocks stored and {removed} removed; {rounds} rounds on one thread, no sockets.\n\n\
         | step | median ns/block | least | greatest |\n|---|---|---|---|\n",
        recording.records.len(),
        recording.header.engines.len(),
    );
    let mut total = Duration::ZERO;
    for (name, times) in steps {
        let (middle, least, greatest) = median(times);
        total += middle;
        let each = |time: Duration| time.as_nanos() / all.max(1) as u128;
        let _ = writeln!(page, "| {name} | {} | {} | {} |", each(middle), each(least), each(greatest));
    }
    let rate = all as f64 / total.as_secs_f64() / 1e6;
    let _ = writeln!(page, "\nDecode, hash and apply together: {rate:.2} M blocks a second.");
    page
}

fn drop_outcome(index: &mut Index, command: &Command) {
    let _ = index.apply(command);
}
