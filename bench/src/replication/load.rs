//! What the engines say: a recording, played by many fleets at once, and synthetic prefills where millions of entries
//! are wanted.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use kvindex_recording::{Checkpoint, Record, Recording, Truth, splitmix64};

use crate::ingest::{blocks, decode_all, seal_all, workers};

/// Engines of the synthetic load.
const ENGINES: u32 = 64;
/// Its tokens a block: few, so that little of the time is the publisher's.
const BLOCK_TOKENS: u64 = 4;
/// Blocks that all conversations of one system prompt begin with, and conversations below each.
const SYSTEM: u64 = 64;
const CONVERSATIONS: u64 = 32;
/// Blocks of one event: a prefill step of an engine.
const STEP: usize = 128;

/// A recording to be played, and what it comes to.
pub(super) struct Load {
    pub(super) recording: Recording,
    /// The model that each engine serves, at its index.
    pub(super) models: Vec<String>,
    /// Blocks named by stores and removals.
    pub(super) blocks: usize,
}

/// The recording that fleets play, and questions that its engines were asked.
pub(super) struct Case {
    recording: Recording,
    checkpoints: Vec<Checkpoint>,
    blocks: usize,
}

impl Case {
    /// Opens it, up to the first restart of an engine: behind that a batch's number does not say that it is applied.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut recording = Recording::open(path)?;
        let mut heard = BTreeSet::new();
        let restarts = |record: &Record| !heard.insert(record.engine) && record.seq == 0;
        let usable = recording.records.iter().position(restarts).unwrap_or(recording.records.len());
        recording.records.truncate(usable);
        let mut checkpoints = Truth::open(path)?.collect::<Result<Vec<_>, _>>()?;
        checkpoints.retain(|checkpoint| checkpoint.pos <= usable);
        let sealed = seal_all(&recording, &workers(&recording)?, &decode_all(&recording)?);
        let (stored, removed) = blocks(&sealed);
        Ok(Self { recording, checkpoints, blocks: stored + removed })
    }

    /// The name of the recording.
    pub(super) fn name(&self) -> &str {
        &self.recording.header.case
    }

    /// Blocks that a batch names on average.
    pub(super) fn blocks_a_record(&self) -> f64 {
        self.blocks as f64 / self.recording.records.len().max(1) as f64
    }

    /// So many fleets, each with a model of its own and so with content of its own, that all play the recording.
    pub(super) fn fleets(&self, fleets: usize) -> Load {
        let mut recording = Recording { header: self.recording.header.clone(), records: Vec::new() };
        let engines = std::mem::take(&mut recording.header.engines);
        let mut models = Vec::new();
        for fleet in 0..fleets {
            for engine in &engines {
                let mut engine = engine.clone();
                engine.index = recording.header.engines.len() as u32;
                engine.name = format!("{}-{fleet}", engine.name);
                recording.header.engines.push(engine);
                models.push(model(fleet));
            }
        }
        for record in &self.recording.records {
            let of_fleet = |fleet: usize| Record {
                engine: record.engine + (fleet * engines.len()) as u32,
                ..record.clone()
            };
            recording.records.extend((0..fleets).map(of_fleet));
        }
        Load { recording, models, blocks: self.blocks * fleets }
    }

    /// The checkpoint nearest to a share of the recording.
    pub(super) fn checkpoint_near(&self, share: f64) -> anyhow::Result<&Checkpoint> {
        let records = (self.recording.records.len() as f64 * share) as usize;
        let nearest = self.checkpoints.iter().min_by_key(|checkpoint| checkpoint.pos.abs_diff(records));
        nearest.context("the recording has no checkpoints")
    }
}

/// The model that a fleet serves.
pub(super) fn model(fleet: usize) -> String {
    format!("bench-{fleet}")
}

