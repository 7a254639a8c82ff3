//! The fields of a request as they came, from JSON or MessagePack, in one pass. Dialects differ in what they make of a
//! missing, unknown or wrong one, so nothing is decided here; and nothing is kept but known fields, lists up to a limit
//! and texts that are in the body anyway, so that a body takes no more memory than it may.

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

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

    /// Reads a MessagePack map. The error is the reader's sentence.
    pub(super) fn of_msgpack(bytes: &[u8], known: Known, limit: usize) -> Result<Self, String> {
        let mut rest = bytes;
        let mut msgpack = rmp_serde::Deserializer::new(&mut rest);
        msgpack.set_max_depth(MAX_DEPTH);
        let fields = Body { known, limit }.deserialize(&mut msgpack).map_err(|error| error.to_string())?;
        drop(msgpack);
        if rest.is_empty() { Ok(fields) } else { Err(format!("{} bytes follow the map", rest.len())) }
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

/// One value.
struct One {
    /// Whether it is a map's own value: a map in that is not kept.
    is_inner: bool,
}

impl<'de> DeserializeSeed<'de> for One {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Int(value.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Real)
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Scalar, E> {
        Ok(Scalar::List)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        /// The one map of these calls has four entries.
        const MAX_ENTRIES: usize = 16;
        let mut values = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.is_inner || values.len() >= MAX_ENTRIES {
                map.next_value::<IgnoredAny>()?;
            } else {
                values.push((name, map.next_value_seed(One { is_inner: true })?));
            }
        }
        Ok(Scalar::Map(values))
    }
}

/// A list of numbers.
struct Listed {
    is_tokens: bool,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Listed {
    type Value = List;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<List, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Listed {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<List, E> {
        Ok(List::Null)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<List, E> {
        Ok(List::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<List, A::Error> {
        if self.is_tokens { tokens(list, self.limit) } else { numbers(list, self.limit) }
    }

    fn visit_bool<E>(self, _: bool) -> Result<List, E> {
        Ok(List::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<List, E> {
        Ok(List::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<List, E> {
        Ok(List::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<List, E> {
        Ok(List::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<List, E> {
        Ok(List::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(List::Other)
    }
}

fn tokens<'de, A: SeqAccess<'de>>(mut list: A, limit: usize) -> Result<List, A::Error> {
    let (mut values, mut found, mut flaw) = (Vec::new(), 0, None);
    while let Some(scalar) = list.next_element_seed(Number)? {
        let token = scalar.and_then(|number| u32::try_from(number).map_err(|_| Flaw::Range));
        match token {
            Ok(token) if found < limit && flaw.is_none() => values.push(token),
            Ok(_) => {}
            Err(why) => flaw = flaw.or(Some((found, why))),
        }
        found += 1;
    }
    Ok(List::Tokens { values, found, flaw })
}

#[allow(clippy::cast_sign_loss)] // hashes are 64 bits, whichever way they are written
fn numbers<'de, A: SeqAccess<'de>>(mut list: A, limit: usize) -> Result<List, A::Error> {
    let (mut values, mut found, mut negative, mut flaw) = (Vec::new(), 0, None, None);
    while let Some(scalar) = list.next_element_seed(Number)? {
        match scalar {
            Ok(number) => {
                if number < 0 {
                    negative = negative.or(Some(found));
                }
                if found < limit && flaw.is_none() {
                    values.push(if number < 0 { number as i64 as u64 } else { number as u64 });
                }
            }
            Err(why) => flaw = flaw.or(Some((found, why))),
        }
        found += 1;
    }
    Ok(List::Numbers { values, found, negative, flaw })
}

/// One number of a list.
struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = Result<i128, Flaw>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Number {
    type Value = Result<i128, Flaw>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Ok(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Ok(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        // A whole number too large for 64 bits is read as this.
        Ok(Err(if value.fract() == 0.0 && value.abs() >= 9e15 { Flaw::Range } else { Flaw::Kind }))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(Flaw::Kind))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(Flaw::Kind))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(Flaw::Kind))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Err(Flaw::Kind))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(Flaw::Kind))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Err(Flaw::Kind))
    }
}
