//! From a request to what it asks for.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::list;
use crate::objects::{Key, Resource, text};
use crate::selector::Selection;
use crate::server::World;
use crate::status::{Refusal, answer};
use crate::store::Part;
use crate::watch;

/// Largest object that is taken.
const MAX_BODY: usize = 3 << 20;

/// A request's parameters.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    fn of(request: &Request) -> Self {
        let parsed = axum::extract::Query::<BTreeMap<String, String>>::try_from_uri(request.uri());
        Self(parsed.map(|query| query.0).unwrap_or_default())
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The version that is asked for.
    pub(crate) fn version(&self) -> Result<Option<u64>, Refusal> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => {
                let number = text.parse().map_err(|_| {
                    Refusal::new(
                        400,
                        format!("resourceVersion: Invalid value: {text:?}: invalid resource version"),
                    )
                });
                number.map(Some)
            }
        }
    }
}

/// What a path names.
#[derive(Debug)]
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

/// Answers a request.
pub(crate) async fn handle(world: Arc<World>, request: Request) -> Response {
    world.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (fault, slow) = {
        let faults = world.faults.lock();
        (faults.answer, faults.slow_lists)
    };
    if let Some(code) = fault {
        return Refusal::new(code, "on demand").response();
    }
    if let Some(known) = describe(request.uri().path()) {
        return answer(200, &known);
    }
    if !slow.is_zero() && request.method() == Method::GET {
        tokio::time::sleep(slow).await;
    }
    dispatch(&world, request).await.unwrap_or_else(|refusal| refusal.response())
}

async fn dispatch(world: &Arc<World>, request: Request) -> Result<Response, Refusal> {
    let path = request.uri().path().to_owned();
    let target = target(&path).ok_or_else(|| {
        Refusal::new(404, format!("the server could not find the requested resource {path}"))
    })?;
    let query = Query::of(&request);
    let watches = ["true", "1"].contains(&query.get("watch"));
    let verb = match (request.method().as_str(), &target.name, watches) {
        ("GET", None, true) => "watch",
        ("GET", None, false) => "list",
        ("GET", Some(_), _) => "get",
        ("POST", None, _) => "create",
        ("PUT", Some(_), _) => "update",
        ("PATCH", Some(_), _) => "patch",
        ("DELETE", Some(_), _) => "delete",
        _ => {
            return Err(Refusal::new(405, "the server does not allow this method on the requested resource"));
        }
    };
    let access = world.access.lock().clone();
    access.check(request.headers(), (verb, target.resource), target.namespace.as_deref())?;
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let plain = |part: &str| !part.contains("as=") && (part.contains("json") || part.contains("*/*"));
    if !accepts.split(',').any(plain) {
        return Err(Refusal::new(406, "only application/json is served"));
    }
    if let Some(name) = target.name.clone() {
        let namespace = target.namespace.clone().unwrap_or_default();
        let key = Key { resource: target.resource, namespace, name };
        return one(world, &key, target.status, (verb, &query), request).await;
    }
    let selection =
        Selection::parse(query.get("labelSelector"), query.get("fieldSelector"), target.namespace.clone())
            .map_err(|message| Refusal::new(400, message))?;
    match verb {
        "watch" => watch::watch(world, target.resource, selection, &query),
        "list" => list::list(&mut world.store.lock(), target.resource, &selection, &query),
        _ => create(world, &target, request).await,
    }
}

async fn create(world: &Arc<World>, target: &Target, request: Request) -> Result<Response, Refusal> {
    let mut object = body(request).await?;
    let namespace = target.namespace.clone().unwrap_or_default();
    let mut name = text(&object, "/metadata/name").to_owned();
    if name.is_empty() {
        let prefix = text(&object, "/metadata/generateName");
        if prefix.is_empty() {
            return Err(Refusal::new(422, "metadata.name: Required value: name or generateName is required"));
        }
        name = format!("{prefix}{:05x}", world.store.lock().version());
    }
    // Nobody but a status says how a new object is.
    object["status"] = match target.resource {
        Resource::Pods => json!({"phase": "Pending"}),
        Resource::Services | Resource::EndpointSlices => json!({}),
    };
    let key = Key { resource: target.resource, namespace, name };
    let created = world.store.lock().create(&key, object)?;
    Ok(answer(201, &created))
}

