//! What SGLang's router asks its KV indexer: who holds how long a prefix, by the engine's own block hashes. Routers of
//! this dialect take a few error codes as "go on without the indexer" and every other one as a failed request, so codes
//! matter here.

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use kvindex_proto::dialects::sglang as wire;
use kvindex_proto::dialects::sglang::kv_indexer_server::{KvIndexer, KvIndexerServer};
use kvindex_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::ordered::first_of_each;
use super::{Call, Route, named};
use crate::api::{Api, ApiError, Arrived, bounded, origin};
use crate::config::{ApiLimits, DialectsConfig};

/// The calls, by path.
pub(super) const ROUTES: [Route; 4] = [
    ("POST", MATCH, Call::grpc("sglang_match_prefix")),
    ("POST", "/kv_indexer.v1.KVIndexer/MatchExternalKv", NOT_SERVED),
    ("POST", "/kv_indexer.v1.KVIndexer/GetExternalKvHitCounts", NOT_SERVED),
    ("POST", "/kv_indexer.v1.KVIndexer/ApplyExternalKvBatch", NOT_SERVED),
];

const MATCH: &str = "/kv_indexer.v1.KVIndexer/MatchExternalKvPrefix";

const NOT_SERVED: Call = Call { is_question: false, ..Call::grpc("sglang_not_served") };

/// Label of a worker whose URL is not its scheme and address.
const URL: &str = "kvindex.io/url";

/// Tiers that theirs knows. A match that goes on in a pool beyond them ends there.
const TIERS: [&str; 3] = ["device", "host", "disk"];

/// Routes of the service. A message beyond the limit is refused as out of range by the transport itself, which is what
/// their router expects of one that is too long.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let service = KvIndexerServer::new(Indexer { api: Arc::clone(api) })
        .max_decoding_message_size(api.limits().body_bytes)
        .max_encoding_message_size(usize::MAX);
    Router::new()
        .route_service("/kv_indexer.v1.KVIndexer/{*call}", service)
        .layer(axum::middleware::map_request_with_state(*api.limits(), walk))
}

/// Messages of calls that are not served end where others without a prompt do.
async fn walk(State(limits): State<ApiLimits>, request: HttpRequest) -> HttpRequest {
    let is_served = request.uri().path() == MATCH;
    if is_served { request } else { bounded(request, NOT_SERVED.name, &limits) }
}

#[derive(Debug)]
struct Indexer {
    api: Arc<Api>,
}

#[tonic::async_trait]
impl KvIndexer for Indexer {
    async fn match_external_kv_prefix(
        &self,
        request: Request<wire::MatchExternalKvPrefixRequest>,
    ) -> Result<Response<wire::MatchExternalKvPrefixResponse>, Status> {
        let (caller, arrived) = origin(&request)?;
        in_time(request.metadata(), arrived)?;
        let config = self.api.dialects();
        let model = named::model(request.metadata().as_ref(), config)?;
        let question = question(request.into_inner(), model, config)?;
        let hashes = question.prompt.as_ref().map_or(0, |prompt| prompt.engine_block_hashes.len());
        let found = self.api.find(&caller, &question, arrived).await.map_err(status)?;
        Ok(Response::new(answer(&found.workers, hashes, config)))
    }

    async fn match_external_kv(
        &self,
        _: Request<wire::NotServed>,
    ) -> Result<Response<wire::NotServed>, Status> {
        Err(Status::unimplemented(
            "MatchExternalKv is not served: only prefixes are indexed here; ask MatchExternalKvPrefix",
        ))
    }

    async fn get_external_kv_hit_counts(
        &self,
        _: Request<wire::NotServed>,
    ) -> Result<Response<wire::NotServed>, Status> {
        Err(Status::unimplemented(
            "GetExternalKvHitCounts is not served: hits of blocks are not counted here",
        ))
    }

    async fn apply_external_kv_batch(
        &self,
        _: Request<wire::NotServed>,
    ) -> Result<Response<wire::NotServed>, Status> {
        Err(Status::unimplemented(
            "ApplyExternalKvBatch is not served: let the engine publish its KV events and register it (docs/engines.md)",
        ))
    }
}

/// Theirs as one of ours.
fn question(
    request: wire::MatchExternalKvPrefixRequest,
    model: String,
    config: &DialectsConfig,
) -> Result<v1::MatchRequest, Status> {
    let mut hashes = request.hashes;
    if hashes.is_empty() {
        return Err(Status::invalid_argument("hashes must not be empty"));
    }
    if request.max_blocks > 0 {
        hashes.truncate(request.max_blocks as usize);
    }
    let prompt = v1::Prompt {
        model,
        tenant: config.tenant.clone(),
        block_size: config.block_size,
        // The same 64 bits.
        engine_block_hashes: hashes.into_iter().map(i64::cast_unsigned).collect(),
        ..v1::Prompt::default()
    };
    Ok(v1::MatchRequest { prompt: Some(prompt), min_matched_blocks: 1, ..v1::MatchRequest::default() })
}

