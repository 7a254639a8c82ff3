//! Watches: the changes after a version, one line each, as a body that goes on until its time is over.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use crate::faults::Blow;
use crate::http::Query;
use crate::objects::{Resource, stamp};
use crate::selector::Selection;
use crate::server::World;
use crate::status::Refusal;
use crate::store::Change;

/// How long a watch goes on when nobody says.
const DEFAULT_TIMEOUT_S: u64 = 1800;
/// Lines that wait for a slow reader.
const WAITING: usize = 256;

type Line = Result<Bytes, io::Error>;

/// A watch that was asked for.
struct Watch {
    world: Arc<World>,
    resource: Resource,
    selection: Selection,
    bookmarks: bool,
    lines: mpsc::Sender<Line>,
    version: u64,
}

/// Answers a watch.
pub(crate) fn watch(
    world: &Arc<World>,
    resource: Resource,
    selection: Selection,
    query: &Query,
) -> Result<Response, Refusal> {
    let bookmarks = query.get("allowWatchBookmarks") == "true";
    let initial = query.get("sendInitialEvents") == "true";
    if initial && query.get("resourceVersionMatch") != "NotOlderThan" {
        let message =
            "resourceVersionMatch: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(Refusal::new(422, message));
    }
    let wanted = query.version()?;
    let store = world.store.lock();
    let version = match wanted.filter(|version| *version > 0 && !initial) {
        Some(version) => version,
        None => store.version(),
    };
    let mut first = Vec::new();
    if initial || wanted.is_none_or(|version| version == 0) {
        let selected = store.all(resource).map(|(_, object)| object).filter(|o| selection.takes(o));
        first.extend(selected.map(|object| line("ADDED", object)));
    }
    if initial && bookmarks {
        first.push(bookmark(resource, version, true));
    }
    if version < store.compacted() && !world.faults.lock().expire_in_stream {
        let message = format!("too old resource version: {version} ({})", store.compacted());
        return Err(Refusal::new(410, message));
    }
    drop(store);
    let timeout = query.get("timeoutSeconds").parse().unwrap_or(DEFAULT_TIMEOUT_S);
    let (lines, body) = mpsc::channel(WAITING);
    let watch = Watch { world: Arc::clone(world), resource, selection, bookmarks, lines, version };
    tokio::spawn(watch.run(first, Duration::from_secs(timeout)));
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(body)));
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(axum::http::header::CONTENT_TYPE, json);
    Ok(response)
}

impl Watch {
    async fn run(mut self, first: Vec<Bytes>, timeout: Duration) {
        let mut blows = self.world.blows.subscribe();
        let mut told = self.world.store.lock().told.subscribe();
        let end = Instant::now() + timeout;
        let every = self.world.faults.lock().bookmark_every;
        let mut due = interval_at(Instant::now() + every, every);
        for line in first {
            if self.lines.send(Ok(line)).await.is_err() {
                return;
            }
        }
        loop {
            if !self.catch_up().await {
                return;
            }
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = sleep_until(end) => return,
                () = self.lines.closed() => return,
                _ = due.tick(), if self.bookmarks => {
                    let line = bookmark(self.resource, self.version, false);
                    if self.lines.send(Ok(line)).await.is_err() {
                        return;
                    }
                }
                blow = blows.recv() => {
                    if let Ok(blow) = blow {
                        self.suffer(blow).await;
                    }
                    return;
                }
            }
        }
    }

    /// Sends what changed since; answers whether the watch goes on.
    async fn catch_up(&mut self) -> bool {
        let changes = {
            let store = self.world.store.lock();
            store.since(self.version).map(|changes| (changes, store.version().max(self.version)))
        };
        let Some((changes, version)) = changes else {
            let _ = self.lines.send(Ok(expired(self.version))).await;
            return false;
        };
        for change in changes.iter().filter(|change| change.resource == self.resource) {
            if let Some(line) = self.event(change)
                && self.lines.send(Ok(line)).await.is_err()
            {
                return false;
            }
        }
        self.version = version;
        true
    }

    /// What a change is to whoever sees only what is selected.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let before = change.before.as_ref().filter(|object| self.selection.takes(object));
        let after = change.after.as_ref().filter(|object| self.selection.takes(object));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(line("ADDED", after)),
            (Some(_), Some(after)) => Some(line("MODIFIED", after)),
            (Some(before), None) => {
                let mut last = (**before).clone();
                stamp(&mut last, &[("resourceVersion", json!(change.version.to_string()))]);
                Some(line("DELETED", &last))
            }
        }
    }

    async fn suffer(&self, blow: Blow) {
        let broken = || Err(io::Error::other("cut on demand"));
        let lines: Vec<Line> = match blow {
            Blow::Cut => vec![broken()],
            Blow::HalfLine => {
                vec![Ok(Bytes::from_static(b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Po")), broken()]
            }
            Blow::Expire => vec![Ok(expired(self.version))],
            Blow::Error(code) => vec![Ok(line("ERROR", &Refusal::new(code, "on demand").to_json()))],
        };
        for line in lines {
            let _ = self.lines.send(line).await;
            // So that what came before the break is read.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

fn expired(version: u64) -> Bytes {
    line("ERROR", &Refusal::new(410, format!("too old resource version: {version}")).to_json())
}

fn bookmark(resource: Resource, version: u64, ends_initial: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if ends_initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({"kind": resource.kind(), "apiVersion": resource.api_version(), "metadata": metadata});
    line("BOOKMARK", &object)
}
