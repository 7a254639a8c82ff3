//! Lists: all that is selected at one version, in pages that show that version to their end.

use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::http::Query;
use crate::objects::Resource;
use crate::selector::Selection;
use crate::status::{Refusal, answer};
use crate::store::{Page, Store};

/// Answers a list.
pub(crate) fn list(
    store: &mut Store,
    resource: Resource,
    selection: &Selection,
    query: &Query,
) -> Result<Response, Refusal> {
    let limit = match query.get("limit") {
        "" => 0,
        text => text.parse::<usize>().map_err(|_| Refusal::new(400, format!("invalid limit {text:?}")))?,
    };
    let page = match query.get("continue") {
        "" => begin(store, resource, selection, query)?,
        token => store.pages.remove(token).ok_or_else(|| {
            Refusal::new(
                410,
                "The provided continue parameter is too old to display a consistent list result.",
            )
        })?,
    };
    let Page { version, mut rest } = page;
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if limit > 0 && rest.len() > limit {
        let later = rest.split_off(limit);
        let token = format!("{version}-{}-{}", later.len(), store.pages.len());
        metadata["continue"] = json!(token);
        if selection.is_all() {
            metadata["remainingItemCount"] = json!(later.len());
        }
        store.pages.insert(token, Page { version, rest: later });
    }
    let items: Vec<Value> = rest.iter().map(|object| without_kind(object)).collect();
    let kind = format!("{}List", resource.kind());
    let list =
        json!({"kind": kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items});
    Ok(answer(200, &list))
}

fn begin(store: &Store, resource: Resource, selection: &Selection, query: &Query) -> Result<Page, Refusal> {
    let wanted = query.version()?;
    match query.get("resourceVersionMatch") {
        "" | "NotOlderThan" => {}
        "Exact" if wanted == Some(store.version()) => {}
        "Exact" => return Err(Refusal::new(410, "The resourceVersion for the provided list is too old.")),
        other => return Err(Refusal::new(400, format!("resourceVersionMatch {other:?} is not supported"))),
    }
    if wanted.is_some_and(|wanted| wanted > store.version()) {
        let message = format!("Too large resource version: {wanted:?}, current: {}", store.version());
        return Err(Refusal::new(504, message));
    }
    let selected = store.all(resource).map(|(_, object)| object).filter(|object| selection.takes(object));
    Ok(Page { version: store.version(), rest: selected.map(Arc::clone).collect() })
}

/// Items of a list do not repeat what its kind says.
fn without_kind(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}
