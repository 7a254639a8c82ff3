//! How many commits a log is known to hold, beside the log: tells a log that lost its end from a shorter one.
//!
//! An engine that finds the end of its file missing takes what is left for the whole, and sled forgets what it finds
//! damaged, and all that follows, without a word. So each commit carries its number, and a file of ours says which one
//! was the last that is known to be flushed, written along with the next one. It may lag, never lead. Two places in
//! turn, so that a torn write leaves the other one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Places are in different blocks of the disk.
const APART: u64 = 4096;

/// The file's name, beside the engine's folder.
const NAME: &str = "commits";

/// The numbers of a log's commits.
#[derive(Debug)]
pub(super) struct Commits {
    seal: Seal,
    last: u64,
    /// The last one that is known to be flushed.
    flushed: u64,
}

impl Commits {
    /// The key under which an engine keeps the last commit's number. No key of a shard has an `m` there.
    pub(super) const KEY: &'static [u8] = b"commits";

    /// Begins in a fresh log.
    pub(super) fn found(folder: &Path) -> Result<Self, String> {
        let seal = Seal::create(&folder.join(NAME)).map_err(|error| error.to_string())?;
        Ok(Self { seal, last: 0, flushed: 0 })
    }

    /// Goes on in a log whose last commit, as its engine found it, is `stored`. What there is must be flushed next.
    pub(super) fn resume(folder: &Path, stored: Option<&[u8]>) -> Result<Self, String> {
        let path = folder.join(NAME);
        let (seal, known) = Seal::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let known = known.ok_or_else(|| format!("{} is damaged", path.display()))?;
        let last = stored.and_then(|bytes| bytes.try_into().ok().map(u64::from_be_bytes)).unwrap_or(0);
        if last < known {
            return Err(format!("{} flushed commits are missing at its end", known - last));
        }
        Ok(Self { seal, last, flushed: last })
    }

    /// Notes what was flushed before, and numbers the next commit: the value to store under [`Self::KEY`] with it.
    pub(super) fn next(&mut self) -> io::Result<[u8; 8]> {
        self.seal.write(self.flushed)?;
        self.last += 1;
        Ok(self.last.to_be_bytes())
    }

    /// The last commit, and all before, are flushed.
    pub(super) fn all_flushed(&mut self) {
        self.flushed = self.last;
    }

    /// All is flushed, and no commit will follow.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.all_flushed();
        self.seal.write(self.last)?;
        self.seal.file.sync_all()
    }
}

/// The file, held open.
#[derive(Debug)]
struct Seal {
    file: File,
    /// What it says.
    said: u64,
    /// Where it goes next.
    place: u64,
}

impl Seal {
    /// Makes the file, saying 0. Its name is durable once the folder is flushed.
    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut seal = Self { file, said: u64::MAX, place: 0 };
        seal.write(0)?;
        seal.file.sync_all()?;
        Ok(seal)
    }

    /// Opens it, and reads the number; `None` if it is damaged.
    fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
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
    fn write(&mut self, flushed: u64) -> io::Result<()> {
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
