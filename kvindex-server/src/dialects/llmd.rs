//! llm-d's scores of pods, for a prompt that comes as text: it becomes token ids by the model's own tokenizer, and the
//! tiers of a match are weighed as llm-d weighs them.

use axum::Router;
use axum::extract::{Request as Call, State};
use kvindex_core::limits::MAX_NAME_BYTES;
use kvindex_proto::dialects::llmd as wire;
use kvindex_proto::dialects::llmd::indexer_service_server::{IndexerService, IndexerServiceServer};
use kvindex_proto::v1;
use std::sync::Arc;
use tonic::{Request, Response, Status};

use super::ordered::first_of_each;
use super::texts::refused;
use super::{Call as Known, Route};
use crate::access::{Caller, Right};
use crate::api::{Api, ApiError, Kind, bounded, origin};
use crate::config::ApiLimits;
use crate::tokenizer::TextTokenizer;

const SCORES: Known = Known::grpc("llmd_get_pod_scores");

/// The call, by path.
pub(super) const ROUTES: [Route; 1] = [("POST", "/indexer.v1.IndexerService/GetPodScores", SCORES)];

/// What a block is worth on each tier, as llm-d has it unless told otherwise: on one that is not named, all.
const HOST_WEIGHT: f64 = 0.8;

/// Routes of the service.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let service = IndexerServiceServer::new(Indexer { api: Arc::clone(api) })
        .max_decoding_message_size(api.limits().body_bytes)
        .max_encoding_message_size(usize::MAX);
    Router::new()
        .route_service("/indexer.v1.IndexerService/{*call}", service)
        .layer(axum::middleware::map_request_with_state(*api.limits(), walk))
}

async fn walk(State(limits): State<ApiLimits>, request: Call) -> Call {
    bounded(request, SCORES.name, &limits)
}

#[derive(Debug)]
struct Indexer {
    api: Arc<Api>,
}

#[tonic::async_trait]
impl IndexerService for Indexer {
    async fn get_pod_scores(
        &self,
        request: Request<wire::GetPodScoresRequest>,
    ) -> Result<Response<wire::GetPodScoresResponse>, Status> {
        let (caller, arrived) = origin(&request)?;
        let wire::GetPodScoresRequest { prompt, model_name, pod_identifiers } = request.into_inner();
        let token_ids = self.token_ids(&caller, &model_name, prompt).await?;
        if token_ids.is_empty() {
            return Ok(Response::new(wire::GetPodScoresResponse::default()));
        }
        let config = self.api.dialects();
        let prompt = v1::Prompt {
            model: model_name,
            tenant: config.tenant.clone(),
            block_size: config.block_size,
            token_ids,
            ..v1::Prompt::default()
        };
        let question = v1::MatchRequest {
            prompt: Some(prompt),
            candidates: pod_identifiers,
            min_matched_blocks: 1,
            ..v1::MatchRequest::default()
        };
        let found = self.api.find(&caller, &question, arrived).await?;
        Ok(Response::new(wire::GetPodScoresResponse { scores: scores(&found.workers)? }))
    }
}

impl Indexer {
    /// The text's limits, a turn and its caller's rates come first; the question with its ids has its own turn and
    /// charge after that. The turn comes before the charge: who is refused for want of one has paid nothing.
    async fn token_ids(&self, caller: &Caller, model: &str, prompt: String) -> Result<Vec<u32>, ApiError> {
        if model.is_empty() {
            return Err(ApiError::invalid("model_name", "is required"));
        }
        if model.len() > MAX_NAME_BYTES {
            return Err(ApiError::over_limit("model_name", "bytes", model.len(), MAX_NAME_BYTES));
        }
        let tenant = caller.tenant(Right::Read, &self.api.dialects().tenant)?;
        let tokenizers = self.api.tokenizers();
        let tokenizer = tokenizers.of(model).ok_or_else(|| {
            let message =
                format!("there is no tokenizer of {model:?} here; name one in dialect_llmd_tokenizers");
            ApiError::of_field(Kind::Precondition, "model_name", message)
        })?;
        TextTokenizer::fits(&prompt).map_err(|error| refused(&error))?;
        let turn = tokenizers.turn().await.inspect_err(|_| self.api.overloaded())?;
        self.api.charge_text(caller, tenant, prompt.len())?;
        turn.token_ids(tokenizer, prompt).await
    }
}

