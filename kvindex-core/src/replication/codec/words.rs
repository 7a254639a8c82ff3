//! The words of an entry: every hash once, in the order of its first use. Columns are stretches of them, so that
//! reading a column is one copy; what an entry says again points back.

use smallvec::SmallVec;

use super::CodecError;
use super::head::{Head, put_number};
use crate::columns::{Column, Word};

/// Words that may be repeated for each one spelled out before: what bounds the memory that a few bytes ask for.
const MAX_COPIES_PER_WORD: usize = 16;

/// Slots of the table that finds repeated words: twice as many as a full entry of 16 KiB has words.
const SLOTS: usize = 4096;

/// Whether so many words may be repeated in all, after so many were spelled out.
fn allowed(copied: usize, spelled: usize) -> bool {
    copied <= spelled.saturating_mul(MAX_COPIES_PER_WORD)
}

/// Words being written.
#[derive(Debug)]
pub(super) struct WordWriter {
    words: Vec<u64>,
    /// Where a word was written last, plus 1, by some of its bits. A later word takes the slot of an earlier one:
    /// what is not found is spelled out again.
    slots: Box<[u16; SLOTS]>,
    copied: usize,
}

impl WordWriter {
    pub(super) fn new() -> Self {
        Self { words: Vec::new(), slots: Box::new([0; SLOTS]), copied: 0 }
    }

    pub(super) fn written(&self) -> &[u64] {
        &self.words
    }

    fn slot(word: u64) -> usize {
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.trailing_zeros())) as usize
    }

    /// Writes a word that nothing repeats.
    pub(super) fn put(&mut self, word: u64) {
        self.words.push(word);
    }

    /// Writes a column's words.
    pub(super) fn spell<T: Word>(&mut self, column: &[T]) {
        let first = self.words.len();
        self.words.extend(column.iter().map(|word| word.to_word()));
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let Ok(place) = u16::try_from(at + 1) else { return };
            self.slots[Self::slot(*word)] = place;
        }
    }

    /// How far back the same words stand already; none when they do not, or may not be repeated once more.
    pub(super) fn find<T: Word>(&self, column: &[T]) -> Option<usize> {
        let first = column.first()?.to_word();
        let at = usize::from(self.slots[Self::slot(first)]).checked_sub(1)?;
        let there = self.words.get(at..at.checked_add(column.len())?)?;
        let copied = self.copied + column.len();
        let same = there.iter().zip(column).all(|(there, word)| *there == word.to_word());
        (same && allowed(copied, self.words.len())).then(|| self.words.len() - at)
    }

    /// Counts words that the head repeats.
    pub(super) fn repeat(&mut self, count: usize) {
        self.copied += count;
    }

    /// Appends all words, 8 little-endian bytes each.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.resize(from + 8 * self.words.len(), 0);
        let (places, _) = out[from..].as_chunks_mut::<8>();
        for (place, word) in places.iter_mut().zip(&self.words) {
            *place = word.to_le_bytes();
        }
    }
}

/// Words being read.
#[derive(Debug)]
pub(super) struct Words<'a> {
    words: &'a [[u8; 8]],
    next: usize,
    copied: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(CodecError::Truncated("a hash"));
        }
        Ok(Self { words, next: 0, copied: 0 })
    }

    /// Bytes of words that nothing has named yet.
    pub(super) fn left(&self) -> usize {
        (self.words.len() - self.next) * 8
    }

    /// The next `count` words.
    fn take(&mut self, count: usize) -> Result<&'a [[u8; 8]], CodecError> {
        let end = self.next.checked_add(count).ok_or(CodecError::Truncated("a hash column"))?;
        let taken = self.words.get(self.next..end).ok_or(CodecError::Truncated("a hash column"))?;
        self.next = end;
        Ok(taken)
    }

    pub(super) fn word<T: Word>(&mut self) -> Result<T, CodecError> {
        match self.take(1)? {
            [word] => Ok(T::from_word(u64::from_le_bytes(*word))),
            _ => Err(CodecError::Truncated("a hash")),
        }
    }

    pub(super) fn column<T: Word>(&mut self, count: usize) -> Result<Column<T>, CodecError> {
        Ok(column(self.take(count)?))
    }

    /// `count` words from as far back as the head says next.
    pub(super) fn copy<T: Word>(
        &mut self,
        head: &mut Head<'_>,
        count: usize,
    ) -> Result<Column<T>, CodecError> {
        let back = head.at_most(self.next as u64, "the distance to the same hashes")? as usize;
        self.copied = self.copied.saturating_add(count);
        if !allowed(self.copied, self.next) {
            return Err(CodecError::TooManyCopies { copied: self.copied, spelled: self.next });
        }
        let first = self.next - back;
        let most = back as u64;
        let too_large =
            CodecError::TooLarge { what: "a number of repeated hashes", value: count as u64, most };
        let there = self.words.get(first..self.next).and_then(|there| there.get(..count));
        Ok(column(there.ok_or(too_large)?))
    }
}

/// One copy: a vector is filled at once, and short columns need no allocation.
fn column<T: Word>(words: &[[u8; 8]]) -> Column<T> {
    let read = words.iter().map(|word| T::from_word(u64::from_le_bytes(*word)));
    if words.len() <= 2 { read.collect() } else { SmallVec::from_vec(read.collect()) }
}

/// Writes a column that may stand in the entry already: its length, shifted, and whether it is repeated.
pub(super) fn put_column<T: Word>(head: &mut Vec<u8>, words: &mut WordWriter, column: &[T]) {
    let length = (column.len() as u64) << 1;
    if let Some(back) = words.find(column) {
        put_number(head, length | 1);
        put_number(head, back as u64);
        words.repeat(column.len());
    } else {
        put_number(head, length);
        words.spell(column);
    }
}

/// Reads what [`put_column`] wrote.
pub(super) fn get_column<T: Word>(
    head: &mut Head<'_>,
    words: &mut Words<'_>,
) -> Result<Column<T>, CodecError> {
    let length = head.number("a column's length")?;
    let count = usize::try_from(length >> 1).map_err(|_| CodecError::Truncated("a hash column"))?;
    if length & 1 == 1 { words.copy(head, count) } else { words.column(count) }
}
