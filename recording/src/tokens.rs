//! The rule that regenerates the long prompts of the large cases, so that their files hold ids, not tokens.
//!
//! A hash id stands for one chunk of tokens; equal ids give equal tokens, so prefix sharing survives.

use serde::Deserialize;

/// The longest prompt regenerated, in tokens; beyond any model's context.
pub const MAX_PROMPT_TOKENS: usize = 16 << 20;

/// Base vocabulary size: chunks start with a token of the whole vocabulary, so that chunks differ at once.
const FIRST_TOKEN_RANGE: u64 = 128_256;
/// The other tokens of a chunk come from few values, which keeps the recorded payloads small.
const OTHER_TOKEN_RANGE: u64 = 128;

/// The splitmix64 generator's step as a function of its state.
pub fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A prompt as the large cases write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PromptSpec {
    /// Hash ids, one chunk of tokens each.
    #[serde(rename = "h")]
    pub hash_ids: Vec<u64>,
    /// Tokens to keep of the chunks.
    #[serde(rename = "n")]
    pub tokens: usize,
    /// `[salt, k]`: k more tokens that nobody shares.
    #[serde(default, rename = "x")]
    pub extra: Option<(u64, usize)>,
}

/// The token rule of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRule {
    /// The case's seed.
    pub seed: u64,
    /// Tokens per hash id.
    pub chunk: u32,
}

impl TokenRule {
    /// Token `j` of the chunk of `hash_id`.
    pub fn token(self, hash_id: u64, j: u64) -> u32 {
        let state = (self.seed << 40).wrapping_add(hash_id.wrapping_mul(64)).wrapping_add(j);
        let range = if j == 0 { FIRST_TOKEN_RANGE } else { OTHER_TOKEN_RANGE };
        (splitmix64(state) % range) as u32
    }

    /// The tokens of a prompt; `None` when it is longer than [`MAX_PROMPT_TOKENS`].
    pub fn prompt(self, spec: &PromptSpec) -> Option<Vec<u32>> {
        let chunk = self.chunk as usize;
        let kept = spec.hash_ids.len().checked_mul(chunk)?.min(spec.tokens);
        let extra = spec.extra.map_or(0, |(_, k)| k);
        if kept.checked_add(extra)? > MAX_PROMPT_TOKENS {
            return None;
        }
        let mut out = Vec::with_capacity(kept + extra);
        out.extend(
            spec.hash_ids
                .iter()
                .flat_map(|&id| (0..u64::from(self.chunk)).map(move |j| self.token(id, j)))
                .take(kept),
        );
        if let Some((salt, k)) = spec.extra {
            let unshared = Self { seed: self.seed ^ 0x5EED, ..self };
            let id = salt.wrapping_add(1_000_000);
            out.extend((0..k as u64).map(|j| unshared.token(id, j)));
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Expected values below were printed by the Python rule that made the recordings.
    #[test]
    fn splitmix_equals_the_recorders() {
        assert_eq!(
            [0, 1, u64::MAX].map(splitmix64),
            [16_294_208_416_658_607_535, 10_451_216_379_200_822_465, 16_490_336_266_968_443_936]
        );
    }

    #[test]
    fn prompt_equals_the_recorders() {
        let rule = TokenRule { seed: 101, chunk: 16 };
        let spec: PromptSpec = serde_json::from_str(r#"{"h":[0,7,123456],"n":35,"x":[3,4]}"#).unwrap();
        let want = [
            63897, 120, 75, 39, 57, 28, 22, 103, 67, 18, 48, 32, 33, 114, 104, 102, 37171, 91, 33, 57, 8,
            119, 34, 20, 67, 100, 63, 117, 45, 104, 80, 22, 7844, 46, 71, 124_894, 88, 74, 62,
        ];
        assert_eq!(rule.prompt(&spec).unwrap(), want);
    }

    #[test]
    fn a_prompt_beyond_the_limit_is_refused() {
        let rule = TokenRule { seed: 1, chunk: u32::MAX };
        let spec = PromptSpec { hash_ids: vec![1, 2], tokens: usize::MAX, extra: None };
        assert_eq!(rule.prompt(&spec), None);
        let extra = PromptSpec { hash_ids: vec![], tokens: 0, extra: Some((1, usize::MAX)) };
        assert_eq!(rule.prompt(&extra), None);
    }
}
