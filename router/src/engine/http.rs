//! The engine's API: vLLM's `/tokenize` and OpenAI's completions calls, streamed or whole, with vLLM's
//! `kv_transfer_params` where another engine computes the prompt.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::EngineOptions;
use super::answer::{Answer, Usage};
use super::cache::Cache;
use super::events::Events;
use crate::forward;

/// Token ids of bytes begin here, as those of special tokens come first in many vocabularies.
const BYTES: u32 = 3;

/// Longest answer.
const MAX_TOKENS: u64 = 4096;

/// Of an answer whose length nobody says.
const USUAL_TOKENS: u64 = 16;

struct Simulated {
    options: EngineOptions,
    ranks: Vec<Rank>,
    address: SocketAddr,
    requests: AtomicU64,
}

/// A data-parallel rank.
struct Rank {
    cache: Mutex<Cache>,
    /// Prompts are computed one after the other.
    computing: tokio::sync::Mutex<()>,
    events: Arc<Events>,
}

pub(super) fn routes(options: EngineOptions, events: &[Arc<Events>], address: SocketAddr) -> Router {
    let rank = |events: &Arc<Events>| Rank {
        cache: Mutex::new(Cache::new(options.block_size, options.blocks)),
        computing: tokio::sync::Mutex::default(),
        events: Arc::clone(events),
    };
    let ranks = events.iter().map(rank).collect();
    let engine = Simulated { options, ranks, address, requests: AtomicU64::new(0) };
    Router::new()
        .route("/tokenize", post(tokenize))
        .route("/v1/{*call}", post(complete))
        .route("/health", get(async || ""))
        .with_state(Arc::new(engine))
}

fn refuse(message: &str) -> Response {
    let error = json!({"error": {"message": message, "type": "BadRequestError", "code": 400}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

/// A token for each byte, behind the template's marks for whose words they are.
fn tokens_of(request: &Value) -> Option<Vec<u32>> {
    let of_text = |text: &str| text.bytes().map(|byte| u32::from(byte) + BYTES).collect::<Vec<u32>>();
    match (request.get("prompt"), request.get("messages")) {
        (Some(Value::String(text)), _) => Some(of_text(text)),
        (Some(Value::Array(ids)), _) => ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect(),
        (None, Some(Value::Array(messages))) => {
            let mut text = String::new();
            for message in messages {
                let part = |field| message.get(field).and_then(Value::as_str);
                text += &format!("<|{}|>{}\n", part("role")?, part("content")?);
            }
            Some(of_text(&(text + "<|assistant|>")))
        }
        _ => None,
    }
}

async fn tokenize(Json(request): Json<Value>) -> Response {
    let Some(tokens) = tokens_of(&request) else { return refuse("prompt or messages: are required") };
    Json(json!({"count": tokens.len(), "max_model_len": 1_048_576, "tokens": tokens})).into_response()
}

async fn complete(
    State(engine): State<Arc<Simulated>>,
    Path(call): Path<String>,
    headers: HeaderMap,
    Json(request): Json<Value>,
) -> Response {
    let is_chat = match call.as_str() {
        "chat/completions" => true,
        "completions" => false,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let model = request.get("model").and_then(Value::as_str).unwrap_or_default();
    if model != engine.options.model {
        return (StatusCode::NOT_FOUND, Json(json!({"error": {"message": "no such model"}}))).into_response();
    }
    let Some(tokens) = tokens_of(&request) else { return refuse("prompt or messages: are required") };
    let transfer =
        |field: &str| request.get("kv_transfer_params").and_then(|params| params.get(field)).cloned();
    let is_told = |field: &str| transfer(field).and_then(|value| value.as_bool()).unwrap_or(false);
    let number = engine.requests.fetch_add(1, Ordering::Relaxed);
    let Some(rank) = engine.rank_of(&headers, number) else {
        return refuse("x-data-parallel-rank: must be one of this engine's ranks");
    };
    let cached = engine.compute(rank, &tokens, is_told("do_remote_prefill")).await;
    let usage = Usage { prompt: tokens.len(), cached };
    let length =
        ["max_completion_tokens", "max_tokens"].iter().find_map(|field| request.get(*field)?.as_u64());
    let answer = Answer {
        id: format!("{}-{number}", engine.address),
        model: model.to_owned(),
        is_chat,
        tokens: length.unwrap_or(USUAL_TOKENS).min(MAX_TOKENS),
        step: engine.options.step,
        usage,
        tells_usage: request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
        transfer: is_told("do_remote_decode").then(|| engine.handed_over(number)),
    };
    if request.get("stream") == Some(&Value::Bool(true)) { answer.streamed() } else { answer.whole().await }
}

impl Simulated {
    /// The rank that a request is for, as vLLM: the one it names, or else one after the other.
    fn rank_of(&self, headers: &HeaderMap, number: u64) -> Option<&Rank> {
        let named = match headers.get(forward::RANK) {
            Some(named) => named.to_str().ok()?.parse().ok()?,
            None => usize::try_from(number).unwrap_or_default() % self.ranks.len(),
        };
        self.ranks.get(named)
    }

    /// Computes a prompt, or takes over what another engine has; answers how many of its tokens were there.
    async fn compute(&self, rank: &Rank, tokens: &[u32], is_elsewhere: bool) -> usize {
        let _turn = rank.computing.lock().await;
        let used = rank.cache.lock().compute(tokens);
        let to_compute = if is_elsewhere { 0 } else { tokens.len().saturating_sub(used.cached) };
        let took = self.options.prefill.saturating_mul(u32::try_from(to_compute).unwrap_or(u32::MAX));
        // As vLLM: told when the blocks are given out, sent after the step.
        tokio::time::sleep(took).await;
        rank.events.publish(used.events);
        used.cached
    }

    /// Where the decode engine could read the blocks.
    fn handed_over(&self, number: u64) -> Value {
        json!({
            "do_remote_prefill": true,
            "do_remote_decode": false,
            "remote_engine_id": self.address.to_string(),
            "remote_block_ids": [number],
            "remote_host": self.address.ip().to_string(),
            "remote_port": self.address.port(),
        })
    }
}
