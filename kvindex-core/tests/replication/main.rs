//! Replicas over an in-process network: elections, proposals, read levels, snapshots, members coming and going.
#![allow(clippy::unwrap_used)]

mod machine;
mod members;
mod network;
mod refusals;
mod rig;
mod writes;
