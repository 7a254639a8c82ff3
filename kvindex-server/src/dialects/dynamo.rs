//! The calls of Dynamo's standalone indexer. Its routing group is our tenant; its `tenant_id` it ignores itself. Sources
//! and what differs knowingly: docs/dialects.md.

use axum::http::StatusCode;
use kvindex_core::limits::{MAX_BLOCK_SIZE, MAX_DP_RANKS, MAX_NAME_BYTES};
use kvindex_core::{LocalBlockHash, SequenceHash};
use kvindex_proto::v1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::asker::{Asker, Found};
use super::fields::{Fields, Scalar};
use super::fold::{INSTANCE, Ranks, fold};
use super::instances::Rank;
use super::refusal::Refusal;
use super::{Call, Route};
use crate::access::Right;
use crate::api::ApiError;
use crate::workers::BLOCK_SIZE_LABEL;

/// Its calls. `/metrics` is ours, `/dump` and peers are another indexer's inside, and are not served.
pub(super) const ROUTES: [Route; 6] = [
    ("POST", "/query", Call::question(QUERY)),
    ("POST", "/query_by_hash", Call::question(QUERY_BY_HASH)),
    ("POST", "/register", Call::change(REGISTER)),
    ("POST", "/unregister", Call::change(UNREGISTER)),
    ("GET", "/workers", Call::question("dynamo_workers")),
    ("GET", "/health", Call::health("dynamo_health")),
];

pub(super) const QUERY: &str = "dynamo_query";
pub(super) const QUERY_BY_HASH: &str = "dynamo_query_by_hash";
pub(super) const REGISTER: &str = "dynamo_register";
pub(super) const UNREGISTER: &str = "dynamo_unregister";

/// The field that only its bodies have.
pub(super) const MODEL: &str = "model_name";

/// An answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Tokens on the device, by instance and rank.
    scores: BTreeMap<String, BTreeMap<u32, u64>>,
    /// How often blocks were asked for, which is not counted here.
    frequencies: [u64; 0],
    instances: BTreeMap<String, Matched>,
}

/// What one instance holds, in tokens: each the best of its ranks.
#[derive(Debug, Serialize)]
struct Matched {
    longest_matched: u64,
    gpu: u64,
    dp: BTreeMap<u32, u64>,
    cpu: u64,
    disk: u64,
}

impl Answer {
    /// Who holds nothing is left out.
    fn of(workers: &[v1::WorkerMatch]) -> Self {
        let mut instances = fold(workers);
        for ranks in instances.values_mut() {
            ranks.retain(|_, rank| rank.matched > 0);
        }
        instances.retain(|_, ranks| !ranks.is_empty());
        let on_device = |ranks: &Ranks| {
            let held = ranks.iter().filter(|(_, rank)| rank.device > 0);
            held.map(|(number, rank)| (*number, rank.device)).collect::<BTreeMap<_, _>>()
        };
        let scores = instances.iter().map(|(name, ranks)| (name.clone(), on_device(ranks)));
        Self {
            scores: scores.filter(|(_, ranks)| !ranks.is_empty()).collect(),
            frequencies: [],
            instances: instances.iter().map(|(name, ranks)| (name.clone(), Matched::of(ranks))).collect(),
        }
    }
}

impl Matched {
    fn of(ranks: &Ranks) -> Self {
        let most = |tokens: fn(&super::fold::Rank) -> u64| ranks.values().map(tokens).max().unwrap_or(0);
        Self {
            longest_matched: most(|rank| rank.matched),
            gpu: most(|rank| rank.device),
            dp: ranks.iter().map(|(number, rank)| (*number, rank.device)).collect(),
            cpu: most(|rank| rank.host),
            disk: most(|rank| rank.matched),
        }
    }
}

/// What `/query` asks, or `/query_by_hash`.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) prompt: v1::Prompt,
    by_hash: bool,
    is_empty: bool,
}

