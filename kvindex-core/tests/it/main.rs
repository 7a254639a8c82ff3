//! Tests of the index through its public interface, one binary.
#![allow(clippy::unwrap_used)]

mod exactness;
mod formats;
mod hashes;
mod hybrid;
mod mirrors;
mod oracle;
mod reasons;
mod rig;
mod rules;
mod tiers;
