//! Hit rates: which part of a prompt each pod holds. InferNex's router asks its cache indexer something like this, by a
//! call that is not public; path, fields and form follow the configuration (docs/dialects.md says what is guessed).

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use kvindex_proto::v1;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::ordered::{Ordered, first_of_each};
use super::{Call, named};
use crate::access::Caller;
use crate::api::{Api, ApiError, Arrived, Kind, check_json, question};
use crate::config::{ApiLimits, HitRateConfig, HitRateValue};

/// The call, whose path is configured.
pub(super) const CALL: Call = Call::question("hitrate");

/// Largest request, as theirs has it.
const MAX_BYTES: usize = 4 << 20;

pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new().route(&api.dialects().hitrate.path, post(ask)).with_state(Arc::clone(api))
}

async fn ask(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Result<Response, ApiError> {
    let config = &api.dialects().hitrate;
    let usual = named::model(request.headers(), api.dialects())?;
    let read = |bytes: &Bytes| read(bytes, config, api.limits());
    let asked = question(&api, request.into_body(), MAX_BYTES, read).await?;
    let is_empty = asked.tokens.is_empty();
    let prompt = v1::Prompt {
        model: asked.model.filter(|model| !model.is_empty()).unwrap_or(usual),
        tenant: api.dialects().tenant.clone(),
        // Nothing is no question; the same pods are listed for any.
        token_ids: if is_empty { vec![0] } else { asked.tokens },
        ..v1::Prompt::default()
    };
    if prompt.model.is_empty() {
        let message =
            format!("is required: neither the request nor dialect_model names a model ({})", named::MODEL);
        return Err(ApiError::invalid(&config.model_field, message));
    }
    let role = Some(config.role.clone()).filter(|role| !role.is_empty());
    let request = v1::MatchRequest { prompt: Some(prompt), role, ..v1::MatchRequest::default() };
    let found = api.find(&caller, &request, arrived).await?;
    let tokens = if is_empty { 0 } else { found.prompt_tokens };
    Ok(answer(&found.workers, tokens, asked.pods.as_deref(), config))
}

/// Best first: an entry for each pod that has a name of the kind that is wanted, and was asked about.
fn answer(
    workers: &[v1::WorkerMatch],
    tokens: u64,
    pods: Option<&[String]>,
    config: &HitRateConfig,
) -> Response {
    let asked: Option<HashSet<&str>> = pods.map(|pods| pods.iter().map(String::as_str).collect());
    let named = workers.iter().filter_map(|worker| {
        let pod = worker.pod.as_ref().map(|pod| pod.name.as_str());
        let name = config.key.of(worker.address.as_deref(), pod)?;
        let is_asked = asked.as_ref().is_none_or(|asked| asked.contains(name.as_str()));
        is_asked.then(|| (name, value(worker.matched_tokens, tokens, config.value)))
    });
    let entries = first_of_each(named);
    if !config.is_list {
        return Json(Ordered(entries)).into_response();
    }
    let field = match config.value {
        HitRateValue::Rate => "hit_rate",
        HitRateValue::NotRate => "not_hit_rate",
        HitRateValue::Tokens => "matched_tokens",
    };
    let list = entries
        .into_iter()
        .map(|(pod, value)| Ordered(vec![("pod".to_owned(), Value::from(pod)), (field.to_owned(), value)]));
    Json(list.collect::<Vec<_>>()).into_response()
}

/// Of an empty prompt nothing is held.
#[allow(clippy::cast_precision_loss)] // no prompt has as many tokens
fn value(matched: u64, tokens: u64, what: HitRateValue) -> Value {
    let matched = matched.min(tokens);
    let rate = if tokens == 0 { 0.0 } else { matched as f64 / tokens as f64 };
    match what {
        HitRateValue::Rate => json!(rate),
        HitRateValue::NotRate => json!(1.0 - rate),
        HitRateValue::Tokens => json!(matched),
    }
}

/// A request's fields.
#[derive(Debug, Default)]
struct Asked {
    model: Option<String>,
    tokens: Vec<u32>,
    has_tokens: bool,
    /// How many tokens there were; more than are kept when there were more than the limit.
    found: usize,
    pods: Option<Vec<String>>,
}

fn read(body: &Bytes, config: &HitRateConfig, limits: &ApiLimits) -> Result<Asked, ApiError> {
    check_json(body, limits)?;
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    let seed = Body { config, limit: limits.prompt_tokens };
    let asked = seed.deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let asked = asked.map_err(|error| match track.path().to_string() {
        path if path == "." => ApiError::new(Kind::Invalid, error.to_string()),
        path => ApiError::invalid(path, error.to_string()),
    })?;
    json.end().map_err(|error| ApiError::new(Kind::Invalid, error.to_string()))?;
    if !asked.has_tokens {
        return Err(ApiError::invalid(&config.tokens_field, "is required, a list of token ids"));
    }
    if asked.found > limits.prompt_tokens {
        let field = config.tokens_field.as_str();
        return Err(ApiError::over_limit(field, "tokens", asked.found, limits.prompt_tokens));
    }
    if let Some(pods) = asked.pods.as_ref().filter(|pods| pods.len() > limits.candidates) {
        return Err(ApiError::over_limit(config.pods_field.as_str(), "pods", pods.len(), limits.candidates));
    }
    Ok(asked)
}

/// The whole body, by the fields that are configured.
struct Body<'c> {
    config: &'c HitRateConfig,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Asked;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Asked, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut asked = Asked::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == self.config.model_field {
                asked.model = map.next_value()?;
            } else if name == self.config.tokens_field {
                (asked.tokens, asked.found) = map.next_value_seed(Tokens { limit: self.limit })?;
                asked.has_tokens = true;
            } else if name == self.config.pods_field {
                asked.pods = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(asked)
    }
}

/// Token ids up to a limit, and how many there were.
struct Tokens {
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Tokens {
    type Value = (Vec<u32>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Tokens {
    type Value = (Vec<u32>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut tokens, mut found) = (Vec::new(), 0);
        while let Some(token) = list.next_element()? {
            found += 1;
            if found <= self.limit {
                tokens.push(token);
            }
        }
        Ok((tokens, found))
    }
}
