//! Ranks of instances as workers: other indexers register each data-parallel rank by itself, and a worker whose streams
//! change loses its blocks; so each rank is a worker of its own, and its instance stands in a label.

use kvindex_proto::v1;
use std::collections::BTreeMap;

use super::asker::Asker;
use super::fold::INSTANCE;
use super::refusal::Refusal;
use crate::access::Right;
use crate::api::{ApiError, Kind};
use crate::endpoints::Endpoint;
use crate::workers::BLOCK_SIZE_LABEL;

/// Label that holds the adapter that a rank was registered with. Events name their own; it is only told back.
pub(super) const LORA: &str = "kvindex.io/lora-name";

/// A rank to be made known.
#[derive(Debug, Default)]
pub(super) struct Rank<'a> {
    pub(super) instance: &'a str,
    /// As the caller named it.
    pub(super) tenant: &'a str,
    pub(super) rank: u32,
    pub(super) model: &'a str,
    /// `vllm` or `sglang`.
    pub(super) engine: &'static str,
    pub(super) endpoint: &'a str,
    pub(super) replay_endpoint: &'a str,
    pub(super) block_size: Option<u32>,
    pub(super) lora: &'a str,
    pub(super) hash_profile: Option<v1::HashProfile>,
}

/// A rank's worker. It begins with the tenant, as ids that callers bound to tenants give must.
pub(super) fn worker_id(tenant: &str, instance: &str, rank: u32) -> String {
    format!("{tenant}/{instance}/{rank}")
}

/// The rank in a worker's id.
pub(super) fn rank_in(worker_id: &str) -> Option<u32> {
    worker_id.rsplit('/').next()?.parse().ok()
}

impl Rank<'_> {
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([(INSTANCE.to_owned(), self.instance.to_owned())]);
        if let Some(size) = self.block_size {
            labels.insert(BLOCK_SIZE_LABEL.into(), size.to_string());
        }
        if !self.lora.is_empty() {
            labels.insert(LORA.into(), self.lora.to_owned());
        }
        labels
    }

    fn request(self, tenant: &str) -> v1::RegisterRequest {
        v1::RegisterRequest {
            worker_id: worker_id(tenant, self.instance, self.rank),
            model: self.model.into(),
            tenant: tenant.into(),
            engine: self.engine.into(),
            labels: self.labels(),
            streams: vec![v1::StreamSource {
                dp_rank: self.rank,
                endpoint: self.endpoint.into(),
                replay_endpoint: self.replay_endpoint.into(),
                topic: String::new(),
            }],
            hash_profile: self.hash_profile,
            ..v1::RegisterRequest::default()
        }
    }
}

impl Asker {
    /// The tenant that a call is about, checked: the one that it names, or the caller's.
    pub(super) fn tenant(&self, right: Right, named: &str) -> Result<String, Refusal> {
        Ok(self.caller.tenant(right, named).map(str::to_owned).map_err(ApiError::from)?)
    }

    /// Makes a rank known; answers whether it is new.
    pub(super) async fn register(&self, rank: Rank<'_>) -> Result<bool, Refusal> {
        // These indexers always connect, where ours would bind.
        if Endpoint::parse(rank.endpoint).is_ok_and(|endpoint| endpoint.binds()) {
            let message = format!("{:?} names no host to connect to", rank.endpoint);
            return Err(Refusal::of("endpoint", "invalid_value", message));
        }
        let tenant = self.tenant(Right::Admin, rank.tenant)?;
        let request = rank.request(&tenant);
        let answer = self.api.register(&self.caller, request).await;
        Ok(answer.map_err(|error| Refusal::from(error).renamed())?.outcome == "created")
    }

    /// Forgets a rank; answers whether it was known. A worker that has such an id without being of the instance was made
    /// known in another way, and is not this call's to forget.
    pub(super) async fn unregister(&self, tenant: &str, instance: &str, rank: u32) -> Result<bool, Refusal> {
        let worker_id = worker_id(tenant, instance, rank);
        let known = self.api.definition(&worker_id);
        if known.is_some_and(|known| known.spec.labels.get(INSTANCE).is_none_or(|name| name != instance)) {
            return Ok(false);
        }
        let answer = self.api.unregister(&self.caller, v1::UnregisterRequest { worker_id }).await;
        Ok(answer.map_err(|error| Refusal::from(error).renamed())?.removed)
    }

    /// The worker that has this endpoint already, other than `worker`.
    pub(super) fn holder_of(&self, endpoint: &str, worker: &str) -> Option<String> {
        let wanted = Endpoint::parse(endpoint).ok()?.place();
        let mut holder = None;
        self.api.each_worker(&self.caller, |definition| {
            let is_place =
                |text: &str| Endpoint::parse(text).is_ok_and(|endpoint| endpoint.place() == wanted);
            let id = definition.spec.id.as_str();
            if id != worker && definition.streams.iter().any(|stream| is_place(&stream.endpoint)) {
                holder = Some(id.to_owned());
            }
        });
        holder
    }

    /// Every worker that the caller sees, in turn with questions.
    pub(super) async fn workers(&self, request: v1::ListWorkersRequest) -> Result<Vec<v1::Worker>, Refusal> {
        Ok(self.api.list_workers(&self.caller, &request).await?.workers)
    }
}

impl Refusal {
    /// In the words of these calls, which know no workers and one stream each.
    fn renamed(mut self) -> Self {
        let Some(field) = self.field.take() else { return self };
        let name = match field.as_str() {
            "worker_id" => "instance_id",
            other => other.strip_prefix("streams[0].").unwrap_or(other),
        };
        self.message = self.message.replacen(&field, name, 1);
        self.field = Some(name.to_owned());
        self
    }

    /// Whether something is there already.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == axum::http::StatusCode::CONFLICT
    }

    /// What is not known.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(Kind::NotFound, message).into()
    }
}
