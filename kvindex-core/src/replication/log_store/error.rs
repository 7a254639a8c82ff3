//! What may go wrong with a log, in words that say what to do.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

use super::super::ids::{NodeId, ShardId};

/// Why the log cannot be read or written. After an error of a write the node must stop: what is on disk is not
/// known any more, and a second flush may claim what the first one lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// A stored entry or mark is not what was written.
    #[error(
        "{shard}, {what}, in {place} is damaged: {why}. Stop the node, put that directory aside and let the \
         node join anew under a new id"
    )]
    Damaged {
        /// Whose log.
        shard: ShardId,
        /// Which entry or mark.
        what: String,
        /// The directory.
        place: String,
        /// What does not fit.
        why: String,
    },
    /// Written by a later program.
    #[error(
        "{shard}, {what}, in {place} has version {found}, this program reads up to {known}: upgrade this node"
    )]
    Newer {
        /// Whose log.
        shard: ShardId,
        /// Which entry or mark.
        what: String,
        /// The directory.
        place: String,
        /// Its version.
        found: u8,
        /// The highest known one.
        known: u8,
    },
    /// Entries are missing between others.
    #[error(
        "{shard}: entry {missing} is missing from the log in {place}. Stop the node, put that directory aside and \
         let the node join anew under a new id"
    )]
    Hole {
        /// Whose log.
        shard: ShardId,
        /// The first missing index.
        missing: u64,
        /// The directory.
        place: String,
    },
    /// A directory that cannot be opened as it is.
    #[error("{}: {why}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// A log whose files are not what was written.
    #[error("{}: {why}. The directory has to be put aside, and the node to join anew under a new id", path.display())]
    Broken {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and in which file.
        why: String,
    },
    /// A log that has lost what it had acknowledged, although all that it holds is sound.
    #[error(
        "{shard}: {leader} leads and has this node's word for entry {had}, which the log in {place} does not hold: it \
         is an old copy, or lost its end with the power. The directory has to be put aside, and the node to join anew \
         under a new id"
    )]
    WentBack {
        /// Whose log.
        shard: ShardId,
        /// Who noticed.
        leader: NodeId,
        /// Index of the last entry that was acknowledged.
        had: u64,
        /// The directory.
        place: String,
    },
    /// The storage engine failed.
    #[error("{doing} failed in {place}: {why}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// The directory.
        place: String,
        /// The engine's own words.
        why: String,
    },
    /// What was to be appended does not follow the last entry.
    #[error("{shard}: entry {found} cannot follow entry {last}")]
    NotNext {
        /// Whose log.
        shard: ShardId,
        /// The index to append.
        found: u64,
        /// The last index.
        last: u64,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Whether the log is not what was written, or not all of it. Nothing mends that: the node has to join anew, under
    /// a new id. Other errors may pass, such as those of a full disk.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Hole { .. } | Self::Broken { .. } | Self::WentBack { .. })
    }
}

/// Whether an error of a storage engine comes from files that are not what was written, and not from a disk that is
/// full, gone or somebody else's.
pub(super) fn comes_from_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound
    )
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Damaged { .. }
            | LogError::Newer { .. }
            | LogError::Hole { .. }
            | LogError::Broken { .. }
            | LogError::WentBack { .. } => io::ErrorKind::InvalidData,
            LogError::NotNext { .. } => io::ErrorKind::InvalidInput,
            LogError::Directory { .. } | LogError::Engine { .. } | LogError::Closed => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
