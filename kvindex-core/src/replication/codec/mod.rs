//! A log entry's bytes. Hashes make up nearly all of a shard's commands, 16 bytes a stored block and 8 a removed
//! one; this format is there so that all the rest nearly vanishes, and so that reading them is copying columns.
//!
//! # Layout
//!
//! `version` (one byte, 2), `length of the head` (number), `head`, `words`.
//!
//! A *number* is unsigned LEB128 of at most 64 bits. A *step* is a number that says how far a value is from the
//! expected one: the wrapped 64-bit difference, zigzag. *Bytes* and *text* are their length as a number, then
//! themselves. *Words* are 8 little-endian bytes each: every hash in the order of its first use. To *spell* `n`
//! hashes is to use the next `n` words; to *repeat* them is to use `n` words that end at or before the next one,
//! beginning a distance before it that the head says as a number. At most 16 words are repeated for each one
//! spelled before. All words and all of the head are used.
//!
//! The head is commands, one after the other. Each starts with a number, its *tag*. An even tag is event batches:
//!
//! | tag bit | means |
//! |---|---|
//! | 1 | a payload digest is there: one spelled word |
//! | 2 | the generation is not the stream's last one in this entry (at first 0): a step from that follows |
//! | 3 | not exactly one batch: their number follows, after the time |
//! | 4 and up | the stream: its number in this entry, or the next free one, then it follows first |
//!
//! A *stream* is its worker, its rank (number) and the number of the worker's registration as a step from that of the
//! stream before (at first 0). Of the worker's name the first bytes may be those of the stream before: their number, if
//! there is a stream before; then the others (bytes). Version 1, which is still read, said nothing of registrations.
//!
//! Then: generation if said, time as a step from the last time in the entry (at first 0), number of batches if
//! said, batches. A batch is a number, twice its number of changes plus 1 if its sequence number is not the one
//! after the stream's last in this entry (at first 0); then a step from that follows. Then its changes.
//!
//! A change starts with a number. Bit 0: 0 for a stored run, 1 for another. A stored run:
//!
//! | bits | mean |
//! |---|---|
//! | 1–2 | parent: 0 none, 1 the last block of the run that the stream stored before in this entry, 2 spelled, 3 repeated |
//! | 3–4 | columns: 0 one block and `stride` local hashes, spelled; 1 the same for many, their number follows; 2 both as columns |
//! | 5 and up | the shape: its number, or the next free one, then it follows first |
//!
//! Engine hashes come before local hashes. A *column* is a number, twice its length plus 1 if it is repeated, then
//! the distance. A *place* is a number, 8 times the group plus the tier: 0 device, 1 host, 2 disk, 3 external, 4 for
//! one whose name (text) follows. A *shape* is a place, flags (number), block size (number), then what the flags
//! announce, in this order: stride (number) by bit 4, else 1; lookahead (byte) by bit 5, else 0; adapter (text) by
//! bit 0; window (number) by bit 1. Further flags: bit 2 salt visible, 3 content only, 6–7 how items are visible
//! (hidden, bare, with offset), 8–10 kind of the group (unknown, full, sliding window, mamba, other).
//!
//! Another change is told by bits 1–2:
//!
//! | bits 1–2 | change | bits 3 and up |
//! |---|---|---|
//! | 0 | removal | 3–4: hashes of one block, 1 of many (their number follows), 2 a column, 3 as many removals of one block each as the number says that follows; 5 and up the place, like a shape |
//! | 1 | clear | 0 every tier, 1 the tier that follows, as a place of group 0 |
//! | 2 | an event that could not be read | 0 |
//!
//! Odd tags:
//!
//! | tag | command | fields |
//! |---|---|---|
//! | 1 | register | the description as msgpack (bytes), so that it can grow |
//! | 3 | unregister | worker (text) |
//! | 5 | new generation | stream (number, as above), generation (step), time (step) |
//! | 7 | gap | stream, generation (step), first lost (step from the next), how many more (step from 0), policy (0 purge, 1 keep), time (step) |
//! | 9 | evict | entries (number), time (step) |
//! | 11 | of the hosting program | bytes |
//! | 13 | forget | the owner and its blocks as msgpack (bytes) |
//!
//! # Reading
//!
//! An entry stands alone: nothing is expected from the ones before. Whatever the bytes, reading never panics and
//! never allocates more than a constant times their length. A flipped bit may read as another entry: that bytes are
//! those written is for the log record's checksum to say.

mod decode;
mod dictionary;
mod encode;
mod error;
mod head;
mod words;

pub use decode::decode;
pub use encode::{EntryEncoder, encode};
pub use error::CodecError;

/// The version written. Readers of version N read all up to N.
const VERSION: u8 = 2;
