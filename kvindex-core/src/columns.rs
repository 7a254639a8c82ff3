//! Hash columns as one byte string, 8 little-endian bytes a hash: half of what msgpack integers cost at
//! worst, and always the same size.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use smallvec::SmallVec;

use crate::hash::{EngineBlockHash, LocalBlockHash, SequenceHash};

/// Hashes of an event's blocks. One or two need no allocation: most events of a decoding engine carry no more.
pub type Column<T> = SmallVec<[T; 2]>;

/// A 64-bit value with a name.
pub(crate) trait Word: Copy {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

macro_rules! words {
    ($($name:ident),*) => {
        $(impl Word for $name {
            fn to_word(self) -> u64 {
                self.0
            }
            fn from_word(word: u64) -> Self {
                Self(word)
            }
        })*
    };
}
words!(EngineBlockHash, LocalBlockHash, SequenceHash);

pub(crate) fn serialize<T: Word, S: Serializer>(column: &[T], to: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = column.iter().flat_map(|hash| hash.to_word().to_le_bytes()).collect();
    to.serialize_bytes(&bytes)
}

pub(crate) fn deserialize<'de, T, C, D>(from: D) -> Result<C, D::Error>
where
    T: Word,
    C: FromIterator<T> + IntoIterator<Item = T>,
    D: Deserializer<'de>,
{
    let bytes = serde_bytes::ByteBuf::deserialize(from)?;
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(D::Error::custom("a hash column is not a multiple of 8 bytes"));
    }
    Ok(words.iter().map(|word| T::from_word(u64::from_le_bytes(*word))).collect())
}
