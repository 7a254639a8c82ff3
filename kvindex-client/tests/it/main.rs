//! The client against a real node, and against nodes that are gone, silent or opposed.

#![allow(clippy::unwrap_used)]

mod calls;
mod fail_open;
mod node;
mod streams;
mod tls;
