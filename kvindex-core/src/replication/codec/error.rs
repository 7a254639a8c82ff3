//! Why bytes are not a log entry.

use super::VERSION;
use crate::ids::NameError;

/// Why bytes are not a log entry, or commands cannot be one. The log's records carry checksums, so in service each of these means a program
/// of another version or a defect, not a bad disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer program.
    #[error("entry of version {0}, this program reads up to {VERSION}: upgrade this node first")]
    Newer(u8),
    /// No version that ever was.
    #[error("not a log entry: version {0} never was")]
    NotAnEntry(u8),
    /// The bytes end too early.
    #[error("entry ends inside {0}")]
    Truncated(&'static str),
    /// A number is too large for what it counts.
    #[error("entry holds {value} as {what}, at most {most} can be")]
    TooLarge {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: u64,
        /// The largest possible one.
        most: u64,
    },
    /// A number that does not fit 64 bits.
    #[error("entry holds a number of more than 64 bits as {0}")]
    Overlong(&'static str),
    /// A text that is not UTF-8.
    #[error("entry holds bytes that are no text as {0}")]
    NotText(&'static str),
    /// A worker's name that no worker can have.
    #[error("entry names an impossible worker: {0}")]
    Name(#[from] NameError),
    /// Another run's last block is meant, but the stream stored none before in this entry.
    #[error("entry continues a run that is not in it")]
    NothingBefore,
    /// More hashes repeated than a few bytes may ask for.
    #[error("entry repeats {copied} hashes but spells out {spelled} only")]
    TooManyCopies {
        /// Hashes repeated.
        copied: usize,
        /// Hashes spelled out before.
        spelled: usize,
    },
    /// Bytes behind the last command.
    #[error("entry holds {0} bytes that belong to no command")]
    LeftOver(usize),
    /// A worker's description, or blocks to forget, that cannot be written or read.
    #[error("a description in the entry: {0}")]
    Described(String),
}
