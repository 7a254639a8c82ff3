//! The forms in which Mooncake's and Dynamo's calls come and are answered, and what tells them apart: a request's content
//! type, the name of its model's field, and the configuration where no request says it.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::dynamo;
use super::fields::{Fields, Holds, Known};
use super::refusal::Refusal;
use crate::api::{Api, CalledAs, check_json};
use crate::config::{ApiLimits, DialectsConfig, MooncakeJson};

const MSGPACK: &str = "application/msgpack";

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

/// How a call is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Mooncake's documents.
    Rfc,
    /// Its conductor in JSON.
    Conductor,
    /// The same in MessagePack.
    Packed,
    /// Dynamo's.
    Dynamo,
}

/// An error as the conductor tells it; the documents and Dynamo have its first field only.
#[derive(Debug, Serialize)]
struct Said {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

fn is_msgpack(headers: &HeaderMap) -> bool {
    // What a body is, it says itself; a call without one says what it wants.
    let said = headers.get(header::CONTENT_TYPE).or_else(|| headers.get(header::ACCEPT));
    said.is_some_and(|value| value.as_bytes().starts_with(MSGPACK.as_bytes()))
}

impl Wire {
    /// As far as a request's head tells.
    pub(super) fn of(api: &Api, headers: &HeaderMap) -> Self {
        match api.dialects().mooncake {
            None => Self::Dynamo,
            Some(_) if is_msgpack(headers) => Self::Packed,
            Some(MooncakeJson::Rfc) => Self::Rfc,
            Some(MooncakeJson::Conductor) => Self::Conductor,
        }
    }

    /// As its body tells.
    pub(super) fn told_by(self, fields: &Fields, served: &DialectsConfig) -> Self {
        let is_dynamo = served.dynamo && self != Self::Packed && fields.one(dynamo::MODEL).is_some();
        if is_dynamo { Self::Dynamo } else { self }
    }

    /// Which of Mooncake's forms a list is told in.
    pub(super) fn mooncake_json(self) -> MooncakeJson {
        if self == Self::Rfc { MooncakeJson::Rfc } else { MooncakeJson::Conductor }
    }

    /// Whether a call may be of this content type. JSON is taken under any name but in the conductor's form, which
    /// minds; `curl -d` says that it is a form.
    pub(super) fn takes(self, headers: &HeaderMap) -> Result<(), Refusal> {
        let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let known: [&[u8]; 3] =
            [b"application/json", MSGPACK.as_bytes(), b"application/x-www-form-urlencoded"];
        if self != Self::Conductor || value.is_empty() || known.iter().any(|known| value.starts_with(known)) {
            return Ok(());
        }
        let message = "the content type must be application/msgpack or application/json";
        Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported_content_type", message))
    }

    /// Reads a body's fields, bounded.
    pub(super) fn read(self, bytes: &[u8], limits: &ApiLimits) -> Result<Fields, Refusal> {
        let most = limits.prompt_tokens;
        let (read, reason) = if self == Self::Packed {
            (Fields::of_msgpack(bytes, KNOWN, most), "invalid_msgpack")
        } else {
            check_json(bytes, limits)?;
            (Fields::of_json(bytes, KNOWN, most), "invalid_json")
        };
        let word = if self == Self::Packed { "MessagePack" } else { "JSON" };
        read.map_err(|error| {
            Refusal::new(StatusCode::BAD_REQUEST, reason, format!("Invalid {word}: {error}"))
        })
    }

    /// An answer in this form.
    pub(super) fn answer(self, status: StatusCode, headers: HeaderMap, body: &impl Serialize) -> Response {
        if self != Self::Packed {
            return (status, headers, Json(body)).into_response();
        }
        match rmp_serde::to_vec_named(body) {
            Ok(bytes) => (status, headers, [(header::CONTENT_TYPE, MSGPACK)], bytes).into_response(),
            // Plain structs cannot fail.
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    /// A refusal in this form.
    pub(super) fn refuse(self, refusal: Refusal) -> Response {
        let Refusal { status, message, reason, field, index, headers } = refusal;
        let is_conductor = matches!(self, Self::Conductor | Self::Packed);
        // Dynamo reads bodies by a library that tells a broken body from a wrong field.
        let is_field = matches!(reason, "missing" | "invalid_type" | "not_array" | "out_of_range");
        let status = match status {
            StatusCode::BAD_REQUEST if self == Self::Dynamo && is_field => StatusCode::UNPROCESSABLE_ENTITY,
            status => status,
        };
        let said = Said {
            error: message,
            reason: Some(reason).filter(|_| is_conductor),
            field: field.filter(|_| is_conductor),
            index: index.filter(|_| is_conductor),
        };
        self.answer(status, headers.map_or_else(HeaderMap::new, |headers| *headers), &said)
    }

    /// Notes on an answer that the call was Dynamo's, of this name, which its path did not tell.
    pub(super) fn named(self, mut response: Response, name: &'static str) -> Response {
        if self == Self::Dynamo {
            response.extensions_mut().insert(CalledAs(name));
        }
        response
    }
}
