//! Tests of the index through its public interface, one binary.
#![allow(clippy::unwrap_used)]

mod against_naive;
mod beside_a_writer;
#[cfg(feature = "replication")]
mod entry_codec;
mod eviction;
mod exactness;
mod fleets;
mod formats;
mod found_by_histories;
mod hashes;
mod histories;
mod history;
mod hybrid;
mod mirrors;
mod naive;
mod noted;
mod oracle;
mod places;
mod reasons;
mod registrations;
mod regressions;
mod rig;
mod rules;
mod shards;
mod shares;
mod tiers;
