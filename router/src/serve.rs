//! The routes: OpenAI's completions calls, models, and what says that the router lives.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router as Routes};
use bytes::Bytes;
use kvindex_client::{Answer, Client, PromptTokens};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::choose::{Choice, choose};
use crate::fleet::{Fleet, Held, Known, candidates, held_by_worker};
use crate::forward::{Forward, RANK, Unreached, holding, passed_on};
use crate::tokens::tokens_of;

/// Engines that a request is offered to before its client is told that there is none.
const TRIES: usize = 3;

/// Largest request, the size of a million tokens of text and some pictures.
const MAX_BODY: usize = 64 << 20;

/// Where InferNex's proxies read which pair was chosen, as `host:port`.
const PREFILL: HeaderName = HeaderName::from_static("x-openfuyao-prefill-pod-address-port");
const DECODE: HeaderName = HeaderName::from_static("x-openfuyao-decode-pod-address-port");

/// Where vLLM reads from whom an engine takes the blocks of a prompt. Only the router says it.
const TRANSFER: &str = "kv_transfer_params";

/// Fields that say whom an engine connects to, or which of its ranks computes: the router's to say, not a client's.
/// vLLM's for blocks and for encoded pictures, and SGLang's for a prefill-decode pair.
const OWN_FIELDS: [&str; 7] = [
    TRANSFER,
    "ec_transfer_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "bootstrap_pair_key",
    "data_parallel_rank",
];

/// What an answer says of how its engine was chosen: the worker, the tokens that the index said it holds, and why
/// nothing was known if nothing was.
const WORKER: HeaderName = HeaderName::from_static("x-kvindex-worker");
const MATCHED: HeaderName = HeaderName::from_static("x-kvindex-matched-tokens");
const UNKNOWN: HeaderName = HeaderName::from_static("x-kvindex-unknown");

/// How the router works.
#[derive(Debug, Clone)]
pub struct RouterOptions {
    /// Where a prefill-decode group's pair is only told in headers: the proxy that asks both, as `host:port`. Without
    /// one the router asks them itself.
    pub proxy: Option<String>,
    /// How long an engine may take until its answer begins, which for an answer that is not streamed is all of it. After
    /// that it is left out for a while, and one other is asked.
    pub answer_timeout: Duration,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self { proxy: None, answer_timeout: Duration::from_secs(600) }
    }
}

/// A router that serves.
#[derive(Debug)]
pub struct Router {
    client: Client,
    fleet: Arc<Fleet>,
    forward: Forward,
    options: RouterOptions,
}

/// Where a request goes, with what is known of it.
struct Route {
    choice: Choice,
    engines: HashMap<String, Known>,
    held: HashMap<String, Held>,
    prompt_tokens: u64,
}

impl Route {
    /// Prompt tokens that a worker is believed to hold.
    fn held(&self, worker: &str) -> u64 {
        self.held.get(worker).map_or(0, |held| held.tokens)
    }

    /// The data-parallel rank that holds them; `None` where none does, and the engine may choose.
    fn rank(&self, worker: &str) -> Option<u32> {
        self.held.get(worker).filter(|held| held.tokens > 0).map(|held| held.row.dp_rank)
    }

    /// Prompt tokens that a worker would have to compute.
    fn to_compute(&self, worker: &str) -> u64 {
        self.prompt_tokens.saturating_sub(self.held(worker))
    }
}

impl Router {
    /// A router that asks this index. [`Self::routes`] serves it.
    #[must_use]
    pub fn new(client: Client, options: RouterOptions) -> Arc<Self> {
        let fleet = Fleet::new(client.clone());
        Arc::new(Self { client, fleet, forward: Forward::new(options.answer_timeout), options })
    }

    /// The engines that it knows.
    #[must_use]
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// The routes. Needs a runtime: the list of engines is kept up to date by a task that ends with it.
    pub fn routes(self: &Arc<Self>) -> Routes {
        tokio::spawn(Arc::clone(&self.fleet).follow());
        Routes::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/completions", post(complete))
            .route("/v1/models", get(models))
            .route("/healthz", get(async || "ok\n"))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(Arc::clone(self))
    }

    /// Where a request goes, `None` if nobody can take it. `Err` says why the index did not know, which stops nothing.
    async fn route(
        &self,
        prompt: Option<&PromptTokens>,
        tokens: u64,
        model: &str,
    ) -> (Option<Route>, Result<(), String>) {
        let engines = self.fleet.of_model(model);
        let mut said = Ok(());
        let held = match prompt {
            None => {
                said = Err("the prompt's token ids could not be had".to_owned());
                HashMap::new()
            }
            Some(prompt) => match self.client.match_tokens(prompt).await {
                Answer::Known(answer) => held_by_worker(answer.workers),
                Answer::Unknown { reason } => {
                    said = Err(reason.to_string());
                    HashMap::new()
                }
            },
        };
        let route = choose(tokens, &candidates(&engines, &held)).map(|choice| {
            let engines = engines.into_iter().map(|engine| (engine.worker.clone(), engine)).collect();
            Route { choice, engines, held, prompt_tokens: tokens }
        });
        (route, said)
    }

