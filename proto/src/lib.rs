//! kvindex-proto: the public messages and services of kvindex, generated from `kvindex/`, with the
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::peer::v1::{PeerReply, PeerRequest};
    use prost::Message;

    /// A rolling upgrade rests on these bytes: nodes of two releases talk to each other.
    #[test]
    fn peer_messages_keep_their_bytes() {
        let request = PeerRequest { body: "ab".into() };
        assert_eq!(request.encode_to_vec(), b"\x0a\x02ab");
        assert_eq!(PeerRequest::decode(&b"\x0a\x02ab"[..]).unwrap(), request);
        assert_eq!(PeerReply { body: "ab".into() }.encode_to_vec(), b"\x0a\x02ab");
    }
}
