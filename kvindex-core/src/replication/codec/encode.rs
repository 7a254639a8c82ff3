//! Commands into an entry.

use bytes::Bytes;
use hashbrown::HashMap;

use super::dictionary::{Place, Shape, Stream, check_tier_name, put_tier};
use super::head::{put_bytes, put_number, put_step};
use super::words::{WordWriter, put_column};
use super::{CodecError, VERSION};
use crate::command::{Batch, Change, Command, GapPolicy, StoredRun, StreamEvents};
use crate::hash::EngineBlockHash;
use crate::ids::{Registration, StreamId, Tier};
use crate::replication::ShardCommand;

/// The commands as one entry.
///
/// # Errors
/// When a worker's description cannot be written, or a tier's name is longer than any may be.
pub fn encode(commands: &[ShardCommand]) -> Result<Bytes, CodecError> {
    let mut encoder = EntryEncoder::new();
    for command in commands {
        encoder.push(command)?;
    }
    Ok(encoder.finish())
}

/// An entry in the making: whoever gathers commands sees how large it is already.
#[derive(Debug)]
pub struct EntryEncoder {
    head: Vec<u8>,
    words: WordWriter,
    streams: Vec<Stream>,
    /// Of each stream's latest registration.
    stream_numbers: HashMap<StreamId, usize>,
    places: Vec<Place>,
    shapes: Vec<Shape>,
    at_ms: u64,
}

impl Default for EntryEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl EntryEncoder {
    /// An entry without commands.
    #[must_use]
    pub fn new() -> Self {
        Self {
            head: Vec::new(),
            words: WordWriter::new(),
            streams: Vec::new(),
            stream_numbers: HashMap::new(),
            places: Vec::new(),
            shapes: Vec::new(),
            at_ms: 0,
        }
    }

