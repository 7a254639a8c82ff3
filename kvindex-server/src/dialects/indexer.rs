//! The paths that Mooncake's and Dynamo's indexers share. Which of them a request means is told by its body: Dynamo's
//! names its model `model_name`, Mooncake's `model` or `modelname`.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use kvindex_proto::v1;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

use super::asker::Asker;
use super::dynamo;
use super::fields::Fields;
use super::mooncake::{self, conductor, listing, rank, rfc};
use super::refusal::Refusal;
use super::wire::Wire;
use crate::api::{Api, question, small};
use crate::config::ApiLimits;

pub(super) fn router(api: &Arc<Api>) -> Router {
    let mut routes = Router::new()
        .route("/query", post(|asker: Asker, request: Request| ask(asker, request, false)))
        .route("/query_by_hash", post(|asker: Asker, request: Request| ask(asker, request, true)))
        .route("/register", post(|asker: Asker, request: Request| change(asker, request, true)))
        .route("/unregister", post(|asker: Asker, request: Request| change(asker, request, false)));
    if api.dialects().mooncake.is_some() {
        routes = routes.route("/services", get(services)).route("/global_view", get(global_view));
    }
    if api.dialects().dynamo {
        routes = routes.route("/workers", get(workers)).route("/health", get(health));
    }
    routes.with_state(Arc::clone(api))
}

async fn services(asker: Asker, headers: HeaderMap) -> Response {
    let wire = Wire::of(&asker.api, &headers);
    listed(wire, listing::services(&asker, wire.mooncake_json()).await)
}

async fn global_view(asker: Asker, headers: HeaderMap) -> Response {
    let wire = Wire::of(&asker.api, &headers);
    listed(wire, listing::global_view(&asker, wire.mooncake_json()).await)
}

async fn workers(asker: Asker, which: Result<Query<dynamo::Which>, QueryRejection>) -> Response {
    let workers = match which {
        Ok(Query(which)) => dynamo::workers(&asker, which).await,
        Err(error) => Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_value", error.body_text())),
    };
    listed(Wire::Dynamo, workers)
}

fn listed(wire: Wire, list: Result<impl Serialize, Refusal>) -> Response {
    match list {
        Ok(list) => wire.answer(StatusCode::OK, HeaderMap::new(), &list),
        Err(refusal) => wire.refuse(refusal),
    }
}

async fn health() {}

/// What a question's body asks, in whichever dialect.
#[derive(Debug)]
pub(super) enum Asked {
    Mooncake(mooncake::Question),
    Dynamo(dynamo::Question),
}

impl Asked {
    /// Everything that can be made of a body by itself.
    pub(super) fn read(
        wire: Wire,
        fields: &mut Fields,
        by_hash: bool,
        limits: &ApiLimits,
    ) -> Result<Self, Refusal> {
        let limit = limits.prompt_tokens;
        Ok(match wire {
            Wire::Rfc => Self::Mooncake(rfc::question(fields, by_hash, limit)?),
            Wire::Conductor | Wire::Packed => Self::Mooncake(conductor::question(fields, by_hash, limit)?),
            Wire::Dynamo => Self::Dynamo(dynamo::Question::read(fields, by_hash, limit)?),
        })
    }

    /// The prompt that it is about.
    pub(super) fn into_prompt(self) -> v1::Prompt {
        match self {
            Self::Mooncake(question) => question.prompt,
            Self::Dynamo(question) => question.prompt,
        }
    }

    async fn answer(self, asker: &Asker, wire: Wire) -> Result<Response, Refusal> {
        Ok(match self {
            Self::Mooncake(question) => {
                let held = question.ask(asker).await?;
                let headers = held.found.headers();
                if wire == Wire::Rfc {
                    wire.answer(StatusCode::OK, headers, &rfc::answer(held))
                } else {
                    wire.answer(StatusCode::OK, headers, &conductor::answer(held))
                }
            }
            Self::Dynamo(question) => {
                let (found, answer) = question.ask(asker).await?;
                wire.answer(StatusCode::OK, found.headers(), &answer)
            }
        })
    }
}

/// `/query` and `/query_by_hash`.
async fn ask(asker: Asker, request: Request, by_hash: bool) -> Response {
    let head = Wire::of(&asker.api, request.headers());
    // A long body has a turn, so all that is made of it is made in here.
    let read = |bytes: &Bytes| {
        let mut fields = head.read(bytes, asker.limits())?;
        let wire = head.told_by(&fields, asker.api.dialects());
        Ok::<_, Refusal>((wire, Asked::read(wire, &mut fields, by_hash, asker.limits())))
    };
    let asked = match head.takes(request.headers()) {
        Ok(()) => question(&asker.api, request.into_body(), usize::MAX, read).await,
        Err(refusal) => Err(refusal),
    };
    let (wire, asked) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return head.refuse(refusal),
    };
    let answer = match asked {
        Ok(asked) => asked.answer(&asker, wire).await,
        Err(refusal) => Err(refusal),
    };
    let answer = answer.unwrap_or_else(|refusal| wire.refuse(refusal));
    wire.named(answer, if by_hash { dynamo::QUERY_BY_HASH } else { dynamo::QUERY })
}

/// `/register` and `/unregister`.
async fn change(asker: Asker, request: Request, is_new: bool) -> Response {
    let head = Wire::of(&asker.api, request.headers());
    let fields = async {
        head.takes(request.headers())?;
        head.read(&small(&asker.api, request.into_body()).await?, asker.limits())
    };
    let fields = match fields.await {
        Ok(fields) => fields,
        Err(refusal) => return head.refuse(refusal),
    };
    let wire = head.told_by(&fields, asker.api.dialects());
    let answer = match wire {
        Wire::Dynamo => dynamo_change(&asker, &fields, is_new).await,
        Wire::Rfc | Wire::Conductor | Wire::Packed => mooncake_change(&asker, wire, &fields, is_new).await,
    };
    let answer = answer.unwrap_or_else(|refusal| wire.refuse(refusal));
    wire.named(answer, if is_new { dynamo::REGISTER } else { dynamo::UNREGISTER })
}

async fn dynamo_change(asker: &Asker, fields: &Fields, is_new: bool) -> Result<Response, Refusal> {
    let status = if is_new {
        dynamo::register(asker, fields).await?;
        StatusCode::CREATED
    } else {
        dynamo::unregister(asker, fields).await?;
        StatusCode::OK
    };
    Ok(Wire::Dynamo.answer(status, HeaderMap::new(), &json!({"status": "ok"})))
}

async fn mooncake_change(
    asker: &Asker,
    wire: Wire,
    fields: &Fields,
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