impl Question {
    /// By token ids, or by local hashes, which know nothing of the blocks before; ours are chained from them.
    pub(super) fn read(fields: &mut Fields, by_hash: bool, limit: usize) -> Result<Self, Refusal> {
        if by_hash {
            return Self::by_hashes(fields, limit);
        }
        let text = |name| Ok::<_, Refusal>(fields.text(name)?.map(str::to_owned));
        let (lora_name, cache_salt) = (text("lora_name")?, text("cache_salt")?);
        let (model, tenant) = partition(fields)?;
        let mut prompt = v1::Prompt { model, tenant, lora_name, cache_salt, ..v1::Prompt::default() };
        let is_empty = fields.move_tokens("token_ids", &mut prompt, limit)?;
        Ok(Self { prompt, by_hash, is_empty })
    }

    fn by_hashes(fields: &mut Fields, limit: usize) -> Result<Self, Refusal> {
        if !matches!(fields.one("cache_salt"), None | Some(Scalar::Null)) {
            let message = "cache_salt is not accepted by /query_by_hash; block_hashes must already include the \
                           intended cache salt";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported", message));
        }
        let (model, tenant) = partition(fields)?;
        let hashes = fields.hashes("block_hashes", limit, true)?;
        let locals = hashes.ok_or_else(|| Refusal::of("block_hashes", "missing", "is required"))?;
        let mut parent = None;
        let chained = locals.into_iter().map(|local| {
            let hash = SequenceHash::chain(parent, LocalBlockHash(local));
            parent = Some(hash);
            hash.0
        });
        let sequence_hashes: Vec<u64> = chained.collect();
        let is_empty = sequence_hashes.is_empty();
        let prompt = v1::Prompt { model, tenant, sequence_hashes, ..v1::Prompt::default() };
        Ok(Self { prompt, by_hash: true, is_empty })
    }

    /// Its answer, and what it rests on.
    pub(super) async fn ask(self, asker: &Asker) -> Result<(Found, Answer), Refusal> {
        let mut prompt = self.prompt;
        if self.by_hash {
            prompt.block_size = block_size(asker, &prompt.model, &prompt.tenant)?;
        }
        let model = prompt.model.clone();
        let mut found = asker.ask(prompt, self.is_empty).await?;
        // Every worker of the model is listed, with a match or without.
        if found.workers.is_empty() {
            return Err(no_indexer(&model, &found.tenant));
        }
        // Who holds nothing is left out. An answer without anybody rests on all of them.
        if found.workers.iter().any(|worker| worker.matched_tokens > 0) {
            found.workers.retain(|worker| worker.matched_tokens > 0);
        }
        let answer = Answer::of(&found.workers);
        Ok((found, answer))
    }
}

fn partition(fields: &Fields) -> Result<(String, String), Refusal> {
    let model = fields.required_text(MODEL)?;
    let group = fields.text("routing_group")?.unwrap_or_default();
    // Errors tell them back.
    for (field, name) in [(MODEL, model), ("routing_group", group)] {
        if name.len() > MAX_NAME_BYTES {
            return Err(ApiError::over_limit(field, "bytes", name.len(), MAX_NAME_BYTES).into());
        }
    }
    Ok((model.to_owned(), group.to_owned()))
}

fn no_indexer(model: &str, group: &str) -> Refusal {
    Refusal::not_found(format!("no indexer for model={model} routing_group={group}"))
}

/// The one block size that the instances of a model were registered with: hashes say nothing of it.
fn block_size(asker: &Asker, model: &str, group: &str) -> Result<u32, Refusal> {
    let tenant = asker.tenant(Right::Read, group)?;
    let told = asker.api.block_sizes(&tenant, model);
    let mut sizes = told.iter().flatten();
    let unsupported = |message: String| Err(Refusal::of("block_hashes", "unsupported", message));
    match (sizes.next(), sizes.next()) {
        (Some(size), None) => Ok(*size),
        (None, _) if told.is_empty() => Err(no_indexer(model, &tenant)),
        (None, _) => unsupported(format!(
            "no worker of model {model} was registered with a block_size; register one by /register"
        )),
        (Some(one), Some(other)) => unsupported(format!(
            "workers of model {model} have block sizes {one} and {other}; ask by token_ids"
        )),
    }
}

