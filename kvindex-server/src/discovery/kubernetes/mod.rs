//! Kubernetes' API: the only room that knows its client and its types.

mod client;
mod convert;
mod survey;
mod watch;

pub(crate) use client::{Connection, connect};
pub(crate) use survey::list_all;
pub(crate) use watch::{Watching, watch};
