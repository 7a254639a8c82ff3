//! The tokenizers of the models whose prompts come as text, and the few texts that become token ids at one time: that is
//! much more work than a question, so it has threads and a bound of its own and holds no question up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::access::Overloaded;
use crate::api::{ApiError, Kind, blocking};
use crate::config::DialectsConfig;
use crate::tokenizer::{TextTokenizer, TokenizerError};

/// Longest that a text waits to be worked on: about as long as a usual one is, which its caller waits for anyway.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// Tokenizers by model.
#[derive(Debug)]
pub(crate) struct Tokenizers {
    models: HashMap<String, Arc<TextTokenizer>>,
    any: Option<Arc<TextTokenizer>>,
    /// One permit for each text that is worked on.
    slots: Arc<Semaphore>,
    count: usize,
}

/// A text's turn. The work itself holds it, which goes on when its caller is gone.
#[derive(Debug)]
pub(super) struct Turn {
    slot: OwnedSemaphorePermit,
}

impl Tokenizers {
    /// Reads those that the dialects in effect need, on a node that answers so many queries at one time: half as many
    /// texts are worked on, so that some threads are left for queries.
    ///
    /// # Errors
    /// When a file cannot be read or is no tokenizer's.
    pub(crate) fn open(config: &DialectsConfig, queries: usize) -> Result<Self, TokenizerError> {
        let count = (queries / 2).max(1);
        let slots = Arc::new(Semaphore::new(count));
        let mut tokenizers = Self { models: HashMap::new(), any: None, slots, count };
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

    /// A text's turn, now or after a short wait.
    ///
    /// # Errors
    /// When others are before it for too long.
    pub(super) async fn turn(&self) -> Result<Turn, ApiError> {
        match timeout(MAX_WAIT, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Turn { slot }),
            Ok(Err(_)) | Err(_) => {
                let message = format!(
                    "this node makes token ids of {} texts at one time, and others were before this one for {} ms; \
                     send token ids, or ask another node or later",
                    self.count,
                    MAX_WAIT.as_millis()
                );
                Err(ApiError::new(Kind::Exhausted, message).retry_after(Some(Overloaded::RETRY_AFTER)))
            }
        }
    }
}

impl Turn {
    /// The token ids of a prompt's text, made on a thread that may block.
    ///
    /// # Errors
    /// When the tokenizer does not take it.
    pub(super) async fn token_ids(
        self,
        tokenizer: Arc<TextTokenizer>,
        text: String,
    ) -> Result<Vec<u32>, ApiError> {
        let made = blocking(move || {
            let _slot = self.slot;
            tokenizer.token_ids(&text)
        });
        made.await?.map_err(|error| refused(&error))
    }
}

/// What a caller is told of a text that does not become token ids.
pub(super) fn refused(error: &TokenizerError) -> ApiError {
    let kind = match error {
        TokenizerError::LongText { .. } => Kind::TooLarge,
        _ => Kind::Invalid,
    };
    ApiError::of_field(kind, "prompt", error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::TokenizerFile;
    use crate::tokenizer::MAX_TEXT_BYTES;
    use std::path::Path;

    fn tokenizers(queries: usize) -> Tokenizers {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer/tokenizer.json");
        let files = vec![TokenizerFile { model: None, path }];
        Tokenizers::open(
            &DialectsConfig { llmd: true, tokenizers: files, ..DialectsConfig::default() },
            queries,
        )
        .unwrap()
    }

    /// On one thread: were the text worked on there, no timer would be heard before its end.
    #[tokio::test]
    async fn a_text_stops_nobody_and_keeps_its_place_when_its_caller_goes() {
        let texts = tokenizers(3);
        let (tokenizer, text) = (texts.of("m").unwrap(), "a ".repeat(MAX_TEXT_BYTES / 2));
        let turn = texts.turn().await.unwrap();
        let gone = timeout(Duration::from_millis(1), turn.token_ids(Arc::clone(&tokenizer), text)).await;
        assert!(gone.is_err(), "half a megabyte takes longer");
        assert_eq!(texts.slots.available_permits(), 0, "it is worked on");
        // The next one has the place as soon as that has ended.
        let slot = Arc::clone(&texts.slots).acquire_owned().await.unwrap();
        let ids = Turn { slot }.token_ids(tokenizer, "a router asks".into()).await.unwrap();
        assert!(!ids.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_that_waits_too_long_is_told_to_come_again() {
        let texts = tokenizers(4);
        let (_one, other) = (texts.turn().await.unwrap(), texts.turn().await.unwrap());
        let began = tokio::time::Instant::now();
        let refused = texts.turn().await.unwrap_err();
        assert!(began.elapsed() >= MAX_WAIT && began.elapsed() < 2 * MAX_WAIT, "{:?}", began.elapsed());
        let message = refused.to_message().message;
        assert!(message.starts_with("this node makes token ids of 2 texts at one time"), "{message}");
        drop(other);
        assert!(texts.turn().await.is_ok());
    }
}
