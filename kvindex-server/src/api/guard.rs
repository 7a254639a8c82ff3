//! What stands before every call: who calls, whether that many may, and whether there is room. Refused here, a call
//! costs no more than its head, once that is looked at.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tonic::Status;

use super::Api;
use super::error::{ApiError, Kind};
use super::intake::{Held, Intake};
use super::observe::Method;
use crate::access::{Caller, Limited, units};

/// Lets a call through with its caller noted, or answers in its place.
pub(super) async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let method = Method::of(&request, &api.dialects);
    let grpc = method.is_grpc();
    let refuse = |error: ApiError| {
        if grpc { Status::from(error).into_http::<Body>() } else { error.into_response() }
    };
    // The routes would answer to any method, and what is not known by its name is not counted as a question.
    if grpc && request.method() != axum::http::Method::POST {
        return ApiError::new(Kind::MethodNotAllowed, "gRPC calls are made by POST").into_response();
    }
    // Whoever asks whether the node lives must hear it, whatever else is going on.
    if method.is_health() {
        return next.run(request).await;
    }
    if method.is_page() {
        let held = api.room_for_page();
        return match held {
            Ok(held) => held.around(next.run(request).await).unwrap_or_else(refuse),
            Err(full) => refuse(full),
        };
    }
    let caller = if method.is_metrics() && api.access.has_open_metrics() {
        Caller::anyone()
    } else {
        match api.access.caller(authorization(request.headers())) {
            Ok(caller) => caller,
            Err(unknown) => {
                api.access.metrics().refused("unauthenticated");
                return refuse(unknown.into());
            }
        }
    };
    let admitted = api.admit(&caller, method);
    let held = match admitted {
        Ok(held) => held,
        Err(error) => {
            let outcome = if error.is_denied() { "denied" } else { "limited" };
            if error.is_denied() {
                api.access.metrics().refused("denied");
            } else {
                // Who may ask, only not now, is no stranger.
                crate::net::is_known(request.extensions());
            }
            if let Some(name) = caller.name() {
                api.access.metrics().called(name, outcome);
            }
            return refuse(error);
        }
    };
    crate::net::is_known(request.extensions());
    request.extensions_mut().insert(caller.clone());
    let intake = Intake::new(Arc::clone(&held), method.is_stream(), &api.intake);
    let request = request.map(|body| intake.around(body));
    let response = next.run(request).await;
    let response = if method.is_stream() {
        // Streams are counted by themselves, and what they hold is the body's.
        response
    } else {
        held.around(response).unwrap_or_else(|full| {
            api.access.metrics().refused("overload");
            refuse(full)
        })
    };
    api.count(&caller, &response);
    response
}

fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION).map(|value| value.as_bytes())
}

impl Api {
    /// Whether there is room for one more call, and one more of this caller.
    fn admit(&self, caller: &Caller, method: Method) -> Result<Arc<Held>, ApiError> {
        if let Some(right) = method.right() {
            caller.may(right)?;
        }
        if method.is_question() {
            if !method.is_batch() {
                self.charge(caller, 1)?;
            }
            if self.gate.is_full() {
                self.access.metrics().refused("overload");
                return Err(self.gate.overloaded().into());
            }
        }
        let open = self.access.metrics().in_flight().clone();
        let held = Held::new(open, &self.intake, caller.name());
        held.inspect_err(|_| self.access.metrics().refused("overload"))
    }

    /// The page is for everyone, like health, but not more of it than there is room for. Who only looks at it stays
    /// a stranger to the door.
    fn room_for_page(&self) -> Result<Arc<Held>, ApiError> {
        let held = Held::new(self.access.metrics().in_flight().clone(), &self.intake, None);
        held.inspect_err(|_| self.access.metrics().refused("overload"))
    }

    /// Takes questions from what a caller may ask.
    pub(super) fn charge(&self, caller: &Caller, questions: usize) -> Result<(), ApiError> {
        caller.charge(questions).map_err(|limited| self.limited(limited))
    }

    /// Takes questions from what a tenant's callers may ask.
    pub(super) fn charge_tenant(
        &self,
        caller: &Caller,
        tenant: &str,
        questions: usize,
    ) -> Result<(), ApiError> {
        caller.charge_tenant(tenant, questions).map_err(|limited| self.limited(limited))
    }

    /// Takes what it costs to make token ids of a text, before any of it is done: as many questions as a prompt of so
    /// many bytes is work for the gate. The question that is asked with the ids is counted by itself.
    pub(crate) fn charge_text(&self, caller: &Caller, tenant: &str, bytes: usize) -> Result<(), ApiError> {
        let questions = usize::try_from(units(1, bytes)).unwrap_or(usize::MAX);
        self.charge_tenant(caller, tenant, questions)?;
        self.charge(caller, questions)
    }

    /// Notes that a call was refused because there is too much to do.
    pub(crate) fn overloaded(&self) {
        self.access.metrics().refused("overload");
    }

    fn limited(&self, limited: Limited) -> ApiError {
        self.access.metrics().refused(limited.word());
        limited.into()
    }

    fn count(&self, caller: &Caller, response: &Response) {
        let code =
            response.headers().get("grpc-status").map(|value| tonic::Code::from_bytes(value.as_bytes()));
        let is = |grpc: tonic::Code, http: u16| code == Some(grpc) || response.status().as_u16() == http;
        let outcome = if is(tonic::Code::PermissionDenied, 403) {
            self.access.metrics().refused("denied");
            "denied"
        } else if response.headers().contains_key(header::RETRY_AFTER) {
            "limited"
        } else {
            "answered"
        };
        if let Some(name) = caller.name() {
            self.access.metrics().called(name, outcome);
        }
    }
}
