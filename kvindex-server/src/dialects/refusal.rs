//! Why a dialect's call is refused: what every dialect's error body is made from.

use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;

use crate::api::ApiError;

/// A refused call. Each dialect writes it in its own form.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The conductor's word for it.
    pub(super) reason: &'static str,
    pub(super) field: Option<String>,
    /// Which value of a list.
    pub(super) index: Option<usize>,
    /// What an answer carries beside its body, such as when to come back. Boxed: a refusal is handed on many times.
    pub(super) headers: Option<Box<HeaderMap>>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, reason, field: None, index: None, headers: None }
    }

    /// A field that is wrong; the message names it.
    pub(super) fn of(field: &str, reason: &'static str, message: impl AsRef<str>) -> Self {
        let message = format!("{field}: {}", message.as_ref());
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, reason, message) }
    }

    pub(super) fn at(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let said = error.to_message();
        // Its status and headers are those of the native answer.
        let native = error.into_response();
        // A prompt's fields stand by themselves in every dialect.
        let own = |text: &str| text.strip_prefix("prompt.").unwrap_or(text).to_owned();
        let mut headers = native.headers().clone();
        headers.remove(axum::http::header::CONTENT_TYPE);
        headers.remove(axum::http::header::CONTENT_LENGTH);
        Self {
            status: native.status(),
            message: own(&said.message),
            reason: reason(native.status()),
            field: Some(own(&said.field)).filter(|field| !field.is_empty()),
            index: None,
            headers: Some(Box::new(headers)),
        }
    }
}

fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "invalid_value",
        StatusCode::CONFLICT => "invalid_registration",
        StatusCode::PAYLOAD_TOO_LARGE => "out_of_range",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::FORBIDDEN => "permission_denied",
        StatusCode::TOO_MANY_REQUESTS => "resource_exhausted",
        StatusCode::REQUEST_TIMEOUT => "deadline_exceeded",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "internal",
    }
}