/// Ours as one of theirs: an entry for each URL, the one of its longest rank.
fn answer(
    workers: &[v1::WorkerMatch],
    hashes: usize,
    config: &DialectsConfig,
) -> wire::MatchExternalKvPrefixResponse {
    let mut held: Vec<_> = workers
        .iter()
        .filter_map(|worker| Some((url(worker, config)?, (blocks(worker), worker.worker_id.clone()))))
        .filter(|(_, (blocks, _))| *blocks > 0)
        .collect();
    // Ours are in order of all tiers' tokens. Equal ones keep that order.
    held.sort_by_key(|(_, (blocks, _))| std::cmp::Reverse(*blocks));
    let matches: Vec<_> = first_of_each(held)
        .into_iter()
        .map(|(worker_address, (matched_prefix_blocks, worker_id))| wire::ExternalKvPrefixMatch {
            worker_address,
            matched_prefix_blocks,
            worker_id,
        })
        .collect();
    wire::MatchExternalKvPrefixResponse {
        best_prefix_blocks: matches.first().map_or(0, |best| best.matched_prefix_blocks),
        blocks_read: if matches.is_empty() { 1 } else { u32::try_from(hashes).unwrap_or(u32::MAX) },
        matches,
    }
}

/// By which URL their router knows a worker.
fn url(worker: &v1::WorkerMatch, config: &DialectsConfig) -> Option<String> {
    let said = worker.labels.get(URL).cloned();
    said.or_else(|| Some(format!("{}://{}", config.sglang_scheme, worker.address.as_ref()?)))
}

fn blocks(worker: &v1::WorkerMatch) -> u32 {
    let known = worker.tiers.iter().filter(|tier| TIERS.contains(&tier.tier.as_str()));
    let longest = known.map(|tier| tier.prefix_blocks).max().unwrap_or(0);
    u32::try_from(longest).unwrap_or(u32::MAX)
}

/// A prompt beyond our limits is out of range: their router goes on without the indexer then.
fn status(error: ApiError) -> Status {
    let is_too_large = error.is_too_large();
    let status = Status::from(error);
    if is_too_large { Status::out_of_range(status.message()) } else { status }
}

/// Whether somebody still waits for the answer.
fn in_time(metadata: &MetadataMap, arrived: Arrived) -> Result<(), Status> {
    let given = metadata.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
    match given {
        Some(given) if Duration::from_micros(arrived.micros()) >= given => {
            Err(Status::deadline_exceeded("the call's time was over before the question was asked"))
        }
        _ => Ok(()),
    }
}

/// gRPC's text of a duration: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DialectsConfig {
        DialectsConfig {
            sglang_scheme: "http".into(),
            model: "m".into(),
            block_size: 4,
            ..DialectsConfig::default()
        }
    }

    fn held(address: Option<&str>, dp_rank: u32, tiers: &[(&str, u64)]) -> v1::WorkerMatch {
        let tier = |(tier, prefix_blocks): &(&str, u64)| v1::TierMatch {
            tier: (*tier).into(),
            prefix_blocks: *prefix_blocks,
            ..v1::TierMatch::default()
        };
        v1::WorkerMatch {
            worker_id: format!("w{dp_rank}"),
            dp_rank,
            address: address.map(str::to_owned),
            tiers: tiers.iter().map(tier).collect(),
            ..v1::WorkerMatch::default()
        }
    }

    #[test]
    fn a_match_ends_where_the_pool_begins_and_counts_once_a_url() {
        let mut elsewhere = held(None, 4, &[("device", 1)]);
        elsewhere.labels.insert(URL.into(), "https://far/".into());
        let workers = [
            held(Some("a:1"), 0, &[("device", 1), ("host", 2), ("external", 9)]),
            held(Some("b:1"), 1, &[("device", 3)]),
            held(Some("a:1"), 2, &[("device", 1), ("disk", 4)]),
            held(Some("c:1"), 3, &[("external", 9)]),
            elsewhere,
            held(None, 5, &[("device", 9)]),
        ];
        let told = answer(&workers, 9, &config());
        let matches: Vec<_> =
            told.matches.iter().map(|m| (&*m.worker_address, m.matched_prefix_blocks)).collect();
        assert_eq!(matches, [("http://a:1", 4), ("http://b:1", 3), ("https://far/", 1)]);
        assert_eq!((told.best_prefix_blocks, told.blocks_read, &*told.matches[0].worker_id), (4, 9, "w2"));
        let nobody = answer(&[], 9, &config());
        assert_eq!((nobody.best_prefix_blocks, nobody.blocks_read), (0, 1));
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, nanos) in [("1H", 3_600_000_000_000), ("100m", 100_000_000), ("7u", 7_000), ("0n", 0)] {
            assert_eq!(timeout(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "m", "1", "1x", "123456789S", "-1S", "é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
