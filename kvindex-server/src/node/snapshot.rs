//! The snapshot file: the index and the known workers, written whole or not at all.
//!
//! Layout: 8 bytes of magic with the version, the length of the worker list as little-endian `u64`, the list as
//! JSON, the index's own snapshot, and XXH3-64 of all that as little-endian `u64`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kvindex_core::Index;
use kvindex_core::limits::IndexLimits;
use xxhash_rust::xxh3::xxh3_64;

use super::Node;
use super::registry::{KnownWorker, Registry};

/// Version 1. A change of layout takes the next number and keeps reading this one.
const MAGIC: [u8; 8] = *b"KVXNODE\x01";

/// A snapshot that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write snapshot {path}: {source}")]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A snapshot that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read snapshot {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no snapshot, or a damaged one.
    #[error("snapshot {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Node {
    /// Writes the snapshot: to a temporary file first, so that a crash leaves the old one. Events wait while the
    /// index is copied out, and so do queries that come after the first waiting event.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is still there.
    pub fn store_snapshot(&self, path: &Path) -> Result<usize, StoreError> {
        let bytes = {
            // No worker comes or goes meanwhile, so list and index agree.
            let _one_at_a_time = self.steering.lock();
            let workers = self.known_workers();
            encode(&workers, &self.index.read().snapshot())
        };
        let bytes = bytes.and_then(|bytes| replace_file(path, &bytes).map(|()| bytes.len()));
        bytes.map_err(|source| StoreError { path: path.into(), source })
    }

    /// Takes over the snapshot in `path`; answers false when there is none. Only for a node that has not
    /// started.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged; the node is as it was.
    pub fn load_snapshot(&self, path: &Path, limits: IndexLimits) -> Result<bool, LoadError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(LoadError::Unreadable { path: path.into(), source }),
        };
        let damaged = |reason| LoadError::Damaged { path: path.into(), reason };
        let (workers, index) = decode(&bytes, limits).map_err(damaged)?;
        *self.index.write() = index;
        *self.registry.write() = Registry::new(workers);
        Ok(true)
    }
}

fn encode(workers: &[KnownWorker], index: &[u8]) -> io::Result<Vec<u8>> {
    let workers = serde_json::to_vec(workers)?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + 16 + workers.len() + index.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(workers.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&workers);
    bytes.extend_from_slice(index);
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

fn decode(bytes: &[u8], limits: IndexLimits) -> Result<(Vec<KnownWorker>, Index), String> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or("it is too short")?;
    let rest = body.strip_prefix(&MAGIC).ok_or("it is no kvindex snapshot of version 1")?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return Err("its checksum does not fit".into());
    }
    let (len, rest) = rest.split_first_chunk::<8>().ok_or("it is too short")?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| "its worker list is too long")?;
    let (workers, index) = rest.split_at_checked(len).ok_or("its worker list is cut off")?;
    let workers = serde_json::from_slice(workers).map_err(|error| format!("its worker list: {error}"))?;
    let index = Index::restore(index, limits).map_err(|error| error.to_string())?;
    Ok((workers, index))
}

/// Puts `bytes` in the place of `path`, durable when this returns.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = OsString::from(path);
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // The rename itself is durable only once the folder is.
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
