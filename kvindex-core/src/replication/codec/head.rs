//! Numbers and texts of an entry's head: varints, so that what is small or as expected costs one byte.

use super::CodecError;

/// Appends `value` in groups of 7 bits, lowest first (LEB128).
pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends how far `value` is from `expected`, wrapping, small either way.
pub(super) fn put_step(out: &mut Vec<u8>, value: u64, expected: u64) {
    let step = value.wrapping_sub(expected) as i64;
    put_number(out, ((step << 1) ^ (step >> 63)) as u64);
}

/// Appends the length, then the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is not read yet of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a>(pub(super) &'a [u8]);

impl<'a> Head<'a> {
    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        let (first, rest) = self.0.split_first().ok_or(CodecError::Truncated(what))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::Overlong(what))
    }

    /// A number that must not exceed `most`.
    pub(super) fn at_most(&mut self, most: u64, what: &'static str) -> Result<u64, CodecError> {
        let value = self.number(what)?;
        if value > most { Err(CodecError::TooLarge { what, value, most }) } else { Ok(value) }
    }

    /// How many of something follow, each of which takes a byte of the head at least.
    pub(super) fn count(&mut self, what: &'static str) -> Result<usize, CodecError> {
        let value = self.number(what)?;
        let most = self.0.len() as u64;
        if value > most { Err(CodecError::TooLarge { what, value, most }) } else { Ok(value as usize) }
    }

    pub(super) fn step(&mut self, expected: u64, what: &'static str) -> Result<u64, CodecError> {
        let number = self.number(what)?;
        let step = (number >> 1) ^ (number & 1).wrapping_neg();
        Ok(expected.wrapping_add(step))
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], CodecError> {
        let length = self.number(what)?;
        let length = usize::try_from(length).map_err(|_| CodecError::Truncated(what))?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(CodecError::Truncated(what))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, what: &'static str) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| CodecError::NotText(what))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_of_every_size_come_back() {
        for value in (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, !(1 << bit)]) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, value);
            put_step(&mut bytes, value, 7);
            put_step(&mut bytes, 7, value);
            let mut head = Head(&bytes);
            assert_eq!(head.number("n"), Ok(value));
            assert_eq!(head.step(7, "n"), Ok(value));
            assert_eq!(head.step(value, "n"), Ok(7));
            assert!(head.0.is_empty());
        }
    }

    #[test]
    fn small_steps_either_way_take_one_byte() {
        for (value, expected) in [(5, 5), (6, 5), (5, 6), (0, u64::MAX), (u64::MAX, 0), (68, 5)] {
            let mut bytes = Vec::new();
            put_step(&mut bytes, value, expected);
            assert_eq!(bytes.len(), 1, "{value} where {expected} was expected");
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Head(&most).number("n"), Ok(u64::MAX));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(Head(&beyond).number("n"), Err(CodecError::Overlong("n")));
        assert_eq!(Head(&[0x80; 11]).number("n"), Err(CodecError::Overlong("n")));
        assert_eq!(Head(&[0x80; 3]).number("n"), Err(CodecError::Truncated("n")));
    }
}
