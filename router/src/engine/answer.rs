//! A made-up answer in OpenAI's words, whole or as server-sent events.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

/// What a prompt came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) cached: usize,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) is_chat: bool,
    pub(super) tokens: u64,
    /// What each token takes.
    pub(super) step: Duration,
    pub(super) usage: Usage,
    /// Whether a stream ends with the usage.
    pub(super) tells_usage: bool,
    /// Where the prompt's blocks can be read.
    pub(super) transfer: Option<Value>,
}

fn word(number: u64) -> String {
    format!("word{number} ")
}

impl Answer {
    fn usage(&self) -> Value {
        let Usage { prompt, cached } = self.usage;
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt as u64 + self.tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        })
    }

    fn named(&self, object: &str, choices: &Value) -> Value {
        json!({"id": self.id, "object": object, "created": 0, "model": self.model, "choices": choices})
    }

    pub(super) async fn whole(self) -> Response {
        tokio::time::sleep(self.step.saturating_mul(u32::try_from(self.tokens).unwrap_or(u32::MAX))).await;
        let text: String = (0..self.tokens).map(word).collect();
        let (object, choice) = if self.is_chat {
            let message = json!({"role": "assistant", "content": text});
            ("chat.completion", json!({"index": 0, "message": message, "finish_reason": "length"}))
        } else {
            ("text_completion", json!({"index": 0, "text": text, "finish_reason": "length"}))
        };
        let mut answer = self.named(object, &json!([choice]));
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("usage".into(), self.usage());
            fields.insert("kv_transfer_params".into(), self.transfer.unwrap_or(Value::Null));
        }
        Json(answer).into_response()
    }

    /// The stream's piece of such a number; `None` behind the last one.
    fn piece(&self, number: u64) -> Option<String> {
        let last = self.tokens + u64::from(self.tells_usage);
        let piece = match number {
            number if number < self.tokens => {
                let finish = (number + 1 == self.tokens).then_some("length");
                if self.is_chat {
                    let delta = json!({"role": "assistant", "content": word(number)});
                    let choice = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
                    self.named("chat.completion.chunk", &choice)
                } else {
                    let choice = json!([{"index": 0, "text": word(number), "finish_reason": finish}]);
                    self.named("text_completion", &choice)
                }
            }
            number if number < last => {
                let mut piece = self.named("chat.completion.chunk", &json!([]));
                if let Some(fields) = piece.as_object_mut() {
                    fields.insert("usage".into(), self.usage());
                }
                piece
            }
            number if number == last => return Some("data: [DONE]\n\n".into()),
            _ => return None,
        };
        Some(format!("data: {piece}\n\n"))
    }

    pub(super) fn streamed(self) -> Response {
        let pieces = futures_util::stream::unfold((self, 0), |(answer, number)| async move {
            tokio::time::sleep(answer.step).await;
            let piece = answer.piece(number)?;
            Some((Ok::<_, Infallible>(Bytes::from(piece)), (answer, number + 1)))
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
    }
}
