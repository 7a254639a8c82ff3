//! The real binary, as people and scripts run it.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod cluster;
mod demo_cases;
mod demo_cluster;
mod demo_replay;
mod demo_stay;
mod discover;
mod discover_memory;
mod doctor;
mod help;
mod node;
mod picture;
mod reload;
mod round_trip;
mod serve;
mod tls;
mod token;
mod top;
mod top_terminal;
mod traces;
