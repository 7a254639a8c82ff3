//! Tokens: how they are made, how they come in, and the digest that is all a node knows of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// What every token begins with, so that scanners for leaked secrets can find them.
const PREFIX: &str = "kvi_";

/// Bytes of chance in a token. So many cannot be guessed or searched, which is why a digest without salt or work
/// is enough to keep.
const RANDOM_BYTES: usize = 32;

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 512;

/// The SHA-256 digest of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hex digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() || pairs.len() != 32 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            let digit = |ascii: u8| char::from(ascii).to_digit(16);
            *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        }
        Some(Self(digest))
    }

    /// Takes as long for digests that differ early as for those that differ late.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The token in an `authorization` header, whose scheme may be written in any case.
pub(super) fn of_header(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("bearer ".len())?;
    let token = token.trim_ascii();
    let fits = !token.is_empty() && token.len() <= MAX_TOKEN_BYTES;
    (scheme.eq_ignore_ascii_case(b"bearer ") && fits).then_some(token)
}

/// A fresh token, and what the access file has to say of it.
pub struct NewToken {
    secret: String,
}

/// The operating system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes: {0}")]
pub struct NoRandom(String);

impl NewToken {
    /// Draws one.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn draw() -> Result<Self, NoRandom> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| NoRandom(error.to_string()))?;
        Ok(Self { secret: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)) })
    }

    /// What the caller sends; nothing of ours keeps it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Its digest in hex: what the access file keeps.
    #[must_use]
    pub fn sha256(&self) -> String {
        Digest::of(self.secret.as_bytes()).to_string()
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_reads_as_it_prints() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        let read = Digest::parse(&abc.to_uppercase()).unwrap();
        assert!(read.is(&Digest::of(b"abc")) && !read.is(&Digest::of(b"abd")));
        for wrong in ["", "ba78", &abc[1..], &format!("{abc}0"), &abc.replace('b', "g"), &"é".repeat(32)] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_header_holds_a_token_in_one_form() {
        assert_eq!(of_header(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(of_header(b"bEARER  abc "), Some(&b"abc"[..]));
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        for wrong in [&b""[..], b"Bearer", b"Bearer ", b"Bearer   ", b"Basic abc", b"abc", long.as_bytes()] {
            assert_eq!(of_header(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn fresh_tokens_differ_and_do_not_print_themselves() {
        let (one, other) = (NewToken::draw().unwrap(), NewToken::draw().unwrap());
        assert_ne!(one.secret(), other.secret());
        assert!(one.secret().len() >= 46 && one.secret().starts_with(PREFIX), "{}", one.secret());
        assert!(Digest::parse(&one.sha256()).unwrap().is(&Digest::of(one.secret().as_bytes())));
        assert!(!format!("{one:?}").contains(one.secret()));
    }
}