/// Prefills until there are so many (block, holder) entries: conversations below shared system prompts, each held by
/// two engines, which hash alike or each in its own way.
pub(super) fn prefills(case: &Case, entries: usize, alike: bool) -> Load {
    let mut recording = Recording { header: case.recording.header.clone(), records: Vec::new() };
    let Some(pattern) = recording.header.engines.first().cloned() else {
        return Load { recording, models: Vec::new(), blocks: 0 };
    };
    let engine = |index: u32| {
        let (mut engine, name) = (pattern.clone(), format!("engine-{index}"));
        (engine.index, engine.name, engine.block_size) = (index, name, BLOCK_TOKENS as u32);
        engine
    };
    recording.header.engines = (0..ENGINES).map(engine).collect();
    let mut load = Prefills { records: Vec::new(), next: vec![0; ENGINES as usize], alike };
    let mut held = BTreeSet::new();
    let (mut stored, mut conversation) = (0, 0);
    while stored < entries {
        let prompt = conversation / CONVERSATIONS;
        let length = SYSTEM + 32 + splitmix64(conversation) % 480;
        let home = splitmix64(conversation ^ 0xa7) as u32 % ENGINES;
        for engine in [home, (home + 1) % ENGINES] {
            let from = if held.insert((engine, prompt)) { 0 } else { SYSTEM };
            let to = length.min(from + (entries - stored) as u64);
            load.prefill(engine, (prompt, conversation), from..to);
            stored += to.saturating_sub(from) as usize;
        }
        conversation += 1;
    }
    recording.records = load.records;
    Load { recording, models: vec![model(0); ENGINES as usize], blocks: stored }
}

struct Prefills {
    records: Vec<Record>,
    /// The next batch's number of each engine.
    next: Vec<u64>,
    alike: bool,
}

impl Prefills {
    fn prefill(&mut self, engine: u32, (prompt, conversation): (u64, u64), range: std::ops::Range<u64>) {
        // What a block is named by: everything from the start of its prompt on.
        let seed =
            |at: u64| if at < SYSTEM { prompt << 32 | at } else { (1 << 63) | conversation << 16 | at };
        let salt = if self.alike { 0 } else { u64::from(engine) + 1 };
        let name = |at: u64| splitmix64(splitmix64(seed(at)) ^ salt);
        let range: Vec<u64> = range.collect();
        for step in range.chunks(STEP) {
            let parent = step.first().and_then(|first| first.checked_sub(1)).map(name);
            let names: Vec<u64> = step.iter().copied().map(name).collect();
            let tokens = step.iter().flat_map(|at| {
                let block = splitmix64(seed(*at) ^ 0x70);
                (0..BLOCK_TOKENS).map(move |i| (splitmix64(block ^ i) % 128_256) as u32)
            });
            let payload = stored(&names, parent, &tokens.collect::<Vec<_>>());
            let Some(next) = self.next.get_mut(engine as usize) else { continue };
            let t_us = self.records.len() as u64;
            self.records.push(Record { engine, seq: *next, t_us, topic: b"kv-events".to_vec(), payload });
            *next += 1;
        }
    }
}

/// A batch of one event as vLLM writes it.
fn stored(names: &[u64], parent: Option<u64>, tokens: &[u32]) -> Vec<u8> {
    use rmp::encode::{write_array_len, write_f64, write_nil, write_str, write_uint};
    let mut out = Vec::new();
    let mut write = || -> Result<(), rmp::encode::ValueWriteError> {
        write_array_len(&mut out, 2)?;
        write_f64(&mut out, 0.0)?;
        write_array_len(&mut out, 1)?;
        write_array_len(&mut out, 9)?;
        write_str(&mut out, "BlockStored")?;
        write_array_len(&mut out, names.len() as u32)?;
        for name in names {
            write_uint(&mut out, *name)?;
        }
        match parent {
            Some(parent) => write_uint(&mut out, parent).map(drop)?,
            None => write_nil(&mut out).map_err(rmp::encode::ValueWriteError::InvalidMarkerWrite)?,
        }
        write_array_len(&mut out, tokens.len() as u32)?;
        for token in tokens {
            write_uint(&mut out, u64::from(*token))?;
        }
        write_uint(&mut out, BLOCK_TOKENS)?;
        // Adapter's number, medium, adapter's name and extra keys.
        for _ in 0..4 {
            write_nil(&mut out).map_err(rmp::encode::ValueWriteError::InvalidMarkerWrite)?;
        }
        Ok(())
    };
    // Writing to memory cannot fail.
    let _ = write();
    out
}
