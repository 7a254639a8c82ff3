//! The paths that Mooncake's and Dynamo's indexers share. Which of them a request means is told by its body: Dynamo's
//! names its model `model_name`, Mooncake's `model` or `modelname`.

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;

use super::asker::Asker;
use super::dynamo;
use super::mooncake::{conductor, listing, rank, rfc};
use super::refusal::Refusal;
use super::wire::Wire;
use crate::access::Caller;
use crate::api::{Api, Arrived, question, small};

pub(super) fn router(api: &Arc<Api>) -> Router {
    let mut routes = Router::new()
        .route("/query", post(query))
        .route("/query_by_hash", post(query_by_hash))
        .route("/register", post(register))
        .route("/unregister", post(unregister));
    if api.dialects().mooncake.is_some() {
        routes = routes.route("/services", get(services)).route("/global_view", get(global_view));
    }
    if api.dialects().dynamo {
        routes = routes.route("/workers", get(workers)).route("/health", get(health));
    }
    routes.with_state(Arc::clone(api))
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

async fn register(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Response {
    change(&Asker { api: &api, caller: &caller, arrived }, request, true).await
}

async fn unregister(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Response {
    change(&Asker { api: &api, caller: &caller, arrived }, request, false).await
}

async fn services(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
) -> Response {
    let (asker, wire) = (Asker { api: &api, caller: &caller, arrived }, Wire::of(&api, &headers));
    match listing::services(&asker, wire.mooncake_json()).await {
        Ok(services) => wire.answer(StatusCode::OK, HeaderMap::new(), &services),
        Err(refusal) => wire.refuse(refusal),
    }
}

async fn global_view(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
) -> Response {
    let (asker, wire) = (Asker { api: &api, caller: &caller, arrived }, Wire::of(&api, &headers));
    match listing::global_view(&asker, wire.mooncake_json()).await {
        Ok(view) => wire.answer(StatusCode::OK, HeaderMap::new(), &view),
        Err(refusal) => wire.refuse(refusal),
    }
}

async fn workers(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    which: Result<Query<dynamo::Which>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let asker = Asker { api: &api, caller: &caller, arrived };
    let answer = async {
        let Query(which) = which
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "invalid_value", error.body_text()))?;
        dynamo::workers(&asker, which).await
    };
    match answer.await {
        Ok(workers) => Wire::Dynamo.answer(StatusCode::OK, HeaderMap::new(), &workers),
        Err(refusal) => Wire::Dynamo.refuse(refusal),
    }
}

async fn health() {}

/// `/query` and `/query_by_hash`.
async fn ask(asker: &Asker<'_>, request: Request, by_hash: bool) -> Response {
    let (limits, head) = (*asker.limits(), Wire::of(asker.api, request.headers()));
    let taken = head.takes(request.headers());
    let read = |bytes: &Bytes| head.read(bytes, &limits);
    let fields = match taken {
        Ok(()) => question(asker.api, request.into_body(), read).await,
        Err(refusal) => Err(refusal),
    };
    let mut fields = match fields {
        Ok(fields) => fields,
        Err(refusal) => return head.refuse(refusal),
    };
    let wire = head.told_by(&fields, asker.api.dialects());
    let answer = async {
        Ok(match wire {
            Wire::Rfc => {
                let (found, answer) = rfc::query(asker, &mut fields, by_hash).await?;
                wire.answer(StatusCode::OK, found.headers(), &answer)
            }
            Wire::Conductor | Wire::Packed => {
                let (found, answer) = conductor::query(asker, &mut fields, by_hash).await?;
                wire.answer(StatusCode::OK, found.headers(), &answer)
            }
            Wire::Dynamo => {
                let (found, answer) = dynamo::query(asker, &mut fields, by_hash).await?;
                wire.answer(StatusCode::OK, found.headers(), &answer)
            }
        })
    };
    let answer = answer.await.unwrap_or_else(|refusal| wire.refuse(refusal));
    wire.named(answer, if by_hash { dynamo::QUERY_BY_HASH } else { dynamo::QUERY })
}

/// `/register` and `/unregister`.
async fn change(asker: &Asker<'_>, request: Request, is_new: bool) -> Response {
    let (limits, head) = (*asker.limits(), Wire::of(asker.api, request.headers()));
    let fields = async {
        head.takes(request.headers())?;
        head.read(&small(asker.api, request.into_body()).await?, &limits)
    };
    let fields = match fields.await {
        Ok(fields) => fields,
        Err(refusal) => return head.refuse(refusal),
    };
    let wire = head.told_by(&fields, asker.api.dialects());
    let answer = async {
        if wire != Wire::Dynamo {
            return mooncake_change(asker, wire, &fields, is_new).await;
        }
        let status = if is_new {
            dynamo::register(asker, &fields).await?;
            StatusCode::CREATED
        } else {
            dynamo::unregister(asker, &fields).await?;
            StatusCode::OK
        };
        Ok(wire.answer(status, HeaderMap::new(), &json!({"status": "ok"})))
    };
    let answer = answer.await.unwrap_or_else(|refusal| wire.refuse(refusal));
    wire.named(answer, if is_new { dynamo::REGISTER } else { dynamo::UNREGISTER })
}

async fn mooncake_change(
    asker: &Asker<'_>,
    wire: Wire,
    fields: &super::fields::Fields,
    is_new: bool,
) -> Result<Response, Refusal> {
    if wire != Wire::Rfc {
        conductor::only(fields, if is_new { &conductor::REGISTER } else { &conductor::UNREGISTER })?;
    }
    let none = HeaderMap::new();
    Ok(if is_new {
        let registered = rank::register(asker, fields, wire.mooncake_json()).await?;
        wire.answer(StatusCode::OK, none, &registered)
    } else {
        wire.answer(StatusCode::OK, none, &rank::unregister(asker, fields).await?)
    })
}
