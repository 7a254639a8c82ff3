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

/// How long an engine may take over it, and how many are asked. After that the request is routed without.
const PATIENCE: Duration = Duration::from_millis(150);
const ENGINES: usize = 2;

/// Largest answer: a million tokens, each with its comma.
const MAX_BYTES: usize = 16 << 20;

/// What changes which tokens a request becomes.
const PASSED: [&str; 9] = [
    "prompt",
    "messages",
    "tools",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "mm_processor_kwargs",
];

#[derive(Debug, Deserialize)]
struct Tokenized {
    tokens: Vec<u32>,
}

/// The token ids of a request's prompt; `None` when they cannot be had in time.
pub(crate) async fn tokens_of(forward: &Forward, engines: &[Known], request: &Value) -> Option<Vec<u32>> {
    // Pictures are part of what an engine looks up, and of nothing that it tells here.
    if request.get("messages").and_then(Value::as_array).is_some_and(|messages| !messages.iter().all(is_text))
    {
        return None;
    }
    if let Some(ids) = request.get("prompt").and_then(Value::as_array) {
        return ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect();
    }
    let mut question = json!({ "model": request.get("model")? });
    for field in PASSED {
        if let (Some(value), Some(fields)) = (request.get(field), question.as_object_mut()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    let body = Bytes::from(question.to_string());
    for engine in engines.iter().take(ENGINES) {
        let ask = async {
            let answer =
                forward.send(engine, "/tokenize", &HeaderMap::new(), body.clone(), None).await.ok()?;
            // A refusal is an answer: another engine would refuse as well.
            let is_taken = answer.status().is_success();
            let bytes = axum::body::to_bytes(answer.into_body(), MAX_BYTES).await.ok()?;
            Some(if is_taken { serde_json::from_slice::<Tokenized>(&bytes).ok() } else { None })
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Some(tokenized)) => return Some(tokenized?.tokens),
            // Or it would be asked first by every request.
            Ok(None) | Err(_) => engine.put_aside(),
        }
    }
    None
}

fn is_text(message: &Value) -> bool {
    let is_words = |part: &Value| part.get("type").and_then(Value::as_str) == Some("text");
    message.get("content").and_then(Value::as_array).is_none_or(|parts| parts.iter().all(is_words))
}
