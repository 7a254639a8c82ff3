//! Who asks, and how a dialect's question becomes a native one.

use axum::http::{HeaderMap, HeaderValue};
use kvindex_proto::v1;
use std::sync::Arc;

use super::refusal::Refusal;
use crate::access::{Caller, Right};
use crate::api::{Api, Arrived};
use crate::config::ApiLimits;

/// Worst trust of the workers that an answer rests on: bodies have no place for it.
const TRUST: &str = "x-kvindex-trust";

/// Who asks, and when.
pub(super) struct Asker<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) caller: &'a Caller,
    pub(super) arrived: Arrived,
}

/// What a question found.
pub(super) struct Found {
    /// The tenant that was asked about.
    pub(super) tenant: String,
    pub(super) workers: Vec<v1::WorkerMatch>,
}

impl Asker<'_> {
    pub(super) fn limits(&self) -> &ApiLimits {
        self.api.limits()
    }

    /// Asks as a native match does. A prompt of nothing is no question there; it is answered with the workers that
    /// another one would find, and no match.
    pub(super) async fn ask(&self, mut prompt: v1::Prompt, is_empty: bool) -> Result<Found, Refusal> {
        let tenant = self.tenant(Right::Read, &prompt.tenant)?;
        if is_empty {
            prompt.token_ids = vec![0];
        }
        let request = v1::MatchRequest { prompt: Some(prompt), ..v1::MatchRequest::default() };
        let mut workers = self.api.find(self.caller, &request, self.arrived).await?.workers;
        if is_empty {
            for worker in &mut workers {
                (worker.matched_blocks, worker.matched_tokens) = (0, 0);
                worker.tiers.clear();
            }
        }
        Ok(Found { tenant, workers })
    }
}

impl Found {
    /// What an answer carries beside its body.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let states = self.workers.iter().filter_map(|worker| Some(worker.trust.as_ref()?.state()));
        let worst = states.max_by_key(|state| match state {
            v1::TrustState::Unspecified | v1::TrustState::Live => 0,
            v1::TrustState::Pending => 1,
            v1::TrustState::Rebuilding => 2,
            v1::TrustState::Suspect => 3,
        });
        let word = worst.map(|state| match state {
            v1::TrustState::Unspecified => v1::TrustState::Live.word(),
            state => state.word(),
        });
        if let Some(word) = word {
            headers.insert(TRUST, HeaderValue::from_static(word));
        }
        headers
    }
}
