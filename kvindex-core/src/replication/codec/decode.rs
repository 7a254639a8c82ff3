//! An entry into commands.

use bytes::Bytes;

use super::dictionary::{Place, Shape, Stream, get_tier};
use super::head::Head;
use super::words::{Words, get_column};
use super::{CodecError, VERSION};
use crate::command::{Batch, Batches, Change, Changes, Command, GapPolicy, StoredRun, StreamEvents};
use crate::hash::EngineBlockHash;
use crate::ids::{BatchSeq, DpRank, Generation, Registration, StreamId, WorkerId};
use crate::replication::ShardCommand;

/// The commands of an entry, exactly as they were encoded.
///
/// # Errors
/// When the bytes are no entry that this program can read; the error says why.
pub fn decode(entry: &[u8]) -> Result<Vec<ShardCommand>, CodecError> {
    let mut rest = Head(entry);
    let version = match rest.byte("its version")? {
        0 => return Err(CodecError::NotAnEntry(0)),
        known @ 1..=VERSION => known,
        newer => return Err(CodecError::Newer(newer)),
    };
    let head = Head(rest.bytes("its head")?);
    let words = Words::new(rest.0)?;
    let (streams, places, shapes) = (Vec::new(), Vec::new(), Vec::new());
    Decoder { version, head, words, streams, places, shapes, at_ms: 0 }.commands()
}

struct Decoder<'a> {
    version: u8,
    head: Head<'a>,
    words: Words<'a>,
    streams: Vec<Stream>,
    places: Vec<Place>,
    shapes: Vec<Shape>,
    at_ms: u64,
}

