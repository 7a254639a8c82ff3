//! `/services` and `/global_view`: who is known, in both of Mooncake's forms.

use kvindex_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::config::MooncakeJson;
use crate::dialects::asker::Asker;
use crate::dialects::fold::INSTANCE;
use crate::dialects::instances::LORA;
use crate::dialects::refusal::Refusal;
use crate::workers::BLOCK_SIZE_LABEL;

/// `/services`.
#[derive(Debug, Serialize)]
pub(in crate::dialects) struct Services {
    count: usize,
    services: Vec<Service>,
}

/// One rank of an instance, in the names of the program that had this call first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    endpoint: String,
    replay_endpoint: String,
    r#type: &'static str,
    model_name: String,
    lora_name: String,
    #[serde(rename = "TenantID")]
    tenant_id: String,
    #[serde(rename = "InstanceID")]
    instance_id: String,
    block_size: u32,
    #[serde(rename = "DPRank")]
    dp_rank: u32,
    #[serde(flatten)]
    more: More,
}

/// What only one of the forms tells.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum More {
    Rfc {
        #[serde(rename = "AdditionalSalt")]
        additional_salt: &'static str,
    },
    Conductor {
        #[serde(rename = "CacheGroup")]
        cache_group: Option<u32>,
        #[serde(rename = "HashProfile")]
        hash_profile: Option<Profile>,
    },
}

/// How an engine was said to hash.
#[derive(Debug, Clone, Serialize)]
struct Profile {
    strategy: &'static str,
    algorithm: String,
    python_hash_seed: String,
    index_projection: &'static str,
}

/// `/global_view`. The documents' form also has every engine hash, which nobody should be handed.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(in crate::dialects) enum GlobalView {
    Rfc { context_count: usize, model_contexts: Vec<ModelContext>, hashmap: [(); 0] },
    Conductor { context_count: usize, contexts: Vec<Context> },
}

/// One model of one instance.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(in crate::dialects) struct ModelContext {
    model_name: String,
    lora_name: String,
    block_size: u32,
    additional_salt: &'static str,
    tenant_id: String,
    instance_id: String,
}

/// One model of a tenant, with the instances that serve it.
#[derive(Debug, Serialize)]
pub(in crate::dialects) struct Context {
    model_name: String,
    lora_name: String,
    block_size: u32,
    tenant_id: String,
    /// Blocks held, counted at every rank that does.
    prefix_count: u64,
    hash_profile: Option<Profile>,
    instances: BTreeMap<String, Vec<u32>>,
}

fn label(worker: &v1::Worker, name: &str) -> String {
    worker.labels.get(name).cloned().unwrap_or_default()
}

/// A worker that was registered natively is its own instance.
fn instance(worker: &v1::Worker) -> String {
    worker.labels.get(INSTANCE).unwrap_or(&worker.worker_id).clone()
}

/// 0 where nobody told it.
fn block_size(worker: &v1::Worker) -> u32 {
    label(worker, BLOCK_SIZE_LABEL).parse().unwrap_or(0)
}

fn profile(worker: &v1::Worker) -> Option<Profile> {
    let told = worker.hash_profile.as_ref()?;
    Some(Profile {
        strategy: "vllm_v1",
        algorithm: told.algorithm.clone(),
        python_hash_seed: told.hash_seed.clone().unwrap_or_default(),
        index_projection: "low64_be",
    })
}

/// Everyone the caller sees, rank by rank.
pub(in crate::dialects) async fn services(asker: &Asker, form: MooncakeJson) -> Result<Services, Refusal> {
    let workers = asker.workers(v1::ListWorkersRequest::default()).await?;
    let mut services = Vec::new();
    for worker in &workers {
        for stream in &worker.streams {
            services.push(Service {
                endpoint: stream.endpoint.clone().unwrap_or_default(),
                replay_endpoint: stream.replay_endpoint.clone().unwrap_or_default(),
                r#type: if worker.engine == "sglang" { "SGLang" } else { "vLLM" },
                model_name: worker.model.clone(),
                lora_name: label(worker, LORA),
                tenant_id: worker.tenant.clone(),
                instance_id: instance(worker),
                block_size: block_size(worker),
                dp_rank: stream.dp_rank,
                more: match form {
                    MooncakeJson::Rfc => More::Rfc { additional_salt: "" },
                    MooncakeJson::Conductor => {
                        More::Conductor { cache_group: None, hash_profile: profile(worker) }
                    }
                },
            });
        }
    }
    Ok(Services { count: services.len(), services })
}

/// Every model of the tenants that the caller sees.
pub(in crate::dialects) async fn global_view(
    asker: &Asker,
    form: MooncakeJson,
) -> Result<GlobalView, Refusal> {
    let workers = asker.workers(v1::ListWorkersRequest::default()).await?;
    Ok(match form {
        MooncakeJson::Rfc => {
            let model_contexts = model_contexts(&workers);
            GlobalView::Rfc { context_count: model_contexts.len(), model_contexts, hashmap: [] }
        }
        MooncakeJson::Conductor => {
            let contexts = contexts(&workers);
            GlobalView::Conductor { context_count: contexts.len(), contexts }
        }
    })
}

fn model_contexts(workers: &[v1::Worker]) -> Vec<ModelContext> {
    let of = |worker: &v1::Worker| ModelContext {
        model_name: worker.model.clone(),
        lora_name: label(worker, LORA),
        block_size: block_size(worker),
        additional_salt: "",
        tenant_id: worker.tenant.clone(),
        instance_id: instance(worker),
    };
    // Ranks of one instance are one.
    let mut contexts: Vec<_> = workers.iter().map(of).collect();
    contexts.sort();
    contexts.dedup();
    contexts
}

fn contexts(workers: &[v1::Worker]) -> Vec<Context> {
    let mut contexts: BTreeMap<(String, String, String, u32), Context> = BTreeMap::new();
    for worker in workers {
        let (model, lora, size) = (worker.model.clone(), label(worker, LORA), block_size(worker));
        let key = (worker.tenant.clone(), model.clone(), lora.clone(), size);
        let context = contexts.entry(key).or_insert_with(|| Context {
            model_name: model,
            lora_name: lora,
            block_size: size,
            tenant_id: worker.tenant.clone(),
            prefix_count: 0,
            hash_profile: profile(worker),
            instances: BTreeMap::new(),
        });
        context.prefix_count += worker.streams.iter().map(|stream| stream.blocks).sum::<u64>();
        let ranks = context.instances.entry(instance(worker)).or_default();
        ranks.extend(worker.streams.iter().map(|stream| stream.dp_rank));
        ranks.sort_unstable();
    }
    contexts.into_values().collect()
}
