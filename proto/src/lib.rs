//! kvindex-proto: the public messages and services of kvindex, generated from `kvindex/v1/*.proto`, with the
//! same messages as JSON (serde) and OpenAPI schemas (utoipa), and the private ones between nodes. No logic.

mod json;

/// Package `kvindex.v1`.
#[allow(missing_docs, clippy::all, clippy::semicolon_if_nothing_returned, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("kvindex.v1");
}

/// Package `kvindex.peer.v1`: what nodes of one cluster say to each other. Private to them.
pub mod peer {
    /// Package `kvindex.peer.v1`.
    #[allow(missing_docs, clippy::all, clippy::semicolon_if_nothing_returned, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("kvindex.peer.v1");
    }
}
