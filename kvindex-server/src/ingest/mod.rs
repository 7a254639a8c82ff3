//! The way in from engines: `subscriber` takes frames off ZeroMQ sockets, `decode` reads them, `sequencer`
//! orders them exactly once across losses and restarts (asking `replay` for what is missing), `batcher`
//! turns them into commands for the index. Where another node takes a stream in, `standby` keeps what is heard.
//! Invariant: nothing here knows the index, the API or replication.

mod batcher;
mod contexts;
mod counters;
pub mod decode;
mod guide;
pub mod limits;
mod opening;
mod profile_check;
mod replay;
pub mod sequencer;
mod service;
pub mod standby;
mod status;
mod subscriber;

pub use batcher::{Batcher, Followed};
pub use counters::{Counter, IngestCounters};
pub use opening::IngestError;
pub use profile_check::HashCheck;
pub use sequencer::Resume;
pub use service::{
    Applied, Begin, FellBack, Fresh, Handle, IngestConfig, NotTaken, Sink, Subscription, Wiring, start,
};
#[cfg(test)]
pub(crate) use standby::SETTLED_MS;
pub use status::StreamStatus;
