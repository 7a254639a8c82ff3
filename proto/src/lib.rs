//! kvindex-proto: the public messages and services of kvindex, generated from `kvindex/`, with the
//! same messages as JSON (serde) and OpenAPI schemas (utoipa), the private ones between nodes, and those of other
//! indexers' gRPC that we speak as well (`dialects/`). No logic but [`v1::TrustState::word`].

mod json;

/// Package `kvindex.v1`.
#[allow(missing_docs, clippy::all, clippy::semicolon_if_nothing_returned, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("kvindex.v1");
}

impl v1::TrustState {
    /// The state's word, as JSON, metrics and people have it; `unspecified` where a stamp has none.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Rebuilding => "rebuilding",
            Self::Pending => "pending",
            Self::Unspecified => "unspecified",
        }
    }
}

/// Package `kvindex.peer.v1`: what nodes of one cluster say to each other. Private to them.
pub mod peer {
    /// Package `kvindex.peer.v1`.
    #[allow(missing_docs, clippy::all, clippy::semicolon_if_nothing_returned, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("kvindex.peer.v1");
    }
}

/// Other indexers' calls, by their names and numbers.
pub mod dialects {
    /// Package `kv_indexer.v1`: SGLang's.
    #[allow(missing_docs, clippy::all, clippy::semicolon_if_nothing_returned, unreachable_pub)]
    pub mod sglang {
        tonic::include_proto!("kv_indexer.v1");
    }

    /// Package `indexer.v1`: llm-d's.
    #[allow(missing_docs, clippy::all, clippy::semicolon_if_nothing_returned, unreachable_pub)]
    pub mod llmd {
        tonic::include_proto!("indexer.v1");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::dialects::llmd::{GetPodScoresRequest, GetPodScoresResponse, PodScore};
    use super::dialects::sglang::{
        ExternalKvPrefixMatch, MatchExternalKvPrefixRequest, MatchExternalKvPrefixResponse,
    };
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

    /// Theirs, not ours to change: what their routers send and read.
    #[test]
    fn dialects_keep_the_bytes_of_those_who_speak_them() {
        let asked = MatchExternalKvPrefixRequest { hashes: vec![-1, 2], max_blocks: 3 };
        let hashes = [[0xff; 8], [2, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(asked.encode_to_vec(), [&[0x0a, 16][..], &hashes, &[0x10, 3]].concat());
        let matched = ExternalKvPrefixMatch {
            worker_address: "a".into(),
            matched_prefix_blocks: 4,
            worker_id: "w".into(),
        };
        let answer =
            MatchExternalKvPrefixResponse { matches: vec![matched], best_prefix_blocks: 4, blocks_read: 5 };
        let matched = b"\x0a\x01a\x10\x04\x1a\x01w";
        assert_eq!(answer.encode_to_vec(), [&[0x0a, 8][..], matched, &[0x10, 4, 0x18, 5]].concat());
        let asked = GetPodScoresRequest {
            prompt: "p".into(),
            model_name: "m".into(),
            pod_identifiers: vec!["a:1".into()],
        };
        assert_eq!(asked.encode_to_vec(), b"\x0a\x01p\x12\x01m\x1a\x03a:1");
        let answer = GetPodScoresResponse { scores: vec![PodScore { pod: "a".into(), score: 1.0 }] };
        assert_eq!(answer.encode_to_vec(), b"\x0a\x0c\x0a\x01a\x11\x00\x00\x00\x00\x00\x00\xf0\x3f");
    }

    #[test]
    fn a_trust_states_word_is_that_of_json() {
        for number in 0..=4 {
            let state = super::v1::TrustState::try_from(number).unwrap();
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
        assert!(super::v1::TrustState::try_from(5).is_err(), "another state needs a word");
    }
}