/// `/register`. The same twice is a conflict there.
pub(super) async fn register(asker: &Asker, fields: &Fields) -> Result<(), Refusal> {
    let ids = 0..=i128::from(u64::MAX);
    let instance = fields.required_number::<u64>("instance_id", &ids)?.to_string();
    let ranks = 0..=i128::from(MAX_DP_RANKS) - 1;
    let group = fields.text("routing_group")?.unwrap_or_default();
    let block_size = fields.required_number("block_size", &(1..=MAX_BLOCK_SIZE.into()))?;
    let rank = Rank {
        instance: &instance,
        tenant: group,
        rank: fields.number("dp_rank", &ranks)?.unwrap_or(0),
        model: fields.required_text(MODEL)?,
        engine: engine(fields.text("type")?)?,
        endpoint: fields.required_text("endpoint")?,
        replay_endpoint: fields.text("replay_endpoint")?.unwrap_or_default(),
        block_size: Some(block_size),
        ..Rank::default()
    };
    let tenant = asker.tenant(Right::Admin, group)?;
    agrees(asker, &rank, &tenant, block_size)?;
    let twice = conflict(format!("instance {instance} dp_rank {} already registered", rank.rank));
    match asker.register(rank).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(twice),
        Err(refusal) if refusal.is_conflict() => Err(twice),
        Err(refusal) => Err(refusal),
    }
}

/// Its bodies do not say which engine it is. A field that Mooncake's have may, for engines whose events differ.
fn engine(kind: Option<&str>) -> Result<&'static str, Refusal> {
    match kind.map(str::to_ascii_lowercase).as_deref() {
        None | Some("vllm") => Ok("vllm"),
        Some("sglang") => Ok("sglang"),
        Some(other) => {
            Err(Refusal::of("type", "unsupported", format!("is {other:?}, must be vLLM or SGLang")))
        }
    }
}

fn conflict(message: String) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "invalid_registration", message)
}

/// An instance is of one model and group, and these have one block size.
fn agrees(asker: &Asker, rank: &Rank<'_>, tenant: &str, block_size: u32) -> Result<(), Refusal> {
    let mut refusal = None;
    asker.api.each_worker(&asker.caller, |worker| {
        let (spec, instance) = (&worker.spec, worker.spec.labels.get(INSTANCE));
        let is_here = spec.model == rank.model && spec.tenant == tenant;
        if instance.is_some_and(|name| name == rank.instance) && !is_here {
            let (id, model, group) = (rank.instance, &spec.model, &spec.tenant);
            refusal =
                Some(format!("instance {id} is already registered for model={model} routing_group={group}"));
        }
        if let Some(existing) = worker.told_block_size().filter(|size| is_here && *size != block_size) {
            let (model, group) = (&spec.model, &spec.tenant);
            refusal.get_or_insert(format!(
                "block_size mismatch for model={model} routing_group={group}: existing={existing}, \
                 requested={block_size}"
            ));
        }
    });
    refusal.map_or(Ok(()), |message| Err(conflict(message)))
}

