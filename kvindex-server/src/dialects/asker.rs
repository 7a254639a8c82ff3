//! Who asks, and how a dialect's question becomes a native one.

use axum::Extension;
use axum::extract::FromRequestParts;
use axum::extract::rejection::ExtensionRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use kvindex_proto::v1;
use std::sync::Arc;

use super::refusal::Refusal;
use crate::access::{Caller, Right};
use crate::api::{Api, Arrived};
use crate::config::ApiLimits;

/// Worst trust of the workers that an answer speaks of: bodies have no place for it.
const TRUST: &str = "x-kvindex-trust";

/// Who asks, and when.
pub(super) struct Asker {
    pub(super) api: Arc<Api>,
    pub(super) caller: Caller,
    pub(super) arrived: Arrived,
}

/// As the guard and the observer noted them; without them nothing is answered.
impl FromRequestParts<Arc<Api>> for Asker {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ExtensionRejection> {
        let Extension(caller) = Extension::from_request_parts(parts, api).await?;
        let Extension(arrived) = Extension::from_request_parts(parts, api).await?;
        Ok(Self { api: Arc::clone(api), caller, arrived })
    }
}

/// What a question found.
#[derive(Debug)]
pub(super) struct Found {
    /// The tenant that was asked about.
    pub(super) tenant: String,
    /// Those that the answer speaks of: every one of the model, until a dialect leaves some out.
    pub(super) workers: Vec<v1::WorkerMatch>,
}

impl Asker {
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
        let mut workers = self.api.find(&self.caller, &request, self.arrived).await?.workers;
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
