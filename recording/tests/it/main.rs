//! Tests of the recordings, their truth and the publisher; sockets are real, on ports the OS chooses.
#![allow(clippy::unwrap_used)]

mod connect;
mod container;
mod play;
mod replay_faults;
mod subscriber;
mod truth;

use std::path::PathBuf;

use kvindex_recording::Recording;

/// A recorded case of the repository, as path without suffix.
fn case(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases").join(name)
}

fn recording(name: &str) -> Recording {
    Recording::open(&case(name)).unwrap()
}