    /// Counts the choice among what its engines hold, until they have announced it.
    fn count(&self, route: &Route, prompt: Option<&PromptTokens>) -> Counted {
        let (workers, tells_ranks) = match &route.choice {
            Choice::Whole(worker) => (vec![worker], true),
            Choice::Pair { prefill, decode } => (vec![prefill, decode], self.options.proxy.is_none()),
        };
        // An engine with several ranks that is not told one takes whichever it likes, and nobody learns which.
        let is_at_a_rank = |worker: &&String| {
            let chooses = route.engines.get(*worker).is_some_and(Known::has_ranks);
            !chooses || tells_ranks && route.rank(worker).is_some()
        };
        let workers = workers.into_iter().filter(is_at_a_rank);
        let rows = workers.filter_map(|worker| Some((prompt?, route.held.get(worker)?)));
        let choices = rows.map(|(prompt, held)| self.client.routed(prompt.message(), &held.row)).collect();
        Counted { client: self.client.clone(), choices }
    }

    /// Asks one engine for all of it.
    async fn whole(&self, call: &Call, route: &Route, worker: &str) -> Result<Response, Unreached> {
        let engine = engine_of(route, worker)?;
        let place = engine.enter(route.to_compute(worker));
        let rank = route.rank(worker);
        let sent = self.forward.send(engine, &call.path, &call.headers, call.body.clone(), rank).await;
        sent.inspect_err(|error| aside(engine, error)).map(|answer| holding(answer, vec![place]))
    }

    /// Has one engine compute the prompt and another one go on: vLLM's two requests, of which the first one answers
    /// where its blocks can be read.
    async fn pair(
        &self,
        call: &Call,
        route: &Route,
        (prefill, decode): (&str, &str),
    ) -> Result<Response, Unreached> {
        let (first, second) = (engine_of(route, prefill)?, engine_of(route, decode)?);
        let mut headers = call.headers.clone();
        insert(&mut headers, PREFILL, &first.address);
        insert(&mut headers, DECODE, &second.address);
        let mut place = first.enter(route.to_compute(prefill));
        let decoding = second.enter(0);
        if let Some(proxy) = &self.options.proxy {
            let proxy = first.at(proxy);
            let sent = self.forward.send(&proxy, &call.path, &headers, call.body.clone(), None).await;
            // It would be the same one for another pair, and which of the two it has not reached, it does not say.
            let sent = sent.map_err(|error| Unreached { others: 0, ..error })?;
            return Ok(holding(sent, vec![place, decoding]));
        }
        let body = Bytes::from(prefill_request(&call.request).to_string());
        let sent = self.forward.send(first, &call.path, &headers, body, route.rank(prefill)).await;
        let computed = sent.inspect_err(|error| aside(first, error))?;
        if !computed.status().is_success() {
            // The engine's own words, such as for a prompt that is too long.
            return Ok(computed);
        }
        let transfer = transfer_of(computed, &first.worker).await?;
        place.is_computed();
        drop(place);
        let mut request = call.request.clone();
        if let Some(fields) = request.as_object_mut() {
            fields.insert(TRANSFER.into(), transfer);
        }
        let body = Bytes::from(request.to_string());
        let sent = self.forward.send(second, &call.path, &headers, body, route.rank(decode)).await;
        sent.inspect_err(|error| aside(second, error)).map(|answer| holding(answer, vec![decoding]))
    }
}

/// An answer that broke off says nothing of the next connection.
fn aside(engine: &Known, error: &Unreached) {
    if error.others > 0 {
        engine.put_aside();
    }
}

fn engine_of<'a>(route: &'a Route, worker: &str) -> Result<&'a Known, Unreached> {
    let gone = || Unreached { others: usize::MAX, reason: format!("{worker} is gone") };
    route.engines.get(worker).ok_or_else(gone)
}

/// The request that computes a prompt and hands its blocks over.
fn prefill_request(request: &Value) -> Value {
    let mut request = request.clone();
    if let Some(fields) = request.as_object_mut() {
        fields.insert("max_tokens".into(), json!(1));
        fields.insert("stream".into(), json!(false));
        for field in ["stream_options", "min_tokens", "max_completion_tokens"] {
            fields.remove(field);
        }
        let params = json!({"do_remote_decode": true, "do_remote_prefill": false});
        fields.insert(TRANSFER.into(), params);
    }
    request
}

