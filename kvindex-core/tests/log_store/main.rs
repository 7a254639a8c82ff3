//! The log store on real files: torn and damaged ones, killed processes, and losses of power.
#![allow(clippy::unwrap_used)]

mod crash;
mod files;
mod stores;
