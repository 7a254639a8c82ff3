//! The client against a real node, and against nodes that are gone, silent or opposed.

#![allow(clippy::unwrap_used)]

mod budgets;
mod calls;
mod clustered;
mod fail_open;
mod following;
mod link;
mod node;
mod several;
mod streams;
mod tls;
