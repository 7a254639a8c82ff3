//! A checkpoint as the file writes it: prompts unexpanded, block hashes in any of their three forms.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Answer, Lora, MmItem};
use crate::header::decode_hex;
use crate::tokens::PromptSpec;

#[derive(Deserialize)]
pub(super) struct RawCheckpoint {
    pub(super) checkpoint: u64,
    #[serde(default)]
    pub(super) label: String,
    pub(super) pos: usize,
    pub(super) next_seq: Vec<u64>,
    pub(super) queries: Vec<RawQuery>,
}

#[derive(Deserialize)]
pub(super) struct RawQuery {
    #[serde(default)]
    pub(super) tokens: Option<Vec<u32>>,
    #[serde(default)]
    pub(super) prompt: Option<PromptSpec>,
    #[serde(default)]
    pub(super) lora: Option<Lora>,
    #[serde(default)]
    pub(super) salt: Option<String>,
    #[serde(default)]
    pub(super) mm: Vec<MmItem>,
    #[serde(default)]
    pub(super) extra_key: Option<String>,
    #[serde(default)]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) block_hashes: Option<RawHashes>,
    pub(super) engines: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawHashes {
    List(Vec<RawHash>),
    ByBlockSize(BTreeMap<String, Vec<RawHash>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawHash {
    Unsigned(u64),
    Signed(i64),
    Hex(String),
}

pub(super) fn fold_all(hashes: Vec<RawHash>) -> Result<Vec<u64>, String> {
    hashes.into_iter().map(fold).collect()
}

/// The 64-bit form of a hash. Of bytes the last eight count, as in vLLM's own integer form.
fn fold(hash: RawHash) -> Result<u64, String> {
    match hash {
        RawHash::Unsigned(value) => Ok(value),
        RawHash::Signed(value) => Ok(value.cast_unsigned()),
        RawHash::Hex(text) => decode_hex(&text)
            .filter(|bytes| bytes.len() >= 8)
            .map(|bytes| {
                bytes.iter().skip(bytes.len() - 8).fold(0, |value, &byte| value << 8 | u64::from(byte))
            })
            .ok_or_else(|| format!("block_hashes: {text:?} is not 8 or more bytes in hexadecimal")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folded(json: &str) -> Result<u64, String> {
        fold(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn every_form_of_a_hash_folds_to_its_64_bits() {
        assert_eq!(folded("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(folded("-1"), Ok(u64::MAX));
        assert_eq!(folded("-9223372036854775808"), Ok(1 << 63));
        assert_eq!(folded(r#""ffffffffffffffff0102030405060708""#), Ok(0x0102_0304_0506_0708));
        assert!(folded(r#""010203""#).is_err());
        assert!(folded(r#""+102030405060708""#).is_err());
    }
}
