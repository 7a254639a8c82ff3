//! A stand-in for a Kubernetes API server, for tests and for trying things out: pods, services and endpoint slices
//! over real HTTP, with lists in pages, watches from a version, bookmarks, expiry, rights, and faults on demand.
//!
//! What it must do was written down from a real server (1.36), and `tests/it/conformance.rs` runs against whichever
//! server `KVINDEX_TEST_KUBECONFIG` names, so that both can be held against each other. It is the outside world: it
//! knows nothing of kvindex.

mod access;
mod controllers;
mod faults;
mod http;
mod list;
mod manifest;
mod objects;
mod selector;
mod server;
mod status;
mod store;
mod watch;

pub use access::Access;
pub use faults::Faults;
pub use manifest::Manifest;
pub use objects::{Key, Resource};
pub use server::Fake;
