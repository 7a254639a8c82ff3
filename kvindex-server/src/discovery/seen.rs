//! What discovery needs of pods, services and endpoint slices, and no more: a watch of a thousand pods keeps little,
//! and the rules are tested without Kubernetes' own types.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// What it is called; used again by StatefulSets.
    pub(crate) name: Name,
    /// Never used again.
    pub(crate) uid: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Those of its annotations that the settings name: a label's value may have no slash, a model's name often has.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Its addresses, the primary one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub(crate) phase: String,
    /// It is being deleted.
    pub(crate) terminating: bool,
    /// It says that it can serve.
    pub(crate) ready: bool,
    /// When it was made, in seconds since the epoch: only to tell the newer of two pods.
    pub(crate) created: i64,
    /// Its containers, side cars last.
    pub(crate) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its name.
    pub(crate) name: String,
    /// The TCP ports it declares.
    pub(crate) ports: Vec<Port>,
    /// Its present life; `None` while it does not run.
    pub(crate) life: Option<Life>,
    /// Why it does not run, such as `CrashLoopBackOff`.
    pub(crate) waits_for: String,
}

/// One life of a container: what tells it from the one before it in the same pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// When it started, in seconds since the epoch.
    pub(crate) started: i64,
    /// How often it was started again before.
    pub(crate) restarts: i32,
    /// The runtime's id of it.
    pub(crate) id: String,
}

/// A declared port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Its name; empty when it has none.
    pub(crate) name: String,
    /// Its number.
    pub(crate) number: u16,
}

/// A Service that the service selector selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// What it is called.
    pub(crate) name: Name,
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    /// What it is called.
    pub(crate) name: Name,
    /// The Service it belongs to.
    pub(crate) service: String,
    /// The UIDs of the pods behind it.
    pub(crate) pods: Vec<String>,
    /// Endpoints behind it that are no pods.
    pub(crate) others: usize,
}

/// Everything that was seen, in no particular order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Pods: all of the namespace, or those that match the pod selector.
    pub(crate) pods: Vec<std::sync::Arc<Pod>>,
    /// Services that match the service selector.
    pub(crate) services: Vec<std::sync::Arc<Service>>,
    /// Slices of all services of the namespace.
    pub(crate) slices: Vec<std::sync::Arc<Slice>>,
}