/// Best first, one for each address.
fn scores(workers: &[v1::WorkerMatch]) -> Result<Vec<wire::PodScore>, Status> {
    let mut sizes = workers.iter().map(|worker| worker.block_size);
    if let Some(first) = sizes.next()
        && let Some(other) = sizes.find(|size| *size != first)
    {
        return Err(Status::failed_precondition(format!(
            "workers with blocks of {first} and of {other} tokens hold this prompt, and scores count blocks; set \
             dialect_block_size to one of them"
        )));
    }
    let mut held: Vec<_> =
        workers.iter().filter_map(|worker| Some((worker.address.clone()?, score(worker)))).collect();
    held.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    Ok(first_of_each(held).into_iter().map(|(pod, score)| wire::PodScore { pod, score }).collect())
}

/// The weight of each block of the match, by the best tier on which it lies. With two tiers beside the device it is not
/// known which block lies on which; those off the device count by the lesser one then.
#[allow(clippy::cast_precision_loss)] // no prompt has as many blocks
fn score(worker: &v1::WorkerMatch) -> f64 {
    let is_device = |tier: &&v1::TierMatch| tier.tier == "device";
    let device = worker.tiers.iter().find(is_device).map_or(0, |tier| tier.blocks);
    let behind = worker.tiers.iter().filter(|tier| !is_device(tier) && tier.blocks > 0);
    let least = behind.map(|tier| if tier.tier == "host" { HOST_WEIGHT } else { 1.0 }).fold(1.0, f64::min);
    device as f64 + worker.matched_blocks.saturating_sub(device) as f64 * least
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn held(address: Option<&str>, blocks: u64, tiers: &[(&str, u64)]) -> v1::WorkerMatch {
        let tier = |(tier, blocks): &(&str, u64)| v1::TierMatch {
            tier: (*tier).into(),
            blocks: *blocks,
            ..v1::TierMatch::default()
        };
        v1::WorkerMatch {
            address: address.map(str::to_owned),
            matched_blocks: blocks,
            block_size: 16,
            tiers: tiers.iter().map(tier).collect(),
            ..v1::WorkerMatch::default()
        }
    }

    fn pods(workers: &[v1::WorkerMatch]) -> Vec<(String, f64)> {
        scores(workers).unwrap().into_iter().map(|score| (score.pod, score.score)).collect()
    }

    #[test]
    fn blocks_off_the_device_count_by_their_tier() {
        let workers = [
            held(Some("a:1"), 4, &[("device", 4), ("host", 4)]),
            held(Some("b:1"), 4, &[("device", 1), ("host", 3)]),
            held(Some("c:1"), 4, &[("device", 1), ("disk", 3)]),
            held(Some("d:1"), 4, &[("device", 1), ("host", 2), ("disk", 2)]),
            held(None, 9, &[("device", 9)]),
        ];
        let told = pods(&workers);
        let names: Vec<_> = told.iter().map(|(pod, _)| pod.as_str()).collect();
        assert_eq!(names, ["a:1", "c:1", "b:1", "d:1"]);
        let expected = [4.0, 4.0, 1.0 + 3.0 * 0.8, 1.0 + 3.0 * 0.8];
        assert!(
            told.iter().zip(expected).all(|((_, told), expected)| (told - expected).abs() < 1e-9),
            "{told:?}"
        );
    }

    #[test]
    fn a_pod_of_several_ranks_has_its_best_score() {
        let workers = [held(Some("a:1"), 1, &[("device", 1)]), held(Some("a:1"), 3, &[("device", 3)])];
        assert_eq!(pods(&workers), [("a:1".into(), 3.0)]);
    }

    #[test]
    fn blocks_of_two_sizes_are_not_compared() {
        let other = v1::WorkerMatch { block_size: 32, ..held(Some("b:1"), 1, &[("device", 1)]) };
        let refused = scores(&[held(Some("a:1"), 1, &[("device", 1)]), other]).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("blocks of 16 and of 32 tokens"), "{refused}");
    }
}
