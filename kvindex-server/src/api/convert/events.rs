//! Published batches.

use kvindex_core::limits::{
    MAX_BLOCK_SIZE, MAX_BLOCKS_PER_EVENT, MAX_DP_RANKS, MAX_NAME_BYTES, MAX_SALT_BYTES,
};
use kvindex_core::{
    BatchSeq, BlockRemoved, BlockStored, DpRank, EngineBlockHash, EventBatch, ExtraKey, Generation, Group,
    GroupKind, KvEvent, StreamId, Tier, WorkerId,
};
use kvindex_proto::v1;

use crate::api::error::ApiError;
use crate::node::{Content, Publication};

/// A publish call, checked.
pub(crate) fn publication(request: v1::PublishRequest) -> Result<Publication, ApiError> {
    let worker = WorkerId::new(request.worker_id)
        .map_err(|error| ApiError::invalid("worker_id", error.to_string()))?;
    if request.dp_rank >= MAX_DP_RANKS {
        let message = format!("is {}, the limit is {}", request.dp_rank, MAX_DP_RANKS - 1);
        return Err(ApiError::invalid("dp_rank", message));
    }
    if request.generation == 0 {
        return Err(ApiError::invalid("generation", "must start at 1 and count up at every restart"));
    }
    let content = match (request.payload.is_empty(), request.events.is_empty()) {
        (false, false) => {
            return Err(ApiError::invalid("events", "give either payload or events, not both"));
        }
        (false, true) => Content::Payload(request.payload),
        (true, _) => {
            let events = request.events.into_iter().enumerate();
            let events = events.map(|(i, e)| event(e).map_err(|error| error.within(&format!("events[{i}]"))));
            Content::Events(EventBatch {
                engine_time_ms: 0,
                dp_rank: Some(DpRank(request.dp_rank)),
                events: events.collect::<Result<_, _>>()?,
            })
        }
    };
    Ok(Publication {
        stream: StreamId { worker, dp_rank: DpRank(request.dp_rank) },
        generation: Generation(request.generation),
        seq: BatchSeq(request.seq),
        content,
    })
}

fn event(event: v1::PublishEvent) -> Result<KvEvent, ApiError> {
    if event.block_hashes.len() > MAX_BLOCKS_PER_EVENT {
        let found = event.block_hashes.len();
        return Err(ApiError::over_limit("block_hashes", "blocks", found, MAX_BLOCKS_PER_EVENT));
    }
    let group = u16::try_from(event.group_idx)
        .map_err(|_| ApiError::invalid("group_idx", format!("is {}, the limit is 65535", event.group_idx)))?;
    match event.r#type.as_str() {
        "stored" => stored(event, Group(group)).map(KvEvent::BlockStored),
        "removed" => Ok(KvEvent::BlockRemoved(BlockRemoved {
            block_hashes: event.block_hashes.iter().map(|hash| EngineBlockHash(*hash)).collect(),
            tier: tier(&event.medium),
            group: Group(group),
        })),
        "cleared" => Ok(KvEvent::AllBlocksCleared),
        other => {
            Err(ApiError::invalid("type", format!("is {other:?}, must be one of stored, removed, cleared")))
        }
    }
}

fn stored(event: v1::PublishEvent, group: Group) -> Result<BlockStored, ApiError> {
    let token_ids = tokens(&event)?;
    if event.block_size == 0 || event.block_size > MAX_BLOCK_SIZE {
        let message = format!("is {}, must be from 1 to {MAX_BLOCK_SIZE}", event.block_size);
        return Err(ApiError::invalid("block_size", message));
    }
    let (blocks, size) = (event.block_hashes.len(), event.block_size as usize);
    if token_ids.len() != blocks * size {
        let message = format!("{} tokens do not make {blocks} blocks of {size}", token_ids.len());
        return Err(ApiError::invalid("token_ids", message));
    }
    if !event.extra_keys.is_empty() && event.extra_keys.len() != blocks {
        let message =
            format!("{} entries for {blocks} blocks; give one each or none", event.extra_keys.len());
        return Err(ApiError::invalid("extra_keys", message));
    }
    let name = |field: &str, name: Option<String>, limit: usize| match name.filter(|name| !name.is_empty()) {
        Some(name) if name.len() > limit => Err(ApiError::over_limit(field, "bytes", name.len(), limit)),
        name => Ok(name),
    };
    Ok(BlockStored {
        block_hashes: event.block_hashes.iter().map(|hash| EngineBlockHash(*hash)).collect(),
        parent: event.parent_block_hash.map(EngineBlockHash),
        token_ids,
        block_size: event.block_size,
        tier: tier(&event.medium),
        lora_name: name("lora_name", event.lora_name, MAX_NAME_BYTES)?,
        lora_id: None,
        // A publisher has every field at its disposal, so what it leaves out is known to be absent.
        carries_extra_keys: true,
        extra_keys: event.extra_keys.into_iter().map(extra_keys).collect::<Result<_, _>>()?,
        cache_salt: name("cache_salt", event.cache_salt, MAX_SALT_BYTES)?,
        lookahead: Vec::new(),
        group,
        kind: Some(event.kv_cache_spec_kind.as_str())
            .filter(|kind| !kind.is_empty())
            .map(GroupKind::from_wire),
        sliding_window: event.kv_cache_spec_sliding_window,
    })
}

fn tokens(event: &v1::PublishEvent) -> Result<Vec<u32>, ApiError> {
    if !event.token_ids.is_empty() && !event.token_ids_le.is_empty() {
        return Err(ApiError::invalid("token_ids_le", "give either token_ids or token_ids_le, not both"));
    }
    let (words, rest) = event.token_ids_le.as_chunks::<4>();
    if !rest.is_empty() {
        let message = format!("{} bytes is not a multiple of 4", event.token_ids_le.len());
        return Err(ApiError::invalid("token_ids_le", message));
    }
    if words.is_empty() {
        return Ok(event.token_ids.clone());
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn extra_keys(block: v1::BlockExtraKeys) -> Result<Vec<ExtraKey>, ApiError> {
    let key =
        |key: v1::ExtraKey| match (key.text.is_empty(), key.identifier.is_empty(), key.digest.is_empty()) {
            (false, true, true) => Ok(ExtraKey::Text(key.text)),
            (true, false, true) => Ok(ExtraKey::Item { identifier: key.identifier, offset: key.offset }),
            (true, true, false) => Ok(ExtraKey::Bytes(key.digest.to_vec())),
            _ => Err(ApiError::invalid("extra_keys", "give each key one of text, identifier, digest")),
        };
    block.keys.into_iter().map(key).collect()
}

fn tier(medium: &str) -> Tier {
    Tier::from_medium((!medium.is_empty()).then_some(medium))
}
