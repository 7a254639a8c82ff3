//! The tokenizers of the models whose prompts come as text.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::DialectsConfig;
use crate::tokenizer::{TextTokenizer, TokenizerError};

/// Tokenizers by model.
#[derive(Debug, Default)]
pub(crate) struct Tokenizers {
    models: HashMap<String, Arc<TextTokenizer>>,
    any: Option<Arc<TextTokenizer>>,
}

impl Tokenizers {
    /// Reads those that the dialects in effect need.
    pub(crate) fn open(config: &DialectsConfig) -> Result<Self, TokenizerError> {
        let mut tokenizers = Self::default();
        if !config.llmd {
            return Ok(tokenizers);
        }
        for file in &config.tokenizers {
            let tokenizer = Arc::new(TextTokenizer::open(&file.path)?);
            match &file.model {
                Some(model) => drop(tokenizers.models.insert(model.clone(), tokenizer)),
                None => tokenizers.any = Some(tokenizer),
            }
        }
        Ok(tokenizers)
    }

    /// The one of a model; `None` where there is none, because another one's would make other token ids.
    pub(super) fn of(&self, model: &str) -> Option<Arc<TextTokenizer>> {
        self.models.get(model).or(self.any.as_ref()).cloned()
    }
}
