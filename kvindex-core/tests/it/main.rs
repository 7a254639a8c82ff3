//! Tests of the index through its public interface, one binary.
#![allow(clippy::unwrap_used)]

mod exactness;
mod formats;
mod hashes;
mod oracle;
mod reasons;
mod rig;
mod rules;
