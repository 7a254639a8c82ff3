//! A prompt's text as the token ids that an engine makes of it, for callers that have nothing but the text. By the
//! file that the engine itself has (`tokenizer.json`) and the library that reads it there.

use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

/// Longest text that becomes token ids: some 128,000 tokens of usual ones. A text that is cut at every byte takes some
/// hundred times its size on the way.
pub const MAX_TEXT_BYTES: usize = 512 << 10;

/// Words of which a thread keeps the tokens, of each model: at most 8 MB, of words of 256 bytes. The library's own
/// number is ten times as large.
const MAX_KEPT_WORDS: usize = 1000;

/// Largest file of a tokenizer: those of the largest vocabularies have some tens of megabytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why a text does not become token ids.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that cannot be read.
    #[error("cannot read the tokenizer {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is too large for one of a tokenizer.
    #[error("the tokenizer {path} has {bytes} bytes, the limit is {MAX_FILE_BYTES}")]
    LargeFile {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file that is none of a tokenizer.
    #[error("{path} is no tokenizer.json as Hugging Face's models have it: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text that is too long.
    #[error("the text has {bytes} bytes, the limit is {MAX_TEXT_BYTES}; send token ids instead")]
    LongText {
        /// Its length.
        bytes: usize,
    },
    /// A text that the tokenizer does not take.
    #[error("the tokenizer does not take the text: {0}")]
    Refused(String),
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
}

impl TextTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is no tokenizer's.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |source| TokenizerError::Unreadable { path: path.into(), source };
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(TokenizerError::LargeFile { path: path.into(), bytes });
        }
        let file = std::fs::read(path).map_err(unreadable)?;
        let malformed = |reason: String| TokenizerError::Malformed { path: path.into(), reason };
        let mut inner = Tokenizer::from_bytes(file).map_err(|error| malformed(error.to_string()))?;
        // A file may say where to cut and how to fill up, for training. Engines do neither.
        inner.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        inner.with_padding(None);
        // Each thread that makes token ids keeps the words that it met first: texts made for it fill that with a
        // hundred times their size.
        let mut model = inner.get_model().clone();
        model.resize_cache(MAX_KEPT_WORDS);
        inner.with_model(model);
        Ok(Self { inner })
    }

    /// Whether a text is short enough, before anything is made of it.
    ///
    /// # Errors
    /// When it is not.
    pub fn fits(text: &str) -> Result<(), TokenizerError> {
        if text.len() <= MAX_TEXT_BYTES {
            Ok(())
        } else {
            Err(TokenizerError::LongText { bytes: text.len() })
        }
    }

    /// The token ids of a text, with those that the tokenizer puts before and behind every text, as engines do with
    /// the prompt of a completion.
    ///
    /// # Errors
    /// When the text is too long, or the tokenizer does not take it.
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Self::fits(text)?;
        let encoded = self.inner.encode_fast(text, true);
        Ok(encoded.map_err(|error| TokenizerError::Refused(error.to_string()))?.get_ids().to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    /// A text with its ids, as another implementation of the same library makes them.
    #[derive(Deserialize)]
    struct Vector {
        text: String,
        ids: Vec<u32>,
    }

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer").join(name)
    }

    /// See the folder's README.md: regular expressions of another library, a cut that engines do not make.
    #[test]
    fn texts_become_the_ids_that_the_python_package_makes() {
        let tokenizer = TextTokenizer::open(&golden("tokenizer.json")).unwrap();
        let vectors = std::fs::read(golden("vectors.json")).unwrap();
        let vectors: Vec<Vector> = serde_json::from_slice(&vectors).unwrap();
        assert!(vectors.iter().any(|vector| vector.ids.len() > 8));
        for Vector { text, ids } in vectors {
            assert_eq!(tokenizer.token_ids(&text).unwrap(), ids, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_with_the_file_or_the_limit() {
        let missing = TextTokenizer::open(&golden("none.json")).unwrap_err().to_string();
        assert!(missing.contains("none.json"), "{missing}");
        let other = TextTokenizer::open(&golden("vectors.json")).unwrap_err().to_string();
        assert!(other.contains("vectors.json is no tokenizer.json"), "{other}");
        let tokenizer = TextTokenizer::open(&golden("tokenizer.json")).unwrap();
        let long = tokenizer.token_ids(&"a ".repeat(MAX_TEXT_BYTES)).unwrap_err().to_string();
        assert!(long.contains("has 1048576 bytes, the limit is 524288"), "{long}");
    }
}