impl Decoder<'_> {
    fn commands(mut self) -> Result<Vec<ShardCommand>, CodecError> {
        let mut commands = Vec::new();
        while !self.head.0.is_empty() {
            commands.push(self.command()?);
        }
        match self.words.left() {
            0 => Ok(commands),
            left => Err(CodecError::LeftOver(left)),
        }
    }

    fn command(&mut self) -> Result<ShardCommand, CodecError> {
        let tag = self.head.number("a command's tag")?;
        Ok(ShardCommand::Index(match tag {
            even if even & 1 == 0 => Command::Events(self.events(even)?),
            1 => Command::Register(Box::new(read_described(self.head.bytes("a worker's description")?)?)),
            3 => Command::Unregister { worker: WorkerId::new(self.head.text("a worker")?)? },
            5 => {
                let number = self.stream_said()?;
                let generation = self.generation(number)?;
                let ((stream, registration), at_ms) = (self.id_of(number), self.time()?);
                Command::NewGeneration { stream, generation, at_ms, registration }
            }
            7 => self.gap()?,
            9 => Command::Evict { entries: self.head.number("entries to evict")?, at_ms: self.time()? },
            11 => {
                return Ok(ShardCommand::Host(Bytes::copy_from_slice(self.head.bytes("a host's command")?)));
            }
            13 => Command::Forget(read_described(self.head.bytes("blocks to forget")?)?),
            value => return Err(CodecError::TooLarge { what: "a command's tag", value, most: 13 }),
        }))
    }

    fn gap(&mut self) -> Result<Command, CodecError> {
        let number = self.stream_said()?;
        let generation = self.generation(number)?;
        let first = self.head.step(self.streams[number].next_seq, "the first lost batch")?;
        let last = self.head.step(first, "the last lost batch")?;
        self.streams[number].next_seq = last.wrapping_add(1);
        let policy = match self.head.at_most(1, "a gap's policy")? {
            0 => GapPolicy::Purge,
            _ => GapPolicy::KeepAsSuspect,
        };
        let ((stream, registration), at_ms) = (self.id_of(number), self.time()?);
        let (first, last) = (BatchSeq(first), BatchSeq(last));
        Ok(Command::Gap { stream, generation, first, last, policy, at_ms, registration })
    }

    fn stream_said(&mut self) -> Result<usize, CodecError> {
        let number = self.head.number("a stream")?;
        self.stream(number)
    }

    /// A stream's place in the table, once `number` was read: a new one's description follows.
    fn stream(&mut self, number: u64) -> Result<usize, CodecError> {
        let known = self.streams.len();
        if is_new(number, known, "a stream")? {
            let worker = self.worker()?;
            let dp_rank = DpRank(self.head.at_most(u32::MAX.into(), "a dp rank")? as u32);
            let last = self.streams.last().map_or(0, |stream| stream.registration.0);
            // Version 1 did not say it.
            let said = self.version > 1;
            let registration = if said { self.head.step(last, "a registration")? } else { 0 };
            self.streams.push(Stream::new(StreamId { worker, dp_rank }, Registration(registration)));
        }
        Ok(number as usize)
    }

    /// A new stream's worker: its name begins like that of the stream before.
    fn worker(&mut self) -> Result<WorkerId, CodecError> {
        let before = self.streams.last().map(Stream::name);
        let shared = match before {
            Some(before) => self.head.at_most(before.len() as u64, "a name's shared beginning")? as usize,
            None => 0,
        };
        let beginning = before.and_then(|before| before.get(..shared)).unwrap_or_default();
        let name = [beginning, self.head.bytes("a worker")?].concat();
        let name = String::from_utf8(name).map_err(|_| CodecError::NotText("a worker"))?;
        Ok(WorkerId::new(name)?)
    }

    fn id_of(&self, stream: usize) -> (StreamId, Registration) {
        let stream = &self.streams[stream];
        (stream.id.clone(), stream.registration)
    }

    fn generation(&mut self, stream: usize) -> Result<Generation, CodecError> {
        let generation = self.head.step(self.streams[stream].generation, "a generation")?;
        self.streams[stream].generation = generation;
        Ok(Generation(generation))
    }

    fn time(&mut self) -> Result<u64, CodecError> {
        self.at_ms = self.head.step(self.at_ms, "a time")?;
        Ok(self.at_ms)
    }

    fn events(&mut self, tag: u64) -> Result<StreamEvents, CodecError> {
        let flag = |bit: u32| tag >> bit & 1 == 1;
        let stream = self.stream(tag >> 4)?;
        if flag(2) {
            self.generation(stream)?;
        }
        let at_ms = self.time()?;
        let count = if flag(3) { self.head.count("batches")? } else { 1 };
        let payload_digest = if flag(1) { Some(self.words.word::<EngineBlockHash>()?.0) } else { None };
        let mut batches = Batches::with_capacity(count);
        for _ in 0..count {
            batches.push(self.batch(stream)?);
        }
        let generation = Generation(self.streams[stream].generation);
        let (stream, registration) = self.id_of(stream);
        Ok(StreamEvents { stream, generation, at_ms, batches, payload_digest, registration })
    }

    fn batch(&mut self, stream: usize) -> Result<Batch, CodecError> {
        let said = self.head.number("a batch")?;
        let mut seq = self.streams[stream].next_seq;
        if said & 1 == 1 {
            seq = self.head.step(seq, "a sequence number")?;
        }
        self.streams[stream].next_seq = seq.wrapping_add(1);
        // A change takes a byte of the head, or in a row a word.
        let most = (self.head.0.len() + self.words.left() / 8) as u64;
        let count = said >> 1;
        if count > most {
            return Err(CodecError::TooLarge { what: "changes", value: count, most });
        }
        let mut changes = Changes::with_capacity(count as usize);
        while changes.len() < count as usize {
            self.change(stream, count as usize, &mut changes)?;
        }
        Ok(Batch { seq: BatchSeq(seq), changes })
    }

    /// The next change, or several in a row of the `all` that there are.
    fn change(&mut self, stream: usize, all: usize, changes: &mut Changes) -> Result<(), CodecError> {
        let said = self.head.number("a change")?;
        changes.push(match said >> 1 & 3 {
            _ if said & 1 == 0 => Change::Stored(self.stored(stream, said)?),
            0 => return self.removed(said, all, changes),
            1 if said >> 3 == 0 => Change::Cleared { tier: None },
            1 if said >> 3 == 1 => Change::Cleared { tier: Some(get_tier(&mut self.head, 0)?.0) },
            2 if said >> 3 == 0 => Change::Unreadable,
            _ => return Err(CodecError::TooLarge { what: "a change", value: said, most: 5 }),
        });
        Ok(())
    }

    fn stored(&mut self, stream: usize, said: u64) -> Result<StoredRun, CodecError> {
        let number = said >> 5;
        if is_new(number, self.shapes.len(), "a shape")? {
            self.shapes.push(Shape::get(&mut self.head)?);
        }
        let shape = self.shapes[number as usize].clone();
        let parent = match said >> 1 & 3 {
            0 => None,
            1 => Some(self.streams[stream].last_stored.ok_or(CodecError::NothingBefore)?),
            2 => Some(self.words.word()?),
            _ => self.words.copy::<EngineBlockHash>(&mut self.head, 1)?.first().copied(),
        };
        let (engine_hashes, local_hashes) = match said >> 3 & 3 {
            2 => (get_column(&mut self.head, &mut self.words)?, get_column(&mut self.head, &mut self.words)?),
            form => {
                let blocks = self.length(form)?;
                let locals = shape.locals_of(blocks).ok_or(CodecError::Truncated("local hashes"))?;
                (self.words.column(blocks)?, self.words.column(locals)?)
            }
        };
        let last = engine_hashes.last().copied();
        self.streams[stream].last_stored = last.or(self.streams[stream].last_stored);
        let Shape { place, lora, block_size, stride, scheme, kind, sliding_window } = shape;
        let (tier, group) = (place.tier, place.group);
        Ok(StoredRun {
            lora,
            block_size,
            stride,
            scheme,
            tier,
            group,
            kind,
            sliding_window,
            parent,
            engine_hashes,
            local_hashes,
        })
    }

    fn removed(&mut self, said: u64, all: usize, changes: &mut Changes) -> Result<(), CodecError> {
        let number = said >> 5;
        if is_new(number, self.places.len(), "a place")? {
            self.places.push(Place::get(&mut self.head)?);
        }
        let Place { tier, group } = self.places[number as usize].clone();
        let hashes = match said >> 3 & 3 {
            2 => get_column(&mut self.head, &mut self.words)?,
            3 => {
                let most = (all - changes.len()) as u64;
                for _ in 0..self.head.at_most(most, "removals in a row")? {
                    let hashes = self.words.column(1)?;
                    changes.push(Change::Removed { tier: tier.clone(), group, hashes });
                }
                return Ok(());
            }
            form => {
                let blocks = self.length(form)?;
                self.words.column(blocks)?
            }
        };
        changes.push(Change::Removed { tier, group, hashes });
        Ok(())
    }

    /// How many blocks are spelled out.
    fn length(&mut self, form: u64) -> Result<usize, CodecError> {
        match form {
            0 => Ok(1),
            1 => {
                let most = self.words.left() as u64 / 8;
                Ok(self.head.at_most(most, "blocks")? as usize)
            }
            value => Err(CodecError::TooLarge { what: "a form of columns", value, most: 2 }),
        }
    }
}

/// Whether `number` is the next free one of a table with so many; an error when it is beyond.
fn is_new(number: u64, known: usize, what: &'static str) -> Result<bool, CodecError> {
    let most = known as u64;
    if number > most { Err(CodecError::TooLarge { what, value: number, most }) } else { Ok(number == most) }
}

fn read_described<T: serde::de::DeserializeOwned>(mut bytes: &[u8]) -> Result<T, CodecError> {
    let described =
        rmp_serde::from_read(&mut bytes).map_err(|error| CodecError::Described(error.to_string()))?;
    if bytes.is_empty() { Ok(described) } else { Err(CodecError::LeftOver(bytes.len())) }
}
