//! LMCache's lookup: how much of some token ids each instance holds, and on what. Errors are those of the framework that
//! theirs is written in, because that is what its callers know.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use kvindex_proto::v1;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;

use super::fields::{Fields, Flaw, Holds, Known, List};
use super::fold::instance;
use super::ordered::{Ordered, first_of_each};
use super::{Call, Route, named};
use crate::access::{Caller, Right};
use crate::api::{Api, ApiError, Arrived, Kind, check_json, question};
use crate::config::ApiLimits;

/// The call.
pub(super) const ROUTES: [Route; 1] = [("POST", "/lookup", Call::question("lmcache_lookup"))];

/// The one field there is. Others are passed over, as theirs does.
const KNOWN: Known = &[("tokens", Holds::Tokens)];

/// Largest body of which a part is told back in an error.
const MAX_ECHOED: usize = 64 << 10;

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new().route("/lookup", post(lookup).fallback(not_allowed)).with_state(Arc::clone(api))
}

/// Where an instance holds a prefix, and how much of it, in tokens.
#[derive(Debug, PartialEq, Serialize)]
struct Layout(&'static str, u64);

#[derive(Debug, Serialize)]
struct Answer {
    event_id: String,
    layout_info: Ordered<Layout>,
}

/// Why there is no answer.
#[derive(Debug)]
enum Refused {
    /// The body is none of this call's: their framework's list of flaws.
    Body(Value),
    /// Everything else.
    Call(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Call(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Body(flaw) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"detail": [flaw]}))).into_response()
            }
            Self::Call(error) => {
                let detail = Json(json!({"detail": error.to_message().message}));
                // Status and headers, such as when to come back, are those of the native answer.
                let (mut native, own) = (error.into_response().into_parts().0, detail.into_response());
                native.headers.extend(own.headers().clone());
                native.headers.remove(header::CONTENT_LENGTH);
                Response::from_parts(native, own.into_body())
            }
        }
    }
}

async fn not_allowed() -> Response {
    let detail = Json(json!({"detail": "Method Not Allowed"}));
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")], detail).into_response()
}

async fn lookup(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Result<Json<Answer>, Refused> {
    let model = named::model(request.headers(), api.dialects())?;
    let tokens = question(&api, request.into_body(), usize::MAX, |bytes| read(bytes, api.limits())).await?;
    let tenant = api.dialects().tenant.clone();
    caller.tenant(Right::Read, &tenant).map_err(ApiError::from)?;
    let event_id = event_id()?;
    if tokens.is_empty() {
        return Ok(Json(Answer { event_id, layout_info: Ordered(Vec::new()) }));
    }
    let prompt = v1::Prompt { model, tenant, token_ids: tokens, ..v1::Prompt::default() };
    let asked =
        v1::MatchRequest { prompt: Some(prompt), min_matched_blocks: 1, ..v1::MatchRequest::default() };
    let found = api.find(&caller, &asked, arrived).await?;
    Ok(Json(Answer { event_id, layout_info: layout(&found.workers) }))
}

/// Best first, as they come; an instance's best rank speaks for it.
fn layout(workers: &[v1::WorkerMatch]) -> Ordered<Layout> {
    let held = workers.iter().filter(|worker| worker.matched_tokens > 0);
    let held =
        held.map(|worker| (instance(worker).to_owned(), Layout(location(worker), worker.matched_tokens)));
    Ordered(first_of_each(held))
}

/// Their word for the slowest tier that the match needs. They index no device memory and have none for it.
fn location(worker: &v1::WorkerMatch) -> &'static str {
    let whole = worker.tiers.iter().find(|tier| tier.prefix_blocks == worker.matched_blocks);
    match whole.map(|tier| tier.tier.as_str()) {
        Some("device") => "LocalGPUBackend",
        Some("host") => "LocalCPUBackend",
        Some("disk") => "LocalDiskBackend",
        _ => "RemoteBackend",
    }
}

/// As theirs: a word and a random number in the form of a UUID's fourth version.
fn event_id() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::new(Kind::Internal, format!("no random bytes: {error}")))?;
    let random = u128::from_be_bytes(bytes);
    let versioned = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{versioned:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    Ok(format!("Lookup{}", parts.join("-")))
}