/// `/unregister`: one rank; or all of an instance, where none or no group is named.
pub(super) async fn unregister(asker: &Asker, fields: &Fields) -> Result<(), Refusal> {
    let ids = 0..=i128::from(u64::MAX);
    let instance = fields.required_number::<u64>("instance_id", &ids)?.to_string();
    let model = fields.required_text(MODEL)?;
    let ranks = 0..=i128::from(u32::MAX);
    let group = fields.text("routing_group")?;
    let rank: Option<u32> = fields.number("dp_rank", &ranks)?.filter(|_| group.is_some());
    let tenant = group.map(|group| asker.tenant(Right::Admin, group)).transpose()?;
    let mut places = Vec::new();
    asker.api.each_worker(&asker.caller, |worker| {
        let spec = &worker.spec;
        let is_asked = spec.labels.get(INSTANCE).is_some_and(|name| *name == instance)
            && spec.model == model
            && tenant.as_ref().is_none_or(|tenant| *tenant == spec.tenant);
        let streams = worker.streams.iter().map(|stream| stream.dp_rank.0);
        if is_asked {
            let asked = streams.filter(|number| rank.is_none_or(|rank| rank == *number));
            places.extend(asked.map(|number| (spec.tenant.clone(), number)));
        }
    });
    let mut removed = false;
    for (tenant, number) in &places {
        removed |= asker.unregister(tenant, &instance, *number).await?;
    }
    match (removed, rank) {
        (true, _) => Ok(()),
        (false, None) => Err(Refusal::not_found(format!("instance {instance} not found"))),
        (false, Some(rank)) => {
            Err(Refusal::not_found(format!("instance {instance} dp_rank {rank} not found")))
        }
    }
}

/// Which workers to list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    model_name: Option<String>,
    routing_group: Option<String>,
}

/// An instance in a list.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    instance_id: u64,
    source: &'static str,
    status: &'static str,
    model_name: String,
    routing_group: String,
    block_size: u32,
    endpoints: BTreeMap<u32, String>,
    listeners: BTreeMap<u32, Listener>,
}

/// One rank of it.
#[derive(Debug, Serialize)]
struct Listener {
    endpoint: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// `/workers`. Instances are numbers there: who has another name, because it was registered natively, is not listed.
pub(super) async fn workers(asker: &Asker, which: Which) -> Result<Vec<Listed>, Refusal> {
    let request = v1::ListWorkersRequest { model: which.model_name, tenant: which.routing_group };
    let mut listed: BTreeMap<(u64, String, String), Listed> = BTreeMap::new();
    for worker in asker.workers(request).await? {
        let name = worker.labels.get(INSTANCE).unwrap_or(&worker.worker_id);
        let Ok(instance_id) = name.parse() else { continue };
        let size = worker.labels.get(BLOCK_SIZE_LABEL).and_then(|size| size.parse().ok());
        let key = (instance_id, worker.model.clone(), worker.tenant.clone());
        let entry = listed.entry(key).or_insert_with(|| Listed {
            instance_id,
            source: "zmq",
            status: "active",
            model_name: worker.model,
            routing_group: worker.tenant,
            block_size: size.unwrap_or(0),
            endpoints: BTreeMap::new(),
            listeners: BTreeMap::new(),
        });
        for stream in worker.streams {
            let listener = listener(&stream);
            entry.endpoints.insert(stream.dp_rank, listener.endpoint.clone());
            entry.listeners.insert(stream.dp_rank, listener);
        }
    }
    for instance in listed.values_mut() {
        // The worst of its ranks.
        let has = |status: &str| instance.listeners.values().any(|listener| listener.status == status);
        instance.status = ["failed", "pending"].into_iter().find(|status| has(status)).unwrap_or("active");
    }
    Ok(listed.into_values().collect())
}

fn listener(stream: &v1::WorkerStream) -> Listener {
    let state = stream.trust.as_ref().map(v1::Trust::state);
    let status = match state {
        Some(v1::TrustState::Live | v1::TrustState::Rebuilding) => "active",
        Some(v1::TrustState::Suspect) => "failed",
        Some(v1::TrustState::Pending | v1::TrustState::Unspecified) | None => "pending",
    };
    let reason = stream.trust.as_ref().map(|trust| trust.reason.clone());
    Listener {
        endpoint: stream.endpoint.clone().unwrap_or_default(),
        status,
        last_error: reason.filter(|_| status == "failed"),
    }
}
