//! A request's prompt as token ids. Prompts of the completions call may be ids already; everything else is asked of an
//! engine (`POST /tokenize`, vLLM's), which applies the model's own chat template: what it would compute is what is
//! looked up. A router that tokenizes by itself saves that round trip.

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

use crate::fleet::Known;
use crate::forward::Forward;

/// How long an engine may take over it. After that the request is routed without.
const PATIENCE: Duration = Duration::from_millis(200);

/// Largest answer: a million tokens, each with its comma.
const MAX_BYTES: usize = 16 << 20;

#[derive(Debug, Deserialize)]
struct Tokenized {
    tokens: Vec<u32>,
}

/// The token ids of a request's prompt; `None` when they cannot be had in time.
pub(crate) async fn tokens_of(forward: &Forward, engines: &[Known], request: &Value) -> Option<Vec<u32>> {
    if let Some(ids) = request.get("prompt").and_then(Value::as_array) {
        return ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect();
    }
    let mut question = json!({ "model": request.get("model")? });
    for field in ["prompt", "messages", "tools", "chat_template_kwargs"] {
        if let (Some(value), Some(fields)) = (request.get(field), question.as_object_mut()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    let body = Bytes::from(question.to_string());
    let ask = async {
        let engine = engines.first()?;
        let answer = forward.send(engine, "/tokenize", &HeaderMap::new(), body, 0).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let bytes = axum::body::to_bytes(answer.into_body(), MAX_BYTES).await.ok()?;
        serde_json::from_slice::<Tokenized>(&bytes).ok()
    };
    Some(tokio::time::timeout(PATIENCE, ask).await.ok()??.tokens)
}
