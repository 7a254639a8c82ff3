//! The container of recorded messages, `CASE.kvrec.gz`: what each engine published, in global order.
//!
//! gzip of `KVREC1\n`, u32 header length, JSON header, then records
//! `u32 engine | u64 seq | u64 t_us | u16 topic length | u32 payload length | topic | payload`, all big-endian.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use crate::header::Header;

const MAGIC: &[u8] = b"KVREC1\n";
const RECORD_HEAD_BYTES: usize = 4 + 8 + 8 + 2 + 4;
/// A header is a few kilobytes; more means that the length field is not one.
const MAX_HEADER_BYTES: u32 = 4 << 20;
/// The largest recorded batch is 36 KiB; 64 MiB leaves room and still stops a wild length.
const MAX_PAYLOAD_BYTES: u32 = 64 << 20;
/// All payloads are held in memory, so a small file must not unpack to more than a small machine has.
const MAX_TOTAL_BYTES: u64 = 2 << 30;
/// As many pairs of sockets as one libzmq context opens by default.
const MAX_ENGINES: usize = 500;

/// A recording in memory: who spoke, and every message in global publish order.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Who spoke.
    pub header: Header,
    /// Every message, in global publish order.
    pub records: Vec<Record>,
}

/// One published message: the three ZMQ frames, and who sent them when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Index into [`Header::engines`].
    pub engine: u32,
    /// Frame 2. Counts from 0 for each engine; 0 after others is a restarted engine.
    pub seq: u64,
    /// Microseconds since the first record.
    pub t_us: u64,
    /// Frame 1.
    pub topic: Vec<u8>,
    /// Frame 3: the msgpack event batch, as the engine encoded it.
    pub payload: Vec<u8>,
}

/// Why a recording could not be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file is missing or may not be read.
    #[error("cannot open recording {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not gzip, or its gzip stream is damaged.
    #[error("recording {path}: {what} cannot be unpacked: {source}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The part being read.
        what: String,
        /// What the decoder said.
        source: io::Error,
    },
    /// The unpacked file does not start as a recording does.
    #[error("{path} is not a recording: it does not start with KVREC1")]
    BadMagic {
        /// The file.
        path: PathBuf,
    },
    /// The file ends inside something.
    #[error("recording {path} is truncated: it ends inside {what}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part that is incomplete.
        what: String,
    },
    /// A length or count is beyond its limit.
    #[error("recording {path}: {field} is {value}, the limit is {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The field and where it stands.
        field: String,
        /// Its value.
        value: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// The header is not the JSON it should be, or contradicts itself.
    #[error("recording {path}: bad header: {problem}")]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A record names an engine that the header does not.
    #[error("recording {path}: record {record} is of engine {engine}, the header has {engines}")]
    UnknownEngine {
        /// The file.
        path: PathBuf,
        /// Position of the record.
        record: usize,
        /// The engine it names.
        engine: u32,
        /// Engines in the header.
        engines: usize,
    },
}

impl Recording {
    /// Reads all of `CASE.kvrec.gz`, where `case` is the path without that suffix (`…/cases/conv-a`).
    ///
    /// # Errors
    /// [`RecordingError`] when the file is missing, damaged, truncated or beyond the limits.
    pub fn open(case: &Path) -> Result<Self, RecordingError> {
        let mut reader = Reader::open(case)?;
        let header = reader.header()?;
        let mut records = Vec::new();
        let mut total = 0u64;
        while let Some(record) = reader.record(records.len(), header.engines.len())? {
            total += (record.payload.len() + record.topic.len()) as u64;
            reader.limit(|| "size of all records".into(), total, MAX_TOTAL_BYTES)?;
            records.push(record);
        }
        Ok(Self { header, records })
    }

    /// Reads the header of a case only.
    ///
    /// # Errors
    /// As [`Recording::open`], for what concerns the header.
    pub fn open_header(case: &Path) -> Result<Header, RecordingError> {
        Reader::open(case)?.header()
    }
}

