//! A question as received, checked against the limits and borrowed from the message: token ids are hashed
//! where the message holds them.

use std::collections::BTreeMap;

use kvindex_core::limits::{MAX_BLOCK_SIZE, MAX_NAME_BYTES, MAX_SALT_BYTES};
use kvindex_core::{EngineBlockHash, Filter, Prompt, PromptItem, Query, SequenceHash, Tokens};
use kvindex_proto::v1;

use crate::access::{Caller, Right};
use crate::api::error::{ApiError, Kind};
use crate::config::ApiLimits;

/// Most multimodal items of one prompt: contexts hold some hundreds of images at most.
pub(crate) const MAX_ITEMS: usize = 4096;

/// How often items may cover the prompt together: they stand beside each other, so once is usual.
const MAX_COVER: u64 = 4;

/// A checked question.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    prompt: &'a v1::Prompt,
    /// Whose workers are asked about.
    pub(crate) tenant: &'a str,
    form: Form<'a>,
    items: Vec<PromptItem<'a>>,
    candidates: Vec<&'a str>,
    labels: Vec<(&'a str, &'a str)>,
    role: Option<&'a str>,
    pd_group: Option<&'a str>,
    tier: Option<&'a str>,
    /// Only the best so many.
    pub(crate) top_k: Option<usize>,
    /// Fewest matched blocks.
    pub(crate) min_blocks: usize,
    /// Whether the best of each prefill-decode group is asked for.
    pub(crate) group_rollup: bool,
}

#[derive(Debug)]
enum Form<'a> {
    Ids(&'a [u32]),
    LeBytes(&'a [u8]),
    Sequence(Vec<SequenceHash>),
    Engine(Vec<EngineBlockHash>),
}

impl<'a> Question<'a> {
    pub(crate) fn of_match(
        request: &'a v1::MatchRequest,
        limits: &ApiLimits,
        caller: &'a Caller,
    ) -> Result<Self, ApiError> {
        let prompt = request.prompt.as_ref();
        let mut question = Self::new(prompt, &request.candidates, &request.labels, limits, caller)?;
        question.role = named("role", request.role.as_deref())?;
        question.pd_group = named("pd_group", request.pd_group.as_deref())?;
        question.tier = named("tier", request.tier.as_deref())?;
        question.top_k = count(request.top_k);
        question.min_blocks = request.min_matched_blocks as usize;
        question.group_rollup = request.group_rollup;
        Ok(question)
    }

    pub(crate) fn of_explain(
        request: &'a v1::ExplainRequest,
        limits: &ApiLimits,
        caller: &'a Caller,
    ) -> Result<Self, ApiError> {
        let prompt = request.prompt.as_ref();
        let mut question = Self::new(prompt, &request.candidates, &request.labels, limits, caller)?;
        question.role = named("role", request.role.as_deref())?;
        question.pd_group = named("pd_group", request.pd_group.as_deref())?;
        question.tier = named("tier", request.tier.as_deref())?;
        question.top_k = count(request.top_k);
        Ok(question)
    }

    fn new(
        prompt: Option<&'a v1::Prompt>,
        candidates: &'a [String],
        labels: &'a BTreeMap<String, String>,
        limits: &ApiLimits,
        caller: &'a Caller,
    ) -> Result<Self, ApiError> {
        let prompt = prompt.ok_or_else(|| ApiError::invalid("prompt", "is required"))?;
        let tenant = caller.tenant(Right::Read, &prompt.tenant)?;
        if candidates.len() > limits.candidates {
            let (found, limit) = (candidates.len(), limits.candidates);
            return Err(ApiError::over_limit("candidates", "candidates", found, limit));
        }
        if labels.len() > limits.candidates {
            return Err(ApiError::over_limit("labels", "labels", labels.len(), limits.candidates));
        }
        let form = form_of(prompt, limits).map_err(|error| error.within("prompt"))?;
        let items = items_of(prompt, &form).map_err(|error| error.within("prompt"))?;
        Ok(Self {
            prompt,
            tenant,
            form,
            items,
            candidates: candidates.iter().map(String::as_str).collect(),
            labels: labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            role: None,
            pd_group: None,
            tier: None,
            top_k: None,
            min_blocks: 0,
            group_rollup: false,
        })
    }

    /// The question as the index takes it.
    pub(crate) fn query(&self) -> Query<'_> {
        let prompt = match &self.form {
            Form::Ids(ids) => self.tokens(Tokens::Ids(ids)),
            Form::LeBytes(bytes) => self.tokens(Tokens::LeBytes(bytes)),
            Form::Sequence(hashes) => Prompt::SequenceHashes(hashes),
            Form::Engine(hashes) => Prompt::EngineHashes(hashes),
        };
        Query {
            tenant: self.tenant,
            model: &self.prompt.model,
            lora: not_empty(self.prompt.lora_name.as_deref()),
            prompt,
            block_size: (self.prompt.block_size > 0).then_some(self.prompt.block_size),
            filter: Filter {
                candidates: &self.candidates,
                role: self.role,
                pd_group: self.pd_group,
                labels: &self.labels,
                tier: self.tier,
            },
            top_k: self.top_k,
            min_blocks: self.min_blocks,
        }
    }

    fn tokens<'b>(&'b self, tokens: Tokens<'b>) -> Prompt<'b> {
        Prompt::Tokens { tokens, salt: not_empty(self.prompt.cache_salt.as_deref()), items: &self.items }
    }
}

