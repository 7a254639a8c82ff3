//! The kinds of objects that are served, what names one of them, and what is common to all.

use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `v1` Pods.
    Pods,
    /// `v1` Services.
    Services,
    /// `discovery.k8s.io/v1` EndpointSlices.
    EndpointSlices,
}

impl Resource {
    pub(crate) const ALL: [Self; 3] = [Self::Pods, Self::Services, Self::EndpointSlices];

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
        }
    }

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Pods => "Pod",
            Self::Services => "Service",
            Self::EndpointSlices => "EndpointSlice",
        }
    }

    pub(crate) fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::Pods => &["po"],
            Self::Services => &["svc"],
            Self::EndpointSlices => &[],
        }
    }

    pub(crate) fn group(self) -> &'static str {
        match self {
            Self::Pods | Self::Services => "",
            Self::EndpointSlices => "discovery.k8s.io",
        }
    }

    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::Pods | Self::Services => "v1",
            Self::EndpointSlices => "discovery.k8s.io/v1",
        }
    }

    pub(crate) fn of(group: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.group() == group && resource.plural() == plural)
    }
}

/// What names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub resource: Resource,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// An object's name.
    #[must_use]
    pub fn new(resource: Resource, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A text inside an object; empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The time as Kubernetes writes it.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A UID that no other object of this process has, nor one of another run.
pub(crate) fn uid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let run = u128::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0) >> 20;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{:04x}-4000-8000-{number:012x}", run as u32, (run >> 32) as u16)
}

/// Replaces the metadata that the server gives.
pub(crate) fn stamp(object: &mut Value, fields: &[(&str, Value)]) {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    for (field, value) in fields {
        object["metadata"][*field] = value.clone();
    }
}
