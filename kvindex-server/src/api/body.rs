//! JSON request bodies: bounded, and with errors that name the field.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use std::sync::Arc;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tokio_stream::StreamExt;

use super::Api;
use super::calls::{LONG_BYTES, run};
use super::error::{ApiError, Kind};
use super::parts::{check_json, reason, small_body};
use crate::config::ApiLimits;

/// The limit on bodies that no smaller one is for.
const LONGEST: &str = "max_body_bytes";

/// A body that carries neither a prompt nor events, read from JSON. Any content type is taken for JSON, as `curl -d`
/// sends another one.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let bytes = small(api, request.into_body()).await?;
        parse_bounded(&bytes, &api.limits).map(Self)
    }
}

/// A body of events, which may be as long as any.
#[derive(Debug)]
pub(super) struct JsonEvents<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for JsonEvents<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), api.limits.body_bytes, LONGEST).await?;
        run(bytes.len() > LONG_BYTES, || parse_bounded(&bytes, &api.limits)).map(Self)
    }
}

/// A question's body. A long one is parsed in the turn of queries, which that is as much work as.
#[derive(Debug)]
pub(super) struct JsonQuestion<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for JsonQuestion<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let parse = |bytes: &Bytes| parse_bounded(bytes, &api.limits);
        question(api, request.into_body(), usize::MAX, parse).await.map(Self)
    }
}

/// Reads a question's body, of at most so many bytes where its call has a limit of its own, and makes something of it.
/// A long one is parsed in the turn of queries.
pub(crate) async fn question<T, E: From<ApiError>>(
    api: &Api,
    body: Body,
    most: usize,
    parse: impl FnOnce(&Bytes) -> Result<T, E>,
) -> Result<T, E> {
    let longest = api.limits.body_bytes;
    let reason = if most < longest { "that of this call" } else { LONGEST };
    let bytes = read(body, most.min(longest), reason).await?;
    let long = bytes.len() > LONG_BYTES;
    let _turn = if long { Some(api.turn(1, bytes.len()).await?) } else { None };
    run(long, || parse(&bytes))
}

/// Reads the body of a call that carries neither a prompt nor events.
pub(crate) async fn small(api: &Api, body: Body) -> Result<Bytes, ApiError> {
    let limit = small_body(&api.limits);
    read(body, limit, reason(limit)).await
}

/// Reads a body up to `limit` bytes, which are so many for this reason. A little more is read and dropped, so that a
/// client that is slightly over hears the answer instead of a broken connection.
async fn read(body: Body, limit: usize, reason: &str) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut received = 0usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        received = received.saturating_add(chunk.len());
        if received <= limit {
            bytes.extend_from_slice(&chunk);
        } else if received > limit.saturating_mul(2) {
            break;
        }
    }
    if received > limit {
        let message = format!("the body has more bytes than the limit of {limit} ({reason})");
        return Err(ApiError::new(Kind::TooLarge, message));
    }
    Ok(bytes.freeze())
}

/// Reads a message that holds no more than it may.
fn parse_bounded<T: DeserializeOwned>(bytes: &[u8], limits: &ApiLimits) -> Result<T, ApiError> {
    check_json(bytes, limits)?;
    parse(bytes)
}

/// Reads a message from JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // The JSON reader would take an array for an object's values in order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::new(Kind::Invalid, "the body must be a JSON object"));
    }
    // Knowing where each value stands costs half of reading it again, so only who is wrong pays for it.
    serde_json::from_slice(bytes).or_else(|_| parse_told(bytes))
}

/// The same, slower, with errors that name the field.
fn parse_told<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => ApiError::new(Kind::Invalid, error.inner().to_string()),
            _ => ApiError::invalid(path, error.inner().to_string()),
        }
    })?;
    json.end().map_err(|error| ApiError::new(Kind::Invalid, error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kvindex_proto::v1::MatchRequest;

    fn field_of(json: &str) -> String {
        parse::<MatchRequest>(json.as_bytes()).unwrap_err().to_message().field
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(field_of(r#"{"prompt":{"model":"m","token_ids":[1,-1]}}"#), "prompt.token_ids[1]");
        assert_eq!(field_of(r#"{"prompt":{"model":"m","token_ids":[4294967296]}}"#), "prompt.token_ids[0]");
        assert_eq!(field_of(r#"{"prompt":{"model":"m","tokens":[1]}}"#), "prompt.tokens");
        assert_eq!(field_of(r#"{"prompt":{"token_ids_le":"%%"}}"#), "prompt.token_ids_le");
        assert_eq!(field_of(r#"{"promt":{}}"#), "promt");
    }

    #[test]
    fn broken_json_is_refused() {
        for json in ["", "{", "[]", "{} x"] {
            assert!(parse::<MatchRequest>(json.as_bytes()).is_err(), "{json}");
        }
    }
}
