//! The log store on real files: torn and damaged ones, killed processes, and losses of power.
#![cfg(feature = "replication")]
#![allow(clippy::unwrap_used)]

mod crash;
mod files;
mod stores;
