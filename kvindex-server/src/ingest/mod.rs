//! The way in from engines: `subscriber` takes frames off ZeroMQ sockets, `decode` reads them, `sequencer`
//! orders them exactly once across losses and restarts (asking `replay` for what is missing), `batcher`
//! turns them into commands for the index. Invariant: nothing here knows the index, the API or replication.

mod batcher;
mod contexts;
mod counters;
pub mod decode;
pub mod limits;
mod opening;
mod profile_check;
mod replay;
pub mod sequencer;
mod service;
mod status;
mod subscriber;

pub use counters::{Counter, IngestCounters};
pub use opening::IngestError;
pub use profile_check::HashCheck;
pub use service::{Handle, IngestConfig, Sink, Subscription, start};
pub use status::StreamStatus;
