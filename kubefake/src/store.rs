//! The objects, under one rising version, and the changes that a watch may still begin from.

use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

use crate::objects::{Key, Resource, now, stamp, text, uid};
use crate::status::Refusal;

/// Changes that are kept for watches.
const KEPT: usize = 20_000;

/// All objects.
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
    /// The version before the first change that is kept.
    compacted: u64,
    /// What is left of lists that were begun, by token.
    pub(crate) pages: HashMap<String, Page>,
    /// Tells the version.
    pub(crate) told: watch::Sender<u64>,
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: Resource,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// The rest of a list.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) version: u64,
    pub(crate) rest: Vec<Arc<Value>>,
}

/// What of an object a request may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but its status.
    Main,
    /// Its status.
    Status,
    /// All, as controllers do together.
    All,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            // Real servers never begin at zero either.
            version: 1000,
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            compacted: 1000,
            pages: HashMap::new(),
            told: watch::channel(1000).0,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(crate) fn all(&self, resource: Resource) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter().filter(move |(key, _)| key.resource == resource)
    }

    /// The changes after a version; `None` when some of them are forgotten.
    pub(crate) fn since(&self, version: u64) -> Option<Vec<Change>> {
        if version < self.compacted {
            return None;
        }
        let first = self.log.partition_point(|change| change.version <= version);
        Some(self.log.iter().skip(first).cloned().collect())
    }

    /// Forgets all changes so far, and the lists that were begun.
    pub(crate) fn compact(&mut self) {
        self.log.clear();
        self.pages.clear();
        self.compacted = self.version;
    }

    pub(crate) fn create(&mut self, key: &Key, mut object: Value) -> Result<Arc<Value>, Refusal> {
        if self.objects.contains_key(key) {
            return Err(Refusal::exists(&format!("{} {:?}", key.resource.plural(), key.name)));
        }
        stamp(
            &mut object,
            &[
                ("namespace", json!(key.namespace)),
                ("name", json!(key.name)),
                ("uid", json!(uid())),
                ("creationTimestamp", json!(now())),
            ],
        );
        object["kind"] = json!(key.resource.kind());
        object["apiVersion"] = json!(key.resource.api_version());
        Ok(self.put(key, object))
    }

    /// Replaces a part of an object.
    pub(crate) fn replace(&mut self, key: &Key, mut new: Value, part: Part) -> Result<Arc<Value>, Refusal> {
        let Some(old) = self.objects.get(key).cloned() else { return Err(not_found(key)) };
        let expected = text(&new, "/metadata/resourceVersion");
        if !expected.is_empty() && expected != text(&old, "/metadata/resourceVersion") {
            let message = "the object has been modified; please apply your changes to the latest version";
            return Err(Refusal::new(409, message));
        }
        match part {
            Part::Main => new["status"] = old.get("status").cloned().unwrap_or(json!({})),
            Part::Status => {
                let status = new.get("status").cloned().unwrap_or(json!({}));
                new = (*old).clone();
                new["status"] = status;
            }
            Part::All => {}
        }
        for field in ["uid", "creationTimestamp", "deletionTimestamp", "namespace", "name"] {
            match old["metadata"].get(field) {
                Some(value) => stamp(&mut new, &[(field, value.clone())]),
                None => drop(new["metadata"].as_object_mut().and_then(|m| m.remove(field))),
            }
        }
        new["kind"] = json!(key.resource.kind());
        new["apiVersion"] = json!(key.resource.api_version());
        stamp(&mut new, &[("resourceVersion", json!(text(&old, "/metadata/resourceVersion")))]);
        if new == *old {
            return Ok(old); // as the real one: what changes nothing makes no version
        }
        Ok(self.put(key, new))
    }

    /// Marks an object as being deleted.
    pub(crate) fn terminate(&mut self, key: &Key, grace_s: u64) -> Result<Arc<Value>, Refusal> {
        let Some(old) = self.objects.get(key) else { return Err(not_found(key)) };
        let mut new = (**old).clone();
        stamp(
            &mut new,
            &[("deletionTimestamp", json!(now())), ("deletionGracePeriodSeconds", json!(grace_s))],
        );
        Ok(self.put(key, new))
    }

    /// Takes an object away.
    pub(crate) fn remove(&mut self, key: &Key) -> Result<Arc<Value>, Refusal> {
        let Some(before) = self.objects.remove(key) else { return Err(not_found(key)) };
        self.version += 1;
        self.note(key.resource, Some(Arc::clone(&before)), None);
        Ok(before)
    }

    fn put(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        stamp(&mut object, &[("resourceVersion", json!(self.version.to_string()))]);
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.note(key.resource, before, Some(Arc::clone(&object)));
        object
    }

    fn note(&mut self, resource: Resource, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        self.log.push_back(Change { version: self.version, resource, before, after });
        while self.log.len() > KEPT {
            if let Some(change) = self.log.pop_front() {
                self.compacted = change.version;
            }
        }
        self.told.send_replace(self.version);
    }
}

fn not_found(key: &Key) -> Refusal {
    Refusal::new(404, format!("{} {:?} not found", key.resource.plural(), key.name))
}