    /// Bytes so far; the finished entry has up to 11 more.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head.len() + 8 * self.words.written().len()
    }

    /// Whether no command was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Adds a command.
    ///
    /// # Errors
    /// As [`encode`]; the entry is then as before.
    pub fn push(&mut self, command: &ShardCommand) -> Result<(), CodecError> {
        match command {
            ShardCommand::Index(command) => self.index(command),
            ShardCommand::Host(bytes) => {
                put_number(&mut self.head, 11);
                put_bytes(&mut self.head, bytes);
                Ok(())
            }
        }
    }

    /// The entry.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let mut entry = Vec::with_capacity(self.size() + 11);
        entry.push(VERSION);
        put_bytes(&mut entry, &self.head);
        self.words.append_to(&mut entry);
        entry.into()
    }

    fn index(&mut self, command: &Command) -> Result<(), CodecError> {
        match command {
            Command::Events(events) => {
                check(events)?;
                self.events(events);
            }
            Command::Register(spec) => {
                self.described(1, spec)?;
            }
            Command::Unregister { worker } => {
                put_number(&mut self.head, 3);
                put_bytes(&mut self.head, worker.as_str().as_bytes());
            }
            Command::NewGeneration { stream, generation, at_ms, registration } => {
                put_number(&mut self.head, 5);
                let stream = self.stream((stream, *registration), |number| number);
                self.generation(stream, generation.0);
                self.time(*at_ms);
            }
            Command::Gap { stream, generation, first, last, policy, at_ms, registration } => {
                put_number(&mut self.head, 7);
                let stream = self.stream((stream, *registration), |number| number);
                self.generation(stream, generation.0);
                let next = std::mem::replace(&mut self.streams[stream].next_seq, last.0.wrapping_add(1));
                put_step(&mut self.head, first.0, next);
                put_step(&mut self.head, last.0, first.0);
                self.head.push(match policy {
                    GapPolicy::Purge => 0,
                    GapPolicy::KeepAsSuspect => 1,
                });
                self.time(*at_ms);
            }
            Command::Evict { entries, at_ms } => {
                put_number(&mut self.head, 9);
                put_number(&mut self.head, *entries);
                self.time(*at_ms);
            }
            Command::Forget(blocks) => self.described(13, blocks)?,
        }
        Ok(())
    }

    fn described(&mut self, tag: u64, what: &impl serde::Serialize) -> Result<(), CodecError> {
        let bytes = rmp_serde::to_vec(what).map_err(|error| CodecError::Described(error.to_string()))?;
        put_number(&mut self.head, tag);
        put_bytes(&mut self.head, &bytes);
        Ok(())
    }

    /// A stream's number, if it has one as of this registration.
    fn number_of(&self, id: &StreamId, registration: Registration) -> Option<usize> {
        let number = *self.stream_numbers.get(id)?;
        (self.streams[number].registration == registration).then_some(number)
    }

    /// Says which stream, within the number that `tag` makes of its own, and describes a new one.
    fn stream(&mut self, (id, registration): (&StreamId, Registration), tag: impl Fn(u64) -> u64) -> usize {
        if let Some(number) = self.number_of(id, registration) {
            put_number(&mut self.head, tag(number as u64));
            return number;
        }
        let number = self.streams.len();
        let last = self.streams.last().map_or(0, |stream| stream.registration.0);
        self.streams.push(Stream::new(id.clone(), registration));
        self.stream_numbers.insert(id.clone(), number);
        put_number(&mut self.head, tag(number as u64));
        let name = id.worker.as_str().as_bytes();
        let mut own = name;
        if let Some(before) = number.checked_sub(1).map(|before| self.streams[before].name()) {
            let shared = name.iter().zip(before).take_while(|(ours, theirs)| ours == theirs).count();
            put_number(&mut self.head, shared as u64);
            own = &name[shared..];
        }
        put_bytes(&mut self.head, own);
        put_number(&mut self.head, id.dp_rank.0.into());
        put_step(&mut self.head, registration.0, last);
        number
    }

    fn generation(&mut self, stream: usize, generation: u64) {
        let last = std::mem::replace(&mut self.streams[stream].generation, generation);
        put_step(&mut self.head, generation, last);
    }

    fn time(&mut self, at_ms: u64) {
        put_step(&mut self.head, at_ms, self.at_ms);
        self.at_ms = at_ms;
    }

    fn events(&mut self, events: &StreamEvents) {
        let number = self.number_of(&events.stream, events.registration);
        let known = number.map_or(0, |number| self.streams[number].generation);
        let anew = events.generation.0 != known;
        let (digest, many) = (events.payload_digest.is_some(), events.batches.len() != 1);
        let flags = u64::from(digest) << 1 | u64::from(anew) << 2 | u64::from(many) << 3;
        let stream = self.stream((&events.stream, events.registration), |number| number << 4 | flags);
        if anew {
            self.generation(stream, events.generation.0);
        }
        self.time(events.at_ms);
        if many {
            put_number(&mut self.head, events.batches.len() as u64);
        }
        if let Some(digest) = events.payload_digest {
            self.words.put(digest);
        }
        for batch in &events.batches {
            self.batch(stream, batch);
        }
    }

    fn batch(&mut self, stream: usize, batch: &Batch) {
        let next = std::mem::replace(&mut self.streams[stream].next_seq, batch.seq.0.wrapping_add(1));
        let jump = batch.seq.0 != next;
        put_number(&mut self.head, (batch.changes.len() as u64) << 1 | u64::from(jump));
        if jump {
            put_step(&mut self.head, batch.seq.0, next);
        }
        let mut rest = batch.changes.as_slice();
        while let [change, later @ ..] = rest {
            rest = later;
            match change {
                Change::Stored(run) => self.stored(stream, run),
                Change::Removed { tier, group, hashes } => {
                    let row = later.iter().take_while(|next| self.is_in_a_row(change, next)).count();
                    let (row, after) = later.split_at(row);
                    rest = after;
                    self.removed(&Place { tier: tier.clone(), group: *group }, hashes, row);
                }
                Change::Cleared { tier: None } => put_number(&mut self.head, 1 | 1 << 1),
                Change::Cleared { tier: Some(tier) } => {
                    put_number(&mut self.head, 1 | 1 << 1 | 1 << 3);
                    put_tier(&mut self.head, tier, 0);
                }
                Change::Unreadable => put_number(&mut self.head, 1 | 2 << 1),
            }
        }
    }

    fn stored(&mut self, stream: usize, run: &StoredRun) {
        let known = self.shapes.iter().position(|shape| shape.is_of(run));
        let number = known.unwrap_or_else(|| {
            self.shapes.push(Shape::of(run));
            self.shapes.len() - 1
        });
        let shape = &self.shapes[number];
        let parent = run.parent.map(|parent| [parent]);
        let back = parent.as_ref().and_then(|parent| self.words.find(parent));
        let parent_form = match run.parent {
            None => 0,
            Some(_) if run.parent == self.streams[stream].last_stored => 1,
            Some(_) if back.is_none() => 2,
            Some(_) => 3,
        };
        let spelled = shape.locals_of(run.engine_hashes.len()) == Some(run.local_hashes.len())
            && self.words.find(&run.engine_hashes).is_none()
            && self.words.find(&run.local_hashes).is_none();
        let columns = if !spelled { 2 } else { u64::from(run.engine_hashes.len() != 1) };
        put_number(&mut self.head, parent_form << 1 | columns << 3 | (number as u64) << 5);
        if known.is_none() {
            shape.put(&mut self.head);
        }
        match (parent_form, &parent, back) {
            (2, Some(parent), _) => self.words.spell(parent),
            (3, Some(_), Some(back)) => {
                put_number(&mut self.head, back as u64);
                self.words.repeat(1);
            }
            _ => {}
        }
        self.columns(columns, run);
        self.streams[stream].last_stored =
            run.engine_hashes.last().copied().or(self.streams[stream].last_stored);
    }

    fn columns(&mut self, form: u64, run: &StoredRun) {
        if form == 2 {
            put_column(&mut self.head, &mut self.words, &run.engine_hashes);
            put_column(&mut self.head, &mut self.words, &run.local_hashes);
            return;
        }
        if form == 1 {
            put_number(&mut self.head, run.engine_hashes.len() as u64);
        }
        self.words.spell(&run.engine_hashes);
        self.words.spell(&run.local_hashes);
    }

    /// Whether both are removals of one block at one place, which are said together.
    fn is_in_a_row(&self, first: &Change, next: &Change) -> bool {
        let alone = |hashes: &[EngineBlockHash]| hashes.len() == 1 && self.words.find(hashes).is_none();
        match (first, next) {
            (
                Change::Removed { tier, group, hashes },
                Change::Removed { tier: next_tier, group: next_group, hashes: next_hashes },
            ) => (tier, group) == (next_tier, next_group) && alone(hashes) && alone(next_hashes),
            _ => false,
        }
    }

    /// Blocks removed at once, and `row` removals of one block each after them.
    fn removed(&mut self, place: &Place, hashes: &[EngineBlockHash], row: &[Change]) {
        let known = self.places.iter().position(|known| known == place);
        let number = known.unwrap_or(self.places.len());
        let form = match (row, hashes) {
            (_, hashes) if self.words.find(hashes).is_some() => 2,
            ([], [_]) => 0,
            ([], _) => 1,
            _ => 3,
        };
        put_number(&mut self.head, 1 | form << 3 | (number as u64) << 5);
        if known.is_none() {
            place.put(&mut self.head);
            self.places.push(place.clone());
        }
        match form {
            1 => put_number(&mut self.head, hashes.len() as u64),
            2 => return put_column(&mut self.head, &mut self.words, hashes),
            3 => put_number(&mut self.head, row.len() as u64 + 1),
            _ => {}
        }
        self.words.spell(hashes);
        for change in row {
            if let Change::Removed { hashes, .. } = change {
                self.words.spell(hashes);
            }
        }
    }
}

/// What must hold of events before any of them is written.
fn check(events: &StreamEvents) -> Result<(), CodecError> {
    for change in events.batches.iter().flat_map(|batch| &batch.changes) {
        let tier = match change {
            Change::Stored(run) => Some(&run.tier),
            Change::Removed { tier, .. } => Some(tier),
            Change::Cleared { tier } => tier.as_ref(),
            Change::Unreadable => None,
        };
        if let Some(Tier::Other(name)) = tier {
            check_tier_name(name)?;
        }
    }
    Ok(())
}