fn read(body: &Bytes, limits: &ApiLimits) -> Result<Vec<u32>, Refused> {
    check_json(body, limits)?;
    if body.trim_ascii().is_empty() {
        return Err(flaw("missing", json!(["body"]), "Field required", Value::Null));
    }
    let mut fields =
        Fields::of_json(body, KNOWN, limits.prompt_tokens).map_err(|error| broken(body, &error))?;
    let place = json!(["body", "tokens"]);
    match fields.take_list("tokens") {
        None => Err(flaw("missing", place, "Field required", echo(body, &[]))),
        Some(List::Tokens { values, found, flaw: None }) => {
            let limit = limits.prompt_tokens;
            if found > limit {
                Err(ApiError::over_limit("tokens", "tokens", found, limit).into())
            } else {
                Ok(values)
            }
        }
        Some(List::Tokens { flaw: Some((index, why)), .. }) => Err(wrong_token(body, index, why)),
        Some(_) => Err(flaw("list_type", place, "Input should be a valid list", echo(body, &["/tokens"]))),
    }
}

fn wrong_token(body: &[u8], index: usize, why: Flaw) -> Refused {
    let input = echo(body, &["/tokens", &format!("/{index}")]);
    let (kind, message) = match (&input, why) {
        // Theirs takes any whole number; token ids are of 32 bits.
        (_, Flaw::Range) => ("int_parsing_size", "Input should be an integer from 0 to 4294967295"),
        (Value::String(_), _) => {
            ("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
        }
        (Value::Number(_), _) => {
            ("int_from_float", "Input should be a valid integer, got a number with a fractional part")
        }
        _ => ("int_type", "Input should be a valid integer"),
    };
    flaw(kind, json!(["body", "tokens", index]), message, input)
}

/// What is wrong with a body that holds no fields.
fn broken(body: &[u8], error: &str) -> Refused {
    let parsed = serde_json::from_slice::<IgnoredAny>(body);
    if parsed.is_ok() && body.trim_ascii_start().first() != Some(&b'{') {
        let message = "Input should be a valid dictionary or object to extract fields from";
        return flaw("model_attributes_type", json!(["body"]), message, echo(body, &[]));
    }
    let (line, column) = parsed.err().map_or((1, 1), |error| (error.line(), error.column()));
    let before: usize =
        body.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let Refused::Body(mut flaw) = flaw(
        "json_invalid",
        json!(["body", before + column.saturating_sub(1)]),
        "JSON decode error",
        json!({}),
    ) else {
        return ApiError::new(Kind::Invalid, error).into();
    };
    if let Some(flaw) = flaw.as_object_mut() {
        flaw.insert("ctx".into(), json!({"error": error}));
    }
    Refused::Body(flaw)
}

fn flaw(kind: &str, place: Value, message: &str, input: Value) -> Refused {
    let parts = [("type", kind.into()), ("loc", place), ("msg", message.into()), ("input", input)];
    Refused::Body(parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect())
}

/// The part of a body that is wrong, where reading it again costs little.
fn echo(body: &[u8], path: &[&str]) -> Value {
    let whole = if body.len() <= MAX_ECHOED { serde_json::from_slice(body).ok() } else { None };
    whole.and_then(|whole: Value| whole.pointer(&path.concat()).cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn held(worker_id: &str, instance: &str, blocks: u64, tiers: &[(&str, u64)]) -> v1::WorkerMatch {
        let tier = |(tier, prefix_blocks): &(&str, u64)| v1::TierMatch {
            tier: (*tier).into(),
            prefix_blocks: *prefix_blocks,
            ..v1::TierMatch::default()
        };
        let mut worker = v1::WorkerMatch {
            worker_id: worker_id.into(),
            matched_blocks: blocks,
            matched_tokens: blocks * 16,
            tiers: tiers.iter().map(tier).collect(),
            ..v1::WorkerMatch::default()
        };
        if !instance.is_empty() {
            worker.labels.insert(super::super::fold::INSTANCE.into(), instance.into());
        }
        worker
    }

    #[test]
    fn the_slowest_tier_that_a_match_needs_is_named() {
        let workers = [
            held("z", "", 4, &[("device", 1), ("host", 4), ("disk", 4)]),
            held("b", "i", 3, &[("device", 3), ("host", 3)]),
            held("a", "i", 2, &[("device", 1), ("disk", 2)]),
            held("c", "", 1, &[("external", 1)]),
            held("d", "", 0, &[]),
        ];
        let json = serde_json::to_string(&layout(&workers)).unwrap();
        assert_eq!(
            json,
            r#"{"z":["LocalCPUBackend",64],"i":["LocalGPUBackend",48],"c":["RemoteBackend",16]}"#
        );
    }

    #[test]
    fn event_ids_are_random_uuids_with_a_word_before() {
        let (one, other) = (event_id().unwrap(), event_id().unwrap());
        assert_ne!(one, other);
        let uuid = one.strip_prefix("Lookup").unwrap();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{one}");
        assert_eq!(uuid.as_bytes()[14], b'4', "{one}");
        assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{one}");
    }
}
