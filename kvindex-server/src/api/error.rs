//! The one table of what can go wrong with a call: its gRPC code, HTTP status and word, and how each room's
//! errors map to it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kvindex_core::QueryError;
use kvindex_proto::v1;
use serde::Serialize;
use tonic::Code as Grpc;
use utoipa::ToSchema;

use crate::cluster::{PushError, WorkerError};
use crate::node::{PublishError, RegisterError};
use crate::workers::FieldError;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Invalid,
    NotFound,
    Exists,
    Precondition,
    TooLarge,
    Exhausted,
    MethodNotAllowed,
    Unavailable,
    Internal,
}

impl Kind {
    /// gRPC code, HTTP status, word. Words are the gRPC codes' names, except where HTTP is finer.
    fn row(self) -> (Grpc, StatusCode, &'static str) {
        match self {
            Self::Invalid => (Grpc::InvalidArgument, StatusCode::BAD_REQUEST, "invalid_argument"),
            Self::NotFound => (Grpc::NotFound, StatusCode::NOT_FOUND, "not_found"),
            Self::Exists => (Grpc::AlreadyExists, StatusCode::CONFLICT, "already_exists"),
            Self::Precondition => {
                (Grpc::FailedPrecondition, StatusCode::PRECONDITION_FAILED, "failed_precondition")
            }
            Self::TooLarge => (Grpc::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, "resource_exhausted"),
            Self::Exhausted => (Grpc::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
            Self::MethodNotAllowed => (Grpc::Unimplemented, StatusCode::METHOD_NOT_ALLOWED, "unimplemented"),
            Self::Unavailable => (Grpc::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Internal => (Grpc::Internal, StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

/// What is wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    kind: Kind,
    message: String,
    field: String,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: String::new() }
    }

    /// An error about one field; the message names it too, because gRPC has nothing but a message.
    pub(crate) fn of_field(kind: Kind, field: impl Into<String>, message: impl AsRef<str>) -> Self {
        let field = field.into();
        Self { kind, message: format!("{field}: {}", message.as_ref()), field }
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self::of_field(Kind::Invalid, field, message)
    }

    /// More of something than its limit.
    pub(crate) fn over_limit(field: impl Into<String>, what: &str, found: usize, limit: usize) -> Self {
        Self::of_field(Kind::TooLarge, field, format!("{found} {what}, the limit is {limit}"))
    }

    /// The same error about a part of a larger request.
    pub(crate) fn within(mut self, outer: &str) -> Self {
        if self.field.is_empty() {
            self.field = outer.to_owned();
            self.message = format!("{outer}: {}", self.message);
        } else {
            self.message = format!("{outer}.{}", self.message);
            self.field = format!("{outer}.{}", self.field);
        }
        self
    }

    /// As part of an answer about many questions.
    pub(crate) fn to_message(&self) -> v1::Error {
        let (_, _, word) = self.kind.row();
        v1::Error { code: word.into(), message: self.message.clone(), field: self.field.clone() }
    }
}

impl From<ApiError> for tonic::Status {
    fn from(error: ApiError) -> Self {
        Self::new(error.kind.row().0, error.message)
    }
}

/// Body of every HTTP error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: v1::Error,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (_, status, _) = self.kind.row();
        (status, Json(ErrorBody { error: self.to_message() })).into_response()
    }
}

/// Word of an HTTP status, for metrics.
pub(crate) fn word_of_http(status: StatusCode) -> &'static str {
    let kinds = [
        Kind::Invalid,
        Kind::NotFound,
        Kind::Exists,
        Kind::Precondition,
        Kind::TooLarge,
        Kind::Exhausted,
        Kind::MethodNotAllowed,
        Kind::Unavailable,
    ];
    let rows = kinds.into_iter().map(Kind::row);
    match rows.into_iter().find(|row| row.1 == status) {
        Some((_, _, word)) => word,
        None if status.is_success() => "ok",
        None => "internal",
    }
}

/// Word of a gRPC status as it stands in the `grpc-status` header, for metrics.
pub(crate) fn word_of_grpc(code: Grpc) -> &'static str {
    match code {
        Grpc::Ok => "ok",
        Grpc::InvalidArgument => "invalid_argument",
        Grpc::NotFound => "not_found",
        Grpc::AlreadyExists => "already_exists",
        Grpc::FailedPrecondition => "failed_precondition",
        Grpc::ResourceExhausted => "resource_exhausted",
        Grpc::Unimplemented => "unimplemented",
        Grpc::Unavailable => "unavailable",
        Grpc::Cancelled => "cancelled",
        _ => "internal",
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::invalid(error.field, error.message)
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::new(Kind::Invalid, error.to_string())
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Differs { .. } => Self::of_field(Kind::Exists, "worker_id", error.to_string()),
            RegisterError::TooMany { .. } => Self::of_field(Kind::Exhausted, "worker_id", error.to_string()),
            RegisterError::NotFollowed { field: "", message } => Self::new(Kind::Internal, message),
            RegisterError::NotFollowed { field, message } => {
                // The message begins with the field already.
                Self { kind: Kind::Invalid, message, field: field.into() }
            }
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let (kind, field) = match &error {
            PublishError::UnknownWorker(_) => (Kind::NotFound, "worker_id"),
            PublishError::OtherRegistration(_) => (Kind::Precondition, "worker_id"),
            PublishError::HasPublisher { .. } => (Kind::Precondition, "dp_rank"),
            PublishError::Gap { .. } => (Kind::Precondition, "seq"),
            PublishError::OldGeneration { .. } => (Kind::Precondition, "generation"),
            PublishError::Undecodable(_) => (Kind::Invalid, "payload"),
        };
        Self::of_field(kind, field, error.to_string())
    }
}

impl From<WorkerError> for ApiError {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Cluster(error) => error.into(),
            WorkerError::Register(error) => error.into(),
        }
    }
}

impl From<PushError> for ApiError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Cluster(error) => error.into(),
            PushError::Publish(error) => error.into(),
        }
    }
}