async fn one(
    world: &Arc<World>,
    key: &Key,
    status: bool,
    (verb, query): (&str, &Query),
    request: Request,
) -> Result<Response, Refusal> {
    let part = if status { Part::Status } else { Part::Main };
    match verb {
        "get" => {
            let store = world.store.lock();
            let found = store.get(key).map(Arc::clone);
            let missing = || Refusal::new(404, format!("{} {:?} not found", key.resource.plural(), key.name));
            Ok(answer(200, &*found.ok_or_else(missing)?))
        }
        "update" => {
            let object = body(request).await?;
            Ok(answer(200, &*world.store.lock().replace(key, object, part)?))
        }
        "patch" => {
            let is_merge = |kind: &str| kind.starts_with("application/merge-patch+json");
            let is_strategic = |kind: &str| kind.starts_with("application/strategic-merge-patch+json");
            let kind =
                request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
            let (merge, strategic) = (is_merge(kind), is_strategic(kind));
            let patch = body(request).await?;
            if !(merge || strategic && !has_lists(&patch)) {
                return Err(Refusal::new(
                    415,
                    "only merge patches are served, and strategic ones without lists",
                ));
            }
            let mut store = world.store.lock();
            let mut object = store.get(key).map_or(Value::Null, |object| (**object).clone());
            merge_into(&mut object, &patch);
            Ok(answer(200, &*store.replace(key, object, part)?))
        }
        _ => {
            let options = body(request).await.unwrap_or_default();
            let grace = options["gracePeriodSeconds"].as_u64();
            let grace = grace.or_else(|| query.get("gracePeriodSeconds").parse().ok());
            Ok(answer(200, &*world.delete(key, grace)?))
        }
    }
}

async fn body(request: Request) -> Result<Value, Refusal> {
    let bytes = to_bytes(request.into_body(), MAX_BODY).await;
    let bytes = bytes.map_err(|error| Refusal::new(400, format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|error| Refusal::new(400, format!("the body is no JSON: {error}")))
}

fn has_lists(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(map) => map.values().any(has_lists),
        _ => false,
    }
}

/// RFC 7386.
fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|map| map.remove(key))),
            value => merge_into(&mut target[key.as_str()], value),
        }
    }
}

fn target(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", "discovery.k8s.io", "v1", rest @ ..] => ("discovery.k8s.io", rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (plural, name, status) = match rest {
        [plural] => (plural, None, false),
        [plural, name] if namespace.is_some() => (plural, Some((*name).to_owned()), false),
        [plural, name, "status"] if namespace.is_some() => (plural, Some((*name).to_owned()), true),
        _ => return None,
    };
    Some(Target { resource: Resource::of(group, plural)?, namespace, name, status })
}

/// What clients ask to find out what is served.
fn describe(path: &str) -> Option<Value> {
    let resources = |group: &str| {
        let of_group = Resource::ALL.into_iter().filter(|resource| resource.group() == group);
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        let listed: Vec<Value> = of_group
            .map(|resource| {
                json!({"name": resource.plural(), "singularName": resource.kind().to_lowercase(), "namespaced": true,
                       "kind": resource.kind(), "verbs": verbs, "shortNames": resource.short_names()})
            })
            .collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "resources": listed})
    };
    let mut known = match path.trim_end_matches('/') {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{
            "name": "discovery.k8s.io",
            "versions": [{"groupVersion": "discovery.k8s.io/v1", "version": "v1"}],
            "preferredVersion": {"groupVersion": "discovery.k8s.io/v1", "version": "v1"},
        }]}),
        "/api/v1" => resources(""),
        "/apis/discovery.k8s.io/v1" => resources("discovery.k8s.io"),
        "/version" => {
            json!({"major": "1", "minor": "36", "gitVersion": "v1.36.2-fake", "platform": "linux/amd64"})
        }
        "/healthz" | "/livez" | "/readyz" => json!("ok"),
        _ => return None,
    };
    match path.trim_end_matches('/') {
        "/api/v1" => known["groupVersion"] = json!("v1"),
        "/apis/discovery.k8s.io/v1" => known["groupVersion"] = json!("discovery.k8s.io/v1"),
        _ => {}
    }
    Some(known)
}

/// The service that a connection talks to.
pub(crate) fn service(
    world: Arc<World>,
) -> impl Fn(
    hyper::Request<hyper::body::Incoming>,
) -> futures_util::future::BoxFuture<'static, Result<Response, std::convert::Infallible>>
+ Clone {
    move |request| {
        let world = Arc::clone(&world);
        Box::pin(async move { Ok(handle(world, request.map(Body::new)).await) })
    }
}

/// How long a deleted pod on a node terminates when nobody says.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
