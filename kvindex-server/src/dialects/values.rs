//! The values of a request's fields, read from whichever form they come in. Nothing is kept of a value that no field
//! takes but what kind it is.

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

use super::fields::{Flaw, List, Scalar};

/// One value.
pub(super) struct One {
    /// Whether it is a map's own value: a map in that is not kept.
    pub(super) is_inner: bool,
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
pub(super) struct Listed {
    pub(super) is_tokens: bool,
    /// How many are kept.
    pub(super) limit: usize,
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
