//! kvindex-server: one node that follows engines' KV events and answers routers. Read `app.rs` first: it is
//! the only place that knows every part.

mod access;
mod api;
mod app;
pub mod cluster;
mod clustered;
pub mod config;
mod dialects;
pub mod discovery;
mod doors;
mod endpoints;
mod hash_profile;
pub mod ingest;
#[doc(hidden)]
pub mod inputs;
mod kv_groups;
pub mod metrics;
pub mod net;
pub mod node;
mod open_doors;
mod roll;
mod snapshots;
mod sources;
mod static_workers;
pub mod tokenizer;
pub mod trust;
mod ui;
mod workers;

pub use access::{AccessError, NewToken, NoRandom, check_access};
pub use api::CALL_TARGET;
pub use app::{App, AppError, Running, StartError, StopError};
pub use doors::{ListenError, Listeners};
pub use hash_profile::RawHashProfile;
pub use kv_groups::RawGroup;
pub use open_doors::{OpenDoor, open_doors};
pub use workers::{FieldError, RawStream, RawWorker, StreamSource, WorkerDefinition};
