//! A cursor over msgpack bytes. It never allocates from a length that the wire claims and never recurses,
//! so neither a huge length nor a deep nesting costs more than the payload's own bytes.

use rmp::Marker;

use super::error::DecodeError;

/// The unread rest of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// An integer as the wire has it: signed and unsigned 64 bits both fit.
pub(super) type WireInt = i128;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next value's marker, without consuming it.
    pub(super) fn peek(&self, field: &'static str) -> Result<Marker, DecodeError> {
        self.rest.first().map(|byte| Marker::from_u8(*byte)).ok_or(DecodeError::Truncated { field })
    }

    fn marker(&mut self, field: &'static str) -> Result<Marker, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(Marker::from_u8(*first))
    }

    #[inline]
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(*head)
    }

    fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::LengthBeyondPayload {
            field,
            claimed: len as u64,
            remaining: self.rest.len(),
        })?;
        self.rest = rest;
        Ok(head)
    }

    /// Consumes a nil, if one is next.
    pub(super) fn nil(&mut self) -> bool {
        let nil = self.rest.first() == Some(&0xc0);
        if nil {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        nil
    }

    /// Consumes an integer, if one is next.
    #[inline]
    pub(super) fn int(&mut self, field: &'static str) -> Result<Option<WireInt>, DecodeError> {
        let before = *self;
        let value = match self.marker(field)? {
            Marker::FixPos(n) => n.into(),
            Marker::FixNeg(n) => n.into(),
            Marker::U8 => u8::from_be_bytes(self.take(field)?).into(),
            Marker::U16 => u16::from_be_bytes(self.take(field)?).into(),
            Marker::U32 => u32::from_be_bytes(self.take(field)?).into(),
            Marker::U64 => u64::from_be_bytes(self.take(field)?).into(),
            Marker::I8 => i8::from_be_bytes(self.take(field)?).into(),
            Marker::I16 => i16::from_be_bytes(self.take(field)?).into(),
            Marker::I32 => i32::from_be_bytes(self.take(field)?).into(),
            Marker::I64 => i64::from_be_bytes(self.take(field)?).into(),
            _ => {
                *self = before;
                return Ok(None);
            }
        };
        Ok(Some(value))
    }

    /// Consumes a float, if one is next.
    pub(super) fn float(&mut self, field: &'static str) -> Result<Option<f64>, DecodeError> {
        let before = *self;
        match self.marker(field)? {
            Marker::F32 => Ok(Some(f32::from_be_bytes(self.take(field)?).into())),
            Marker::F64 => Ok(Some(f64::from_be_bytes(self.take(field)?))),
            _ => {
                *self = before;
                Ok(None)
            }
        }
    }

    /// Consumes an array's header, if one is next; every element takes at least a byte, so the length is
    /// checked against what is left.
    pub(super) fn array(&mut self, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let before = *self;
        let len = match self.marker(field)? {
            Marker::FixArray(n) => u64::from(n),
            Marker::Array16 => u16::from_be_bytes(self.take(field)?).into(),
            Marker::Array32 => u32::from_be_bytes(self.take(field)?).into(),
            _ => {
                *self = before;
                return Ok(None);
            }
        };
        self.fits(len, 1, field).map(Some)
    }

    /// Consumes a map's header, if one is next.
    pub(super) fn map(&mut self, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let before = *self;
        let len = match self.marker(field)? {
            Marker::FixMap(n) => u64::from(n),
            Marker::Map16 => u16::from_be_bytes(self.take(field)?).into(),
            Marker::Map32 => u32::from_be_bytes(self.take(field)?).into(),
            _ => {
                *self = before;
                return Ok(None);
            }
        };
        self.fits(len, 2, field).map(Some)
    }

    fn fits(&self, len: u64, least_bytes: u64, field: &'static str) -> Result<usize, DecodeError> {
        let remaining = self.rest.len();
        if len.saturating_mul(least_bytes) > remaining as u64 {
            return Err(DecodeError::LengthBeyondPayload { field, claimed: len, remaining });
        }
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// Consumes a text, if one is next.
    pub(super) fn text(&mut self, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
        let before = *self;
        let len = match self.marker(field)? {
            Marker::FixStr(n) => u64::from(n),
            Marker::Str8 => u8::from_be_bytes(self.take(field)?).into(),
            Marker::Str16 => u16::from_be_bytes(self.take(field)?).into(),
            Marker::Str32 => u32::from_be_bytes(self.take(field)?).into(),
            _ => {
                *self = before;
                return Ok(None);
            }
        };
        let len = self.fits(len, 1, field)?;
        let bytes = self.bytes(len, field)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// Consumes a byte string, if one is next.
    pub(super) fn binary(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        let before = *self;
        let len = match self.marker(field)? {
            Marker::Bin8 => u64::from(u8::from_be_bytes(self.take(field)?)),
            Marker::Bin16 => u16::from_be_bytes(self.take(field)?).into(),
            Marker::Bin32 => u32::from_be_bytes(self.take(field)?).into(),
            _ => {
                *self = before;
                return Ok(None);
            }
        };
        let len = self.fits(len, 1, field)?;
        self.bytes(len, field).map(Some)
    }

    /// Consumes the next value whatever it is. Counts open values instead of recursing.
    pub(super) fn skip(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let mut open = 1u64;
        while open > 0 {
            open -= 1;
            if let Some(len) = self.array(field)? {
                open += len as u64;
            } else if let Some(len) = self.map(field)? {
                open += 2 * len as u64;
            } else {
                self.skip_scalar(field)?;
            }
        }
        Ok(())
    }

    fn skip_scalar(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let len: u64 = match self.marker(field)? {
            Marker::FixStr(n) => n.into(),
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 => 2,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::Str8 | Marker::Bin8 => u8::from_be_bytes(self.take(field)?).into(),
            Marker::Str16 | Marker::Bin16 => u16::from_be_bytes(self.take(field)?).into(),
            Marker::Str32 | Marker::Bin32 => u32::from_be_bytes(self.take(field)?).into(),
            Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::FixExt4 => 5,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::Ext8 => 1 + u64::from(u8::from_be_bytes(self.take(field)?)),
            Marker::Ext16 => 1 + u64::from(u16::from_be_bytes(self.take(field)?)),
            Marker::Ext32 => 1 + u64::from(u32::from_be_bytes(self.take(field)?)),
            _ => 0,
        };
        let len = self.fits(len, 1, field)?;
        self.bytes(len, field).map(|_| ())
    }

    /// The error for a value of another kind than `expected`.
    pub(super) fn wrong_kind(&self, field: &'static str, expected: &'static str) -> DecodeError {
        match self.peek(field) {
            Ok(marker) => DecodeError::WrongKind { field, expected, found: kind_name(marker) },
            Err(error) => error,
        }
    }

    /// Token ids in their usual forms, appended to `out` for as long as they are one of these; returns how
    /// many were read. This loop is where decoding spends its time.
    pub(super) fn plain_tokens(&mut self, count: usize, out: &mut Vec<u32>) -> usize {
        let mut rest = self.rest;
        for read in 0..count {
            let token = match rest {
                [token @ 0..=0x7f, tail @ ..] => {
                    rest = tail;
                    u32::from(*token)
                }
                [0xcd, a, b, tail @ ..] => {
                    rest = tail;
                    u32::from(u16::from_be_bytes([*a, *b]))
                }
                [0xce, a, b, c, d, tail @ ..] => {
                    rest = tail;
                    u32::from_be_bytes([*a, *b, *c, *d])
                }
                [0xcc, a, tail @ ..] => {
                    rest = tail;
                    u32::from(*a)
                }
                _ => {
                    self.rest = rest;
                    return read;
                }
            };
            out.push(token);
        }
        self.rest = rest;
        count
    }
}

fn kind_name(marker: Marker) -> &'static str {
    match marker {
        Marker::Null => "nil",
        Marker::True | Marker::False => "a boolean",
        Marker::F32 | Marker::F64 => "a float",
        Marker::FixPos(_) | Marker::FixNeg(_) => "an integer",
        Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => "an integer",
        Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => "an integer",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "text",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "bytes",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "an array",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "a map",
        Marker::Reserved => "a reserved byte",
        _ => "an extension",
    }
}
