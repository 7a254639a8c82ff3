//! Whole clusters, lived through in one thread under a clock that only simulation moves: the server's own room for
//! clusters, its replicas, logs, sequencers and indexes, between a network, disks, clocks and engines that do what a
//! seed says. One seed is one run, byte for byte.
//!
//! Read `world.rs` first, then one file of `invariants/` and one of `faults/`.

mod answer;
mod cache;
mod clients;
mod dice;
mod disk;
mod engine;
pub mod faults;
mod home;
mod ingest;
mod invariants;
mod life;
mod mutation;
mod network;
mod node;
mod plan;
mod question;
mod run;
mod settled;
mod trace;
mod witness;
mod workers;
mod world;

// The oracle is the model that the index's own tests are held against, where it is: in those tests.
#[path = "../../kvindex-core/tests/it/history.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod history;
#[path = "../../kvindex-core/tests/it/naive/mod.rs"]
#[allow(dead_code, unused_imports, clippy::unwrap_used, clippy::needless_pass_by_value)]
mod naive;
#[path = "../../kvindex-core/tests/it/rig.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::needless_pass_by_value)]
mod rig;

pub use invariants::Violation;
pub use mutation::Mutation;
pub use run::{Report, Run};
