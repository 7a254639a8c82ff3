//! How many commits a log is known to hold, beside the log: tells a log that lost its end from a shorter one.
//!
//! sled forgets what it finds damaged, and all that follows, without a word. So each commit carries its number, and a
//! file of ours says which one was the last that is known to be flushed. It is written along with the next commit and
//! covered by the same flush. Two places in turn, so that a torn write leaves the other one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Places are in different blocks of the disk.
const APART: u64 = 4096;

/// The file, held open.
#[derive(Debug)]
pub(super) struct Seal {
    file: File,
    /// What it says.
    said: u64,
    /// Where it goes next.
    place: u64,
}

impl Seal {
    /// Makes the file, saying 0.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut seal = Self { file, said: u64::MAX, place: 0 };
        seal.write(0)?;
        Ok(seal)
    }

    /// Opens it, and reads the number; `None` if it is damaged.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut found = [None; 2];
        for (place, found) in (0..).zip(&mut found) {
            let mut bytes = [0; 16];
            match file.read_exact_at(&mut bytes, place * APART) {
                Ok(()) => *found = decode(bytes),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        let [first, second] = found;
        let said = first.max(second);
        // Over the older one.
        let place = u64::from(first > second);
        Ok((Self { file, said: said.unwrap_or(u64::MAX), place }, said))
    }

    /// Notes the last commit that is flushed; durable with the next flush of the file system.
    pub(super) fn write(&mut self, flushed: u64) -> io::Result<()> {
        if self.said != flushed {
            self.file.write_all_at(&encode(flushed), self.place * APART)?;
            self.said = flushed;
            self.place = 1 - self.place;
        }
        Ok(())
    }
}

fn encode(commit: u64) -> [u8; 16] {
    let number = commit.to_le_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&xxh3_64(&number).to_le_bytes());
    bytes
}

fn decode(bytes: [u8; 16]) -> Option<u64> {
    let (number, sum) = bytes.split_at(8);
    let number: [u8; 8] = number.try_into().ok()?;
    (xxh3_64(&number).to_le_bytes() == *sum).then(|| u64::from_le_bytes(number))
}
