//! Registering and forgetting a rank, which both of Mooncake's forms do alike but for what they insist on.

use axum::http::StatusCode;
use kvindex_core::limits::{MAX_BLOCK_SIZE, MAX_DP_RANKS};
use kvindex_proto::v1;
use serde::Serialize;

use crate::access::Right;
use crate::config::MooncakeJson;
use crate::dialects::asker::Asker;
use crate::dialects::fields::{Fields, Scalar};
use crate::dialects::instances::{Rank, worker_id};
use crate::dialects::refusal::Refusal;

/// What became of a registration.
#[derive(Debug, Serialize)]
pub(in crate::dialects) struct Registered {
    status: &'static str,
    instance_id: String,
}

/// What became of an unregistration.
#[derive(Debug, Serialize)]
pub(in crate::dialects) struct Unregistered {
    status: &'static str,
    removed_instances: Vec<String>,
}

/// `/register`.
pub(in crate::dialects) async fn register(
    asker: &Asker,
    fields: &Fields,
    form: MooncakeJson,
) -> Result<Registered, Refusal> {
    let engine = engine(fields.required_text("type")?)?;
    let sizes = 1..=MAX_BLOCK_SIZE.into();
    let block_size = match form {
        MooncakeJson::Rfc => fields.number("block_size", &sizes)?,
        MooncakeJson::Conductor => Some(fields.required_number("block_size", &sizes)?),
    };
    if !fields.text("additionalsalt")?.unwrap_or_default().is_empty() {
        let message = "is no part of a block's identity here; register another model name or tenant instead";
        return Err(Refusal::of("additionalsalt", "unsupported", message));
    }
    if fields
        .number::<i64>("cache_group", &(i64::MIN.into()..=i64::MAX.into()))?
        .is_some_and(|group| group != 0)
    {
        return Err(Refusal::of(
            "cache_group",
            "unsupported",
            "must be 0 or null: groups are told by the events",
        ));
    }
    let rank = Rank {
        instance: fields.required_text("instance_id")?,
        tenant: fields.text("tenant_id")?.unwrap_or_default(),
        rank: rank(fields)?,
        model: fields.required_text("modelname")?,
        engine,
        endpoint: fields.required_text("endpoint")?,
        replay_endpoint: fields.text("replay_endpoint")?.unwrap_or_default(),
        block_size,
        lora: fields.text("lora_name")?.unwrap_or_default(),
        hash_profile: hash_profile(fields)?.filter(|_| engine == "vllm"),
    };
    if form == MooncakeJson::Conductor {
        endpoint_is_free(asker, &rank)?;
    }
    let instance_id = rank.instance.to_owned();
    // The same again is no error; another definition is, in both forms.
    asker.register(rank).await.map_err(|refusal| {
        if refusal.is_conflict() { Refusal { status: StatusCode::BAD_REQUEST, ..refusal } } else { refusal }
    })?;
    Ok(Registered { status: "registered successfully", instance_id })
}

/// `/unregister`.
pub(in crate::dialects) async fn unregister(asker: &Asker, fields: &Fields) -> Result<Unregistered, Refusal> {
    let (instance, rank) = (fields.required_text("instance_id")?, rank(fields)?);
    let tenant = asker.tenant(Right::Admin, fields.text("tenant_id")?.unwrap_or_default())?;
    let name = format!("{instance}|{tenant}|{rank}");
    if !asker.unregister(&tenant, instance, rank).await? {
        return Err(Refusal::not_found(format!("service not found: {name}")));
    }
    Ok(Unregistered { status: "unregistered successfully", removed_instances: vec![name] })
}

fn rank(fields: &Fields) -> Result<u32, Refusal> {
    let ranks = 0..=i128::from(MAX_DP_RANKS) - 1;
    Ok(fields.number("dp_rank", &ranks)?.unwrap_or(0))
}

fn engine(kind: &str) -> Result<&'static str, Refusal> {
    match kind.to_ascii_lowercase().as_str() {
        "vllm" => Ok("vllm"),
        "sglang" => Ok("sglang"),
        _ => Err(Refusal::of("type", "unsupported", format!("is {kind:?}, must be vLLM or SGLang"))),
    }
}

fn endpoint_is_free(asker: &Asker, rank: &Rank<'_>) -> Result<(), Refusal> {
    let tenant = asker.tenant(Right::Admin, rank.tenant)?;
    let worker = worker_id(&tenant, rank.instance, rank.rank);
    match asker.holder_of(rank.endpoint, &worker) {
        None => Ok(()),
        Some(holder) => {
            let message = format!("{:?} is followed already, as worker {holder}", rank.endpoint);
            Err(Refusal::of("endpoint", "invalid_registration", message))
        }
    }
}

/// How the engine is said to hash, which is only checked: answers by tokens need none of it.
fn hash_profile(fields: &Fields) -> Result<Option<v1::HashProfile>, Refusal> {
    let values = match fields.one("hash_profile") {
        None | Some(Scalar::Null) => return Ok(None),
        Some(Scalar::Map(values)) => values,
        Some(_) => return Err(Refusal::of("hash_profile", "invalid_type", "must be an object")),
    };
    let text = |name: &str| match values.iter().find(|(known, _)| known == name).map(|(_, value)| value) {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Refusal::of(&format!("hash_profile.{name}"), "invalid_type", "must be a text")),
    };
    for (name, only) in [("strategy", "vllm_v1"), ("index_projection", "low64_be")] {
        if let Some(other) = text(name)?.filter(|value| *value != only) {
            let message = format!("is {other:?}, must be {only}");
            return Err(Refusal::of(&format!("hash_profile.{name}"), "unsupported", message));
        }
    }
    let Some(algorithm) = text("algorithm")? else {
        return Err(Refusal::of("hash_profile.algorithm", "missing", "is required"));
    };
    let hash_seed = text("python_hash_seed")?.map(str::to_owned);
    Ok(Some(v1::HashProfile { algorithm: algorithm.into(), hash_seed, none_hash: None }))
}
