//! The stand-in held against what clients rely on: the same suite runs against a real server when
//! `KVINDEX_TEST_KUBECONFIG` names one.
#![allow(clippy::unwrap_used)]

mod binary;
mod conformance;
mod faults;
mod rig;