/// The one form that the prompt has.
fn form_of<'a>(prompt: &'a v1::Prompt, limits: &ApiLimits) -> Result<Form<'a>, ApiError> {
    if prompt.model.is_empty() {
        return Err(ApiError::invalid("model", "is required"));
    }
    if prompt.block_size > MAX_BLOCK_SIZE {
        let message = format!("is {}, the limit is {MAX_BLOCK_SIZE}", prompt.block_size);
        return Err(ApiError::invalid("block_size", message));
    }
    named("lora_name", prompt.lora_name.as_deref())?;
    short("cache_salt", prompt.cache_salt.as_deref(), MAX_SALT_BYTES)?;
    let forms = [
        ("token_ids", prompt.token_ids.len()),
        ("token_ids_le", prompt.token_ids_le.len()),
        ("sequence_hashes", prompt.sequence_hashes.len()),
        ("engine_block_hashes", prompt.engine_block_hashes.len()),
    ];
    let mut given = forms.iter().filter(|(_, len)| *len > 0);
    let (field, len) = match (given.next(), given.next()) {
        (Some(form), None) => *form,
        (None, _) => {
            let message = "give one of token_ids, token_ids_le, sequence_hashes, engine_block_hashes";
            return Err(ApiError::new(Kind::Invalid, message));
        }
        (Some((first, _)), Some((second, _))) => {
            let message = format!("give one form of the prompt, not both {first} and {second}");
            return Err(ApiError::invalid(*second, message));
        }
    };
    let form = match field {
        "token_ids" => Form::Ids(&prompt.token_ids),
        "token_ids_le" => Form::LeBytes(&prompt.token_ids_le),
        "sequence_hashes" => {
            Form::Sequence(prompt.sequence_hashes.iter().map(|h| SequenceHash(*h)).collect())
        }
        _ => Form::Engine(prompt.engine_block_hashes.iter().map(|h| EngineBlockHash(*h)).collect()),
    };
    let tokens = match &form {
        Form::Ids(_) => len,
        Form::LeBytes(_) if len % 4 != 0 => {
            let message = format!("{len} bytes is not a multiple of 4, one little-endian u32 a token");
            return Err(ApiError::invalid(field, message));
        }
        Form::LeBytes(_) => len / 4,
        Form::Sequence(_) | Form::Engine(_) if prompt.block_size == 0 => {
            return Err(ApiError::invalid("block_size", format!("is required with {field}")));
        }
        Form::Sequence(_) | Form::Engine(_) => len.saturating_mul(prompt.block_size as usize),
    };
    if tokens > limits.prompt_tokens {
        return Err(ApiError::over_limit(field, "tokens", tokens, limits.prompt_tokens));
    }
    Ok(form)
}

fn items_of<'a>(prompt: &'a v1::Prompt, form: &Form<'_>) -> Result<Vec<PromptItem<'a>>, ApiError> {
    if matches!(form, Form::Sequence(_) | Form::Engine(_)) {
        if !prompt.items.is_empty() {
            return Err(ApiError::invalid("items", "go with tokens only: hashes already hold them"));
        }
        if not_empty(prompt.cache_salt.as_deref()).is_some() {
            return Err(ApiError::invalid("cache_salt", "goes with tokens only: hashes already hold it"));
        }
    }
    if prompt.items.len() > MAX_ITEMS {
        return Err(ApiError::over_limit("items", "items", prompt.items.len(), MAX_ITEMS));
    }
    for (i, item) in prompt.items.iter().enumerate() {
        if item.identifier.is_empty() {
            return Err(ApiError::invalid(format!("items[{i}].identifier"), "is required"));
        }
        if item.identifier.len() > MAX_NAME_BYTES {
            let (field, found) = (format!("items[{i}].identifier"), item.identifier.len());
            return Err(ApiError::over_limit(field, "bytes", found, MAX_NAME_BYTES));
        }
        if item.length == 0 || item.offset.checked_add(item.length).is_none() {
            let message = format!("offset {} and length {} make no range", item.offset, item.length);
            return Err(ApiError::invalid(format!("items[{i}].length"), message));
        }
    }
    covered(prompt, form)?;
    let item = |item: &'a v1::PromptItem| PromptItem {
        identifier: &item.identifier,
        offset: item.offset,
        length: item.length,
    };
    Ok(prompt.items.iter().map(item).collect())
}

/// Items stand beside each other, each in its own tokens. Each block is hashed with every item that reaches into it, so
/// what all of them cover together is bounded.
fn covered(prompt: &v1::Prompt, form: &Form<'_>) -> Result<(), ApiError> {
    let tokens = match form {
        Form::Ids(ids) => ids.len() as u64,
        Form::LeBytes(bytes) => bytes.len() as u64 / 4,
        Form::Sequence(_) | Form::Engine(_) => return Ok(()),
    };
    let within = |item: &v1::PromptItem| {
        let end = item.offset.saturating_add(item.length).min(tokens);
        end.saturating_sub(item.offset)
    };
    let covered = prompt.items.iter().map(within).fold(0, u64::saturating_add);
    let limit = tokens.saturating_mul(MAX_COVER);
    if covered > limit {
        let to_usize = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        return Err(ApiError::over_limit("items", "tokens covered", to_usize(covered), to_usize(limit)));
    }
    Ok(())
}

fn named<'a>(field: &str, name: Option<&'a str>) -> Result<Option<&'a str>, ApiError> {
    short(field, name, MAX_NAME_BYTES)
}

fn short<'a>(field: &str, text: Option<&'a str>, limit: usize) -> Result<Option<&'a str>, ApiError> {
    match not_empty(text) {
        Some(text) if text.len() > limit => Err(ApiError::over_limit(field, "bytes", text.len(), limit)),
        text => Ok(text),
    }
}

fn not_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn count(number: Option<u32>) -> Option<usize> {
    number.filter(|k| *k > 0).map(|k| k as usize)
}
