//! The fields of a request as they came, from JSON or MessagePack, in one pass. Dialects differ in what they make of a
//! missing, unknown or wrong one, so nothing is decided here; and nothing is kept but known fields, lists up to a limit
//! and texts that are in the body anyway, so that a body takes no more memory than it may.

use rmp_serde::decode;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use std::fmt;

use super::values::{Listed, One};

/// How deep lists and maps may lie in each other; the deepest request has two levels.
const MAX_DEPTH: usize = 16;

/// Longest part of an unknown field's name that is told back.
const MAX_SHOWN: usize = 64;

/// A value that is no list of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool,
    Int(i128),
    Real,
    Text(String),
    /// A list or bytes, which no such field takes.
    List,
    /// A map's own values, one level deep.
    Map(Vec<(String, Scalar)>),
}

/// Why a number of a list is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is no whole number.
    Kind,
    /// It is a number that does not fit.
    Range,
}

/// A list of numbers as it came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum List {
    /// Whole numbers of at most 64 bits; negative ones as their two's complement.
    Numbers {
        values: Vec<u64>,
        /// How many there were; more than `values` when there were more than the limit.
        found: usize,
        /// The first that is negative.
        negative: Option<usize>,
        /// The first that is none, and why; nothing after it is kept.
        flaw: Option<(usize, Flaw)>,
    },
    /// Token ids: whole numbers from 0 to 2^32 - 1.
    Tokens {
        values: Vec<u32>,
        /// How many there were; more than `values` when there were more than the limit.
        found: usize,
        /// The first that is none, and why; nothing after it is kept.
        flaw: Option<(usize, Flaw)>,
    },
    /// Bytes, which MessagePack has.
    Bytes(Vec<u8>),
    /// `null`.
    Null,
    /// Something else.
    Other,
}

/// What a known field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// One value.
    One,
    /// A list of token ids.
    Tokens,
    /// A list of hashes.
    Numbers,
}

/// The fields that a call knows.
pub(super) type Known = &'static [(&'static str, Holds)];

/// What a body holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    ones: Vec<(&'static str, Scalar)>,
    lists: Vec<(&'static str, List)>,
    /// The first field that is not known.
    pub(super) unknown: Option<String>,
}

impl Fields {
    /// Reads a JSON object. The error is the reader's sentence.
    pub(super) fn of_json(bytes: &[u8], known: Known, limit: usize) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let fields = Body { known, limit }.deserialize(&mut json).map_err(|error| error.to_string())?;
        json.end().map_err(|error| error.to_string())?;
        Ok(fields)
    }

    /// Reads a MessagePack map, where it lies: nothing is copied but what is kept. The error is the reader's sentence.
    pub(super) fn of_msgpack(bytes: &[u8], known: Known, limit: usize) -> Result<Self, String> {
        let mut msgpack = rmp_serde::Deserializer::from_read_ref(bytes);
        msgpack.set_max_depth(MAX_DEPTH);
        let fields = Body { known, limit }.deserialize(&mut msgpack).map_err(|error| error.to_string())?;
        match msgpack.deserialize_any(Nothing) {
            // There is no next value, not even its first byte.
            Err(decode::Error::InvalidMarkerRead(_)) => Ok(fields),
            Ok(()) | Err(_) => Err("more bytes follow the map".into()),
        }
    }

    /// A field that holds one value; `None` when it is not there.
    pub(super) fn one(&self, name: &str) -> Option<&Scalar> {
        self.ones.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The known fields that are there.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.ones.iter().map(|(name, _)| *name).chain(self.lists.iter().map(|(name, _)| *name))
    }

    /// A list, taken out; `None` when it is not there.
    pub(super) fn take_list(&mut self, name: &str) -> Option<List> {
        let place = self.lists.iter().position(|(known, _)| *known == name)?;
        Some(self.lists.swap_remove(place).1)
    }
}

/// A whole body.
struct Body {
    known: Known,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Body {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            let known = self.known.iter().find(|(known, _)| *known == name);
            let Some((name, holds)) = known.copied() else {
                map.next_value::<IgnoredAny>()?;
                fields.unknown.get_or_insert_with(|| name.chars().take(MAX_SHOWN).collect());
                continue;
            };
            if fields.ones.iter().any(|(known, _)| *known == name)
                || fields.lists.iter().any(|(known, _)| *known == name)
            {
                return Err(A::Error::custom(format_args!("{name} is there twice")));
            }
            match holds {
                Holds::One => fields.ones.push((name, map.next_value_seed(One { is_inner: false })?)),
                Holds::Tokens | Holds::Numbers => {
                    let seed = Listed { is_tokens: holds == Holds::Tokens, limit: self.limit };
                    fields.lists.push((name, map.next_value_seed(seed)?));
                }
            }
        }
        Ok(fields)
    }
}

/// What takes no value: the reader does not tell how much it has read.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_may_follow_a_packed_map() {
        let known: Known = &[("a", Holds::One), ("ids", Holds::Tokens)];
        let read = |bytes: &[u8]| Fields::of_msgpack(bytes, known, 8);
        let fields = read(b"\x82\xa1a\x07\xa3ids\xc4\x04\x01\x00\x00\x00").unwrap();
        assert_eq!(fields.one("a"), Some(&Scalar::Int(7)));
        assert_eq!(fields.lists, [("ids", List::Bytes(vec![1, 0, 0, 0]))]);
        // Another value, or the beginning of one, or none.
        for behind in [&b"\x80"[..], b"\x01", b"\xcd", b"\x91", b"\x81\xa1", b"\xc1"] {
            let error = read(&[b"\x81\xa1a\x07", behind].concat()).unwrap_err();
            assert_eq!(error, "more bytes follow the map", "{behind:?}");
        }
        assert!(read(b"\x82\xa1a\x07").is_err(), "an entry is missing");
    }
}
