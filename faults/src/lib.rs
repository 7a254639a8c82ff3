//! Real `kvindex serve` processes and what is asked of them from outside: what the faults are played on, and what the
//! benchmark of replication measures.

pub mod cluster;
mod http;
pub mod network;
pub mod progress;
pub mod secrets;
