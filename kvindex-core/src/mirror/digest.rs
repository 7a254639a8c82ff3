//! An engine's full block hash, of whichever width its algorithm has: block hashes chain by these bytes, not by
//! the 64 bits that the wire shows of them.

use std::fmt;

use super::MirrorError;

/// Widest digest of any engine: SHA-256.
const MAX_BYTES: usize = 32;

/// A digest of 16 (XXH3-128) or 32 bytes (SHA-256). Prints as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl Digest {
    /// Reads 32 or 64 hex digits; `field` names the text in the error.
    ///
    /// # Errors
    /// Anything else than 16 or 32 bytes in hex.
    pub fn from_hex(field: &'static str, text: &str) -> Result<Self, MirrorError> {
        let digits = text.as_bytes();
        if !matches!(digits.len(), 32 | 64) || !digits.iter().all(u8::is_ascii_hexdigit) {
            let message = format!("is {text:?}, must be 32 hex digits (xxhash) or 64 (sha256)");
            return Err(MirrorError { field, message });
        }
        let nibble = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8; // all are digits
        let mut digest = Self { bytes: [0; MAX_BYTES], len: digits.len() / 2 };
        for (byte, pair) in digest.bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | nibble(*digit));
        }
        Ok(digest)
    }

    /// The bytes, 16 or 32 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self { bytes, len: 32 }
    }
}

impl From<[u8; 16]> for Digest {
    fn from(short: [u8; 16]) -> Self {
        let mut bytes = [0; MAX_BYTES];
        bytes[..16].copy_from_slice(&short);
        Self { bytes, len: 16 }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