/// `CASE` + suffix; a plain `with_extension` would cut the version off `basic-v0.11.0`.
pub(crate) fn case_file(case: &Path, suffix: &str) -> PathBuf {
    let mut name = case.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

struct Reader<R> {
    path: PathBuf,
    input: R,
}

impl Reader<BufReader<MultiGzDecoder<File>>> {
    fn open(case: &Path) -> Result<Self, RecordingError> {
        let path = case_file(case, ".kvrec.gz");
        match File::open(&path) {
            Ok(file) => Ok(Self { input: BufReader::new(MultiGzDecoder::new(file)), path }),
            Err(source) => Err(RecordingError::Open { path, source }),
        }
    }
}

impl<R: Read> Reader<R> {
    fn header(&mut self) -> Result<Header, RecordingError> {
        let mut magic = [0; MAGIC.len()];
        match self.fill(&mut magic, || "the magic bytes".into()) {
            Ok(()) if magic == MAGIC => {}
            // A file that is no gzip at all is most likely the wrong file, not a damaged one.
            Ok(()) | Err(RecordingError::Corrupt { .. }) => {
                return Err(RecordingError::BadMagic { path: self.path.clone() });
            }
            Err(other) => return Err(other),
        }
        let mut length = [0; 4];
        self.fill(&mut length, || "the header length".into())?;
        let length = u32::from_be_bytes(length);
        self.limit(|| "header length".into(), length.into(), MAX_HEADER_BYTES.into())?;
        let mut json = vec![0; length as usize];
        self.fill(&mut json, || "the header".into())?;
        let header: Header = serde_json::from_slice(&json).map_err(|e| self.bad_header(e.to_string()))?;
        self.check(&header)?;
        Ok(header)
    }

    fn check(&self, header: &Header) -> Result<(), RecordingError> {
        let engines = header.engines.len();
        self.limit(|| "number of engines".into(), engines as u64, MAX_ENGINES as u64)?;
        for (place, engine) in header.engines.iter().enumerate() {
            if engine.index as usize != place {
                return Err(self.bad_header(format!("engine at place {place} has index {}", engine.index)));
            }
            if engine.block_size == 0 || engine.hash_block_size() == 0 {
                return Err(self.bad_header(format!("engine {place} has block size 0")));
            }
        }
        Ok(())
    }

    fn record(&mut self, place: usize, engines: usize) -> Result<Option<Record>, RecordingError> {
        let mut head = [0; RECORD_HEAD_BYTES];
        // The end of the file is only allowed before the first byte of a record.
        let got = self.read_some(&mut head, || format!("record {place}"))?;
        if got == 0 {
            return Ok(None);
        }
        if got < head.len() {
            return Err(self.truncated(format!("the head of record {place}")));
        }
        let engine = u32::from_be_bytes(field(&head, 0));
        let topic_bytes = u16::from_be_bytes(field(&head, 20));
        let payload_bytes = u32::from_be_bytes(field(&head, 22));
        if engine as usize >= engines {
            return Err(RecordingError::UnknownEngine {
                path: self.path.clone(),
                record: place,
                engine,
                engines,
            });
        }
        self.limit(
            || format!("payload length of record {place}"),
            payload_bytes.into(),
            MAX_PAYLOAD_BYTES.into(),
        )?;
        let mut topic = vec![0; topic_bytes.into()];
        self.fill(&mut topic, || format!("the topic of record {place}"))?;
        let mut payload = vec![0; payload_bytes as usize];
        self.fill(&mut payload, || format!("the payload of record {place}"))?;
        Ok(Some(Record {
            engine,
            seq: u64::from_be_bytes(field(&head, 4)),
            t_us: u64::from_be_bytes(field(&head, 12)),
            topic,
            payload,
        }))
    }

    fn fill(&mut self, buf: &mut [u8], what: impl Fn() -> String) -> Result<(), RecordingError> {
        if self.read_some(buf, &what)? < buf.len() {
            return Err(self.truncated(what()));
        }
        Ok(())
    }

    /// Reads until `buf` is full or the file ends; how many bytes it got.
    fn read_some(&mut self, buf: &mut [u8], what: impl Fn() -> String) -> Result<usize, RecordingError> {
        let mut got = 0;
        while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // What the gzip decoder says when the compressed stream itself is cut.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                    return Err(self.truncated(what()));
                }
                Err(source) => {
                    return Err(RecordingError::Corrupt { path: self.path.clone(), what: what(), source });
                }
            }
        }
        Ok(got)
    }

    fn limit(&self, name: impl FnOnce() -> String, value: u64, limit: u64) -> Result<(), RecordingError> {
        if value <= limit {
            return Ok(());
        }
        Err(RecordingError::TooLarge { path: self.path.clone(), field: name(), value, limit })
    }

    fn truncated(&self, what: String) -> RecordingError {
        RecordingError::Truncated { path: self.path.clone(), what }
    }

    fn bad_header(&self, problem: String) -> RecordingError {
        RecordingError::BadHeader { path: self.path.clone(), problem }
    }
}

/// `N` bytes of a record's head. The offsets are constants inside the array, so nothing is ever cut short.
fn field<const N: usize>(head: &[u8; RECORD_HEAD_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(head.iter().skip(at)) {
        *to = *from;
    }
    out
}
