//! fjall's journal, checked before fjall opens it.
//!
//! fjall ends its recovery silently at the first header it cannot read, even if sound batches follow, and refuses to
//! open when a batch has all its headers but not all its bytes, even if that is only the batch that a loss of power
//! tore. A log may do neither: what is torn at the very end was never acknowledged and is cut off; damage before a
//! sound batch is damage to acknowledged entries, and an error.
//!
//! The journal, format 3 of fjall: batches of `1 | items u32 | seqno u64`, the items, `3 | checksum u64 | "FJL" 3`;
//! an item is `2 | type u8 | compression u8 | keyspace u64 | key length u16 | length u32 | length on disk u32 | key |
//! value` or `4 | keyspace u64`; the checksum is XXH3-64 over the items. A file is zeros from the last batch on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8; 4] = b"FJL\x03";

/// What is wrong with a journal.
#[derive(Debug)]
pub(super) enum JournalError {
    /// Not at its end: acknowledged entries are gone.
    Damaged {
        file: PathBuf,
        offset: u64,
    },
    Io(io::Error),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Checks the journals in fjall's folder, and cuts off the last one's torn end.
pub(super) fn check(folder: &Path) -> Result<(), JournalError> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            journals.extend(number.map(|number| (number, path)));
        }
    }
    journals.sort();
    let last = journals.last().map(|(number, _)| *number);
    for (number, file) in journals {
        let sound = sound_bytes(&file)?;
        let rest = read_rest(&file, sound)?;
        let torn = rest.iter().any(|byte| *byte != 0);
        if torn && (Some(number) != last || holds_a_batch(&rest)) {
            return Err(JournalError::Damaged { file, offset: sound });
        }
        if torn {
            tracing::warn!(file = %file.display(), offset = sound, "a torn write ends the journal; it is cut off");
            let file = OpenOptions::new().write(true).open(&file)?;
            file.set_len(sound)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// How many bytes of sound batches a journal begins with.
fn sound_bytes(path: &Path) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut sound = 0;
    while let Some(bytes) = batch(&mut reader)? {
        sound += bytes;
    }
    Ok(sound)
}

fn read_rest(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    Ok(rest)
}

/// Whether a sound batch begins somewhere in `bytes` after the end of another, damaged one.
fn holds_a_batch(bytes: &[u8]) -> bool {
    let ends = bytes.windows(TRAILER.len()).enumerate().filter(|(_, window)| window == TRAILER);
    ends.filter_map(|(at, _)| bytes.get(at + TRAILER.len()..))
        .any(|mut rest| matches!(batch(&mut rest), Ok(Some(_))))
}

/// The length of the batch that comes next, if it is sound.
fn batch(reader: &mut impl Read) -> io::Result<Option<u64>> {
    let next = Batch { reader, hasher: Xxh3::new(), bytes: 0 };
    match next.read() {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        result => result,
    }
}

struct Batch<'a, R> {
    reader: &'a mut R,
    hasher: Xxh3,
    bytes: u64,
}

impl<R: Read> Batch<'_, R> {
    fn read(mut self) -> io::Result<Option<u64>> {
        let [tag] = self.take()?;
        if tag != START {
            return Ok(None);
        }
        let items = u32::from_le_bytes(self.take()?);
        let _seqno: [u8; 8] = self.take()?;
        self.hasher = Xxh3::new();
        for _ in 0..items {
            match self.take()? {
                [ITEM] => self.item()?,
                [CLEAR] => drop(self.take::<8>()?),
                _ => return Ok(None),
            }
        }
        let sum = self.hasher.digest();
        let tag = self.take()?;
        let found = u64::from_le_bytes(self.take()?);
        let sound = tag == [END] && found == sum && self.take()? == *TRAILER;
        Ok(sound.then_some(self.bytes))
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.hasher.update(&bytes);
        self.bytes += N as u64;
        Ok(bytes)
    }

    fn item(&mut self) -> io::Result<()> {
        let _type_compression_keyspace: [u8; 10] = self.take()?;
        let key = u16::from_le_bytes(self.take()?);
        let _length: [u8; 4] = self.take()?;
        let value = u32::from_le_bytes(self.take()?);
        let mut left = u64::from(key) + u64::from(value);
        let mut piece = [0; 1 << 12];
        while left > 0 {
            let size = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = piece.get_mut(..size).unwrap_or_default();
            self.reader.read_exact(piece)?;
            self.hasher.update(piece);
            self.bytes += size as u64;
            left -= size as u64;
        }
        Ok(())
    }
}
