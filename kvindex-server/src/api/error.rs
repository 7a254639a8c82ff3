//! The one table of what can go wrong with a call: its gRPC code, HTTP status and word, and how each room's
//! errors map to it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kvindex_core::QueryError;
use kvindex_proto::v1;
use serde::Serialize;
use std::time::Duration;
use tonic::Code as Grpc;
use utoipa::ToSchema;

use crate::access::{Denied, Limited, Overloaded, Unknown};
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
    Unauthenticated,
    Denied,
    TimedOut,
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
            Self::Unauthenticated => (Grpc::Unauthenticated, StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::Denied => (Grpc::PermissionDenied, StatusCode::FORBIDDEN, "permission_denied"),
            Self::TimedOut => (Grpc::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT, "deadline_exceeded"),
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
    /// When another attempt may succeed, where that is known.
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: String::new(), retry_after: None }
    }

    /// The same error, for which waiting helps.
    pub(crate) fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// An error about one field; the message names it too, because gRPC has nothing but a message.
    pub(crate) fn of_field(kind: Kind, field: impl Into<String>, message: impl AsRef<str>) -> Self {
        let field = field.into();
        Self { kind, message: format!("{field}: {}", message.as_ref()), field, retry_after: None }
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self::of_field(Kind::Invalid, field, message)
    }

    /// More of something than its limit.
    pub(crate) fn over_limit(field: impl Into<String>, what: &str, found: usize, limit: usize) -> Self {
        Self::of_field(Kind::TooLarge, field, format!("{found} {what}, the limit is {limit}"))
    }

    /// Whether a known caller lacks a right.
    pub(crate) fn is_denied(&self) -> bool {
        self.kind == Kind::Denied
    }

    /// Whether a request is larger than a limit: another one may be answered.
    pub(crate) fn is_too_large(&self) -> bool {
        self.kind == Kind::TooLarge
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
        let mut status = Self::new(error.kind.row().0, error.message);
        if let Some(after) = error.retry_after {
            // The second one is what gRPC libraries that retry by themselves go by.
            status.metadata_mut().insert("retry-after", whole_seconds(after).into());
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
            status.metadata_mut().insert("grpc-retry-pushback-ms", millis.into());
        }
        status
    }
}

/// The header knows nothing shorter than a second.
fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}

/// Body of every HTTP error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: v1::Error,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (_, status, _) = self.kind.row();
        let mut response = (status, Json(ErrorBody { error: self.to_message() })).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        if self.kind == Kind::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer realm=\"kvindex\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
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
        Kind::Unauthenticated,
        Kind::Denied,
        Kind::TimedOut,
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
        Grpc::Unauthenticated => "unauthenticated",
        Grpc::PermissionDenied => "permission_denied",
        Grpc::DeadlineExceeded => "deadline_exceeded",
        Grpc::OutOfRange => "out_of_range",
        _ => "internal",
    }
}

impl From<Unknown> for ApiError {
    fn from(error: Unknown) -> Self {
        Self::new(Kind::Unauthenticated, error.to_string())
    }
}

impl From<Denied> for ApiError {
    fn from(error: Denied) -> Self {
        Self::new(Kind::Denied, error.to_string())
    }
}

impl From<Limited> for ApiError {
    fn from(error: Limited) -> Self {
        Self::new(Kind::Exhausted, error.to_string()).retry_after(error.retry_after)
    }
}

impl From<Overloaded> for ApiError {
    fn from(error: Overloaded) -> Self {
        Self::new(Kind::Exhausted, error.to_string()).retry_after(Some(Overloaded::RETRY_AFTER))
    }
}

/// What stopped a request's body on its way, wherever in the chain it stands.
impl From<axum::Error> for ApiError {
    fn from(error: axum::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(this) = cause {
            if let Some(status) = this.downcast_ref::<tonic::Status>() {
                let kind =
                    if status.code() == Grpc::DeadlineExceeded { Kind::TimedOut } else { Kind::Exhausted };
                return Self::new(kind, status.message());
            }
            cause = this.source();
        }
        Self::new(Kind::Invalid, format!("the body could not be read: {error}"))
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
                Self { field: field.into(), ..Self::new(Kind::Invalid, message) }
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
