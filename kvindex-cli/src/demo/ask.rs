//! A recorded query as questions to the node, and the node's answers beside the engines' own.

use std::collections::BTreeMap;

use kvindex_client::v1;
use kvindex_recording::{Answer, EngineHeader, EngineKind, Header, Query, Version};

use super::MODEL;

/// From these releases on, events name the LoRA adapter.
const VLLM_NAMES_LORA: Version = Version { major: 0, minor: 14, patch: 0 };
const SGLANG_NAMES_LORA: Version = Version { major: 0, minor: 5, patch: 22 };

/// How a prompt is put to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// By token ids, about device memory.
    Tokens,
    /// By the engines' own block hashes, about device memory.
    Hashes,
    /// By the engines' own block hashes, about the host tier of engines that have one.
    Host,
}

impl Way {
    /// All ways, in the order in which they are told about.
    pub(super) const ALL: [Self; 3] = [Self::Tokens, Self::Hashes, Self::Host];

    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tokens => "by tokens",
            Self::Hashes => "by engine block hashes",
            Self::Host => "on the host tier by engine block hashes",
        }
    }

    /// In JSON.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tokens => "by_tokens",
            Self::Hashes => "by_hashes",
            Self::Host => "host_by_hashes",
        }
    }

    /// The tier to ask about; engines with one tier are asked as any router would.
    fn tier(self, query: &Query) -> Option<String> {
        let several = query.engines.iter().any(|answer| answer.present_cpu.is_some());
        match self {
            Self::Host => Some("host".into()),
            Self::Tokens | Self::Hashes => several.then(|| "device".into()),
        }
    }

    /// Tokens that the engine itself has there. What it could load from the host tier is the run of blocks
    /// there that starts with the prompt.
    pub(super) fn own_tokens(self, answer: &Answer, engine: &EngineHeader) -> u64 {
        match self {
            Self::Tokens | Self::Hashes => answer.expected_tokens(),
            Self::Host => answer.host_prefix().unwrap_or(0) * u64::from(engine.hash_block_size()),
        }
    }
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

/// The questions that cover a query for every engine: by tokens, and where there are hashes also by these,
/// once for each tier.
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
    let with_host = |engines: &[usize]| {
        engines.iter().any(|i| query.engines.get(*i).is_some_and(|answer| answer.present_cpu.is_some()))
    };
    let by_hashes = by_block_size.into_iter().flat_map(|(block_size, engines)| {
        let hashes = query.block_hashes_for(block_size);
        let prompt = hashes.filter(|hashes| !hashes.is_empty()).map(|hashes| by_hashes(hashes, block_size));
        let ways = [(Way::Hashes, hashes.is_some()), (Way::Host, hashes.is_some() && with_host(&engines))];
        let asked = ways.into_iter().filter(|(_, asked)| *asked);
        asked.map(move |(way, _)| (way, engines.clone(), prompt.clone())).collect::<Vec<_>>()
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
            tier: way.tier(query),
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

/// What an answer says of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Tokens it holds.
    pub(super) tokens: u64,
    /// Names of the doubts that mark the answer.
    pub(super) doubts: Vec<String>,
}

/// What an answer says of a worker; one that it does not list holds nothing.
pub(super) fn said_of(answer: Option<&v1::MatchResponse>, worker: &str) -> Said {
    let workers = answer.map_or(&[][..], |answer| &answer.workers);
    let found = workers.iter().filter(|w| w.worker_id == worker).max_by_key(|w| w.matched_tokens);
    found.map(|w| Said { tokens: w.matched_tokens, doubts: w.doubts.clone() }).unwrap_or_default()
}
