//! The paths that Mooncake's and Dynamo's indexers share. Which of them a request means is told by its body: Dynamo's
//! names its model `model_name`, Mooncake's `model` or `modelname`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use kvindex_proto::v1;
use serde_json::json;
use std::sync::Arc;

use super::fields::{Fields, Holds, Known};
use super::mooncake;
use super::refusal::Refusal;
use crate::access::{Caller, Right};
use crate::api::{Api, Arrived, check_json, question};
use crate::config::ApiLimits;

/// Every field of these calls, whosever it is.
const KNOWN: Known = &[
    ("model", Holds::One),
    ("model_name", Holds::One),
    ("modelname", Holds::One),
    ("tenant_id", Holds::One),
    ("routing_group", Holds::One),
    ("instance_id", Holds::One),
    ("lora_name", Holds::One),
    ("lora_id", Holds::One),
    ("cache_salt", Holds::One),
    ("block_size", Holds::One),
    ("token_ids", Holds::Tokens),
    ("seq_hashes", Holds::Numbers),
    ("block_hash", Holds::Numbers),
    ("block_hashes", Holds::Numbers),
    ("endpoint", Holds::One),
    ("replay_endpoint", Holds::One),
    ("type", Holds::One),
    ("dp_rank", Holds::One),
    ("additionalsalt", Holds::One),
    ("additional_salt", Holds::One),
    ("cache_group", Holds::One),
    ("hash_profile", Holds::One),
];

/// Worst trust of the workers that an answer rests on: bodies have no place for it.
const TRUST: &str = "x-kvindex-trust";

/// Who asks, and when.
pub(super) struct Asker<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) caller: &'a Caller,
    pub(super) arrived: Arrived,
}

/// What a question found.
pub(super) struct Found {
    /// The tenant that was asked about.
    pub(super) tenant: String,
    pub(super) workers: Vec<v1::WorkerMatch>,
}

impl Asker<'_> {
    pub(super) fn limits(&self) -> &ApiLimits {
        self.api.limits()
    }

    /// Asks as a native match does. A prompt of nothing is no question there; it is answered with the workers that
    /// another one would find, and no match.
    pub(super) async fn ask(&self, mut prompt: v1::Prompt, is_empty: bool) -> Result<Found, Refusal> {
        let tenant = self.caller.tenant(Right::Read, &prompt.tenant).map_err(crate::api::ApiError::from)?;
        let tenant = tenant.to_owned();
        if is_empty {
            prompt.token_ids = vec![0];
        }
        let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
        let mut workers = self.api.find(self.caller, &request, self.arrived).await?.workers;
        if is_empty {
            for worker in &mut workers {
                (worker.matched_blocks, worker.matched_tokens) = (0, 0);
                worker.tiers.clear();
            }
        }
        Ok(Found { tenant, workers })
    }
}

impl Found {
    /// What an answer carries beside its body.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let states = self.workers.iter().filter_map(|worker| Some(worker.trust.as_ref()?.state()));
        let worst = states.max_by_key(|state| match state {
            v1::TrustState::Unspecified | v1::TrustState::Live => 0,
            v1::TrustState::Pending => 1,
            v1::TrustState::Rebuilding => 2,
            v1::TrustState::Suspect => 3,
        });
        let word = worst.map(|state| match state {
            v1::TrustState::Unspecified | v1::TrustState::Live => "live",
            v1::TrustState::Pending => "pending",
            v1::TrustState::Rebuilding => "rebuilding",
            v1::TrustState::Suspect => "suspect",
        });
        if let Some(word) = word {
            headers.insert(TRUST, HeaderValue::from_static(word));
        }
        headers
    }
}

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/query", post(query))
        .route("/query_by_hash", post(query_by_hash))
        .with_state(Arc::clone(api))
}

async fn query(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Response {
    ask(&Asker { api: &api, caller: &caller, arrived }, request, false).await
}

async fn query_by_hash(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Response {
    ask(&Asker { api: &api, caller: &caller, arrived }, request, true).await
}

async fn ask(asker: &Asker<'_>, request: Request, by_hash: bool) -> Response {
    let limits = *asker.limits();
    let read = |bytes: &Bytes| {
        check_json(bytes, &limits)?;
        Fields::of_json(bytes, KNOWN, limits.prompt_tokens)
            .map_err(|error| Refusal::new(axum::http::StatusCode::BAD_REQUEST, "invalid_json", error))
    };
    let answer = async {
        let fields = question(asker.api, request.into_body(), read).await?;
        mooncake::rfc::query(asker, fields, by_hash).await
    };
    answer.await.unwrap_or_else(refused)
}

fn refused(refusal: Refusal) -> Response {
    let Refusal { status, message, headers, .. } = refusal;
    (status, headers, Json(json!({"error": message}))).into_response()
}

#[allow(dead_code)]
fn is_msgpack(request: &axum::http::Request<Body>) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.starts_with("application/msgpack"))
}
