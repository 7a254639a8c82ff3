//! A recorded query as questions to the node, and the node's answers beside the engines' own.

use std::collections::BTreeMap;

use kvindex_client::v1;
use kvindex_recording::{EngineHeader, EngineKind, Header, Query, Version};

use super::MODEL;

/// From these releases on, events name the LoRA adapter.
const VLLM_NAMES_LORA: Version = Version { major: 0, minor: 14, patch: 0 };
const SGLANG_NAMES_LORA: Version = Version { major: 0, minor: 5, patch: 22 };

/// How a prompt is put to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// By token ids.
    Tokens,
    /// By the engines' own block hashes.
    Hashes,
}

/// One question, whose answer speaks for some of the engines.
#[derive(Debug)]
pub(super) struct Question {
    /// How it asks.
    pub(super) way: Way,
    /// Place of the query in its checkpoint.
    pub(super) query: usize,
    /// Engines it speaks for, by index.
    pub(super) engines: Vec<usize>,
    /// What to send; `None` for a prompt without a full block, of which nobody can hold anything.
    pub(super) request: Option<v1::MatchRequest>,
}

/// The questions that cover a query for every engine: by tokens, and where there are hashes also by these.
pub(super) fn questions(header: &Header, place: usize, query: &Query) -> Vec<Question> {
    // Engines name adapters in their own way, and hash in their own block size; mostly all of them alike.
    let mut by_lora: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    let mut by_block_size: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, engine) in header.engines.iter().enumerate() {
        by_lora.entry(lora_name(header, engine, query)).or_default().push(index);
        by_block_size.entry(engine.hash_block_size()).or_default().push(index);
    }
    let by_tokens = by_lora.into_iter().map(|(lora, engines)| {
        let prompt = (!query.tokens.is_empty()).then(|| by_tokens(query, lora));
        (Way::Tokens, engines, prompt)
    });
    let by_hashes = by_block_size.into_iter().filter_map(|(block_size, engines)| {
        let hashes = query.block_hashes_for(block_size)?;
        let prompt = (!hashes.is_empty()).then(|| by_hashes(hashes, block_size));
        Some((Way::Hashes, engines, prompt))
    });
    let question = |(way, engines, prompt): (Way, Vec<usize>, Option<v1::Prompt>)| {
        let candidates = if engines.len() == header.engines.len() {
            Vec::new()
        } else {
            engines.iter().filter_map(|&i| Some(header.engines.get(i)?.name.clone())).collect()
        };
        let request = prompt.map(|prompt| v1::MatchRequest {
            prompt: Some(prompt),
            candidates,
            ..v1::MatchRequest::default()
        });
        Question { way, query: place, engines, request }
    };
    by_tokens.chain(by_hashes).map(question).collect()
}

fn by_tokens(query: &Query, lora: Option<&str>) -> v1::Prompt {
    let item = |item: &kvindex_recording::MmItem| v1::PromptItem {
        identifier: item.identifier.clone(),
        offset: item.offset.into(),
        length: item.length.into(),
    };
    v1::Prompt {
        model: MODEL.into(),
        lora_name: lora.map(String::from),
        cache_salt: query.salt.clone(),
        token_ids_le: query.tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>().into(),
        items: query.mm.iter().map(item).collect(),
        ..v1::Prompt::default()
    }
}

fn by_hashes(hashes: &[u64], block_size: u32) -> v1::Prompt {
    v1::Prompt {
        model: MODEL.into(),
        engine_block_hashes: hashes.to_vec(),
        block_size,
        ..v1::Prompt::default()
    }
}

/// The adapter's name as this engine's events give it; a router knows it in the same way.
fn lora_name<'a>(header: &Header, engine: &'a EngineHeader, query: &'a Query) -> Option<&'a str> {
    match header.engine {
        EngineKind::Vllm if header.version >= VLLM_NAMES_LORA => query.lora.as_ref().map(|l| l.name.as_str()),
        EngineKind::Sglang if header.version >= SGLANG_NAMES_LORA => {
            let key = query.extra_key.as_ref()?;
            engine.lora_names.get(key).map(String::as_str)
        }
        EngineKind::Vllm | EngineKind::Sglang => None,
    }
}

/// Tokens that an answer says the worker holds; a worker that it does not list holds nothing.
pub(super) fn matched_tokens(answer: Option<&v1::MatchResponse>, worker: &str) -> u64 {
    let workers = answer.map_or(&[][..], |answer| &answer.workers);
    workers.iter().filter(|w| w.worker_id == worker).map(|w| w.matched_tokens).max().unwrap_or(0)
}