/// Where the decode engine can read what the other one has computed.
async fn transfer_of(computed: Response, worker: &str) -> Result<Value, Unreached> {
    let broken = |reason: String| Unreached { others: 0, reason: format!("{worker}: {reason}") };
    let bytes = axum::body::to_bytes(computed.into_body(), MAX_BODY).await;
    let bytes = bytes.map_err(|error| broken(error.to_string()))?;
    let mut answer: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    match answer.get_mut(TRANSFER).map(Value::take) {
        Some(params) if params.is_object() => Ok(params),
        _ => Err(broken(
            "its answer has no kv_transfer_params: is it set up for disaggregated prefill?".into(),
        )),
    }
}

/// Drops what only this router says to engines: a client that says it would choose where its request goes, and whom an
/// engine connects to.
fn drop_routers_own(headers: &mut HeaderMap) {
    let is_own = |name: &&HeaderName| {
        let name = name.as_str();
        name == RANK.as_str() || name.starts_with("x-openfuyao-") && name.ends_with("-pod-address-port")
    };
    let own: Vec<HeaderName> = headers.keys().filter(is_own).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Ids and reasons may hold what a header must not.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Choices that count as held, until it is dropped: the engine refused, or the client has gone before it answered.
struct Counted {
    client: Client,
    choices: Vec<kvindex_client::Routed>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.choices.drain(..).for_each(|choice| self.client.not_routed(choice));
    }
}

/// A client's call.
struct Call {
    path: String,
    headers: HeaderMap,
    body: Bytes,
    request: Value,
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
    let kind = if status.is_client_error() { "invalid_request_error" } else { "server_error" };
    let error = json!({"error": {"message": message.into(), "type": kind, "code": status.as_u16()}});
    (status, Json(error)).into_response()
}

async fn complete(
    State(router): State<Arc<Router>>,
    uri: Uri,
    headers: HeaderMap,
    mut body: Bytes,
) -> Response {
    let mut request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")),
    };
    // Before this router says its own: what a client names as of its connection must not take that away.
    let mut headers = passed_on(&headers);
    drop_routers_own(&mut headers);
    if let Some(fields) = request.as_object_mut() {
        let came = fields.len();
        fields.retain(|name, _| !OWN_FIELDS.contains(&name.as_str()));
        if fields.len() < came {
            body = Bytes::from(request.to_string());
        }
    }
    let Some(model) = request.get("model").and_then(Value::as_str).map(str::to_owned) else {
        return refuse(StatusCode::BAD_REQUEST, "model: is required, a text");
    };
    let call = Call { path: uri.path().to_owned(), headers, body, request };
    let ids = tokens_of(&router.forward, &router.fleet.of_model(&model), &call.request).await;
    let tokens = ids.as_ref().map_or(0, |ids| ids.len() as u64);
    let prompt = ids.map(|ids| PromptTokens::new(model.as_str(), &ids)).map(|prompt| {
        match call.request.get("cache_salt").and_then(Value::as_str) {
            Some(salt) => prompt.cache_salt(salt),
            None => prompt,
        }
    });
    let mut failed = format!("no engine serves model {model:?}, or none that could be reached");
    let mut left = TRIES;
    while left > 0 {
        let (route, said) = router.route(prompt.as_ref(), tokens, &model).await;
        let Some(route) = route else { break };
        let mut counted = router.count(&route, prompt.as_ref());
        let (worker, sent) = match &route.choice {
            Choice::Whole(worker) => (worker, router.whole(&call, &route, worker).await),
            Choice::Pair { prefill, decode } => {
                (prefill, router.pair(&call, &route, (prefill, decode)).await)
            }
        };
        if sent.as_ref().is_ok_and(|answer| answer.status().is_success()) {
            counted.choices.clear();
        }
        match sent {
            Ok(answer) => return told(answer, &route, worker, said),
            Err(unreached) => {
                failed = unreached.reason;
                left = (left - 1).min(unreached.others);
            }
        }
    }
    refuse(StatusCode::SERVICE_UNAVAILABLE, failed)
}

/// An answer with what it was chosen by.
fn told(mut answer: Response<Body>, route: &Route, worker: &str, said: Result<(), String>) -> Response {
    let headers = answer.headers_mut();
    insert(headers, WORKER, worker);
    insert(headers, MATCHED, &route.held(worker).to_string());
    if let Err(reason) = said {
        insert(headers, UNKNOWN, &reason);
    }
    if let Choice::Pair { prefill, decode } = &route.choice {
        for (name, worker) in [(PREFILL, prefill), (DECODE, decode)] {
            if let Some(engine) = route.engines.get(worker) {
                insert(headers, name, &engine.address);
            }
        }
    }
    answer
}

async fn models(State(router): State<Arc<Router>>) -> Json<Value> {
    let models: BTreeSet<String> = router.fleet.all().into_iter().map(|engine| engine.model).collect();
    let data: Vec<Value> = models
        .into_iter()
        .map(|id| json!({"id": id, "object": "model", "owned_by": "kvindex-router"}))
        .collect();
    Json(json!({"object": "list", "data": data}))
}
