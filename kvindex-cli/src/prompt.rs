//! The prompt flags that `match` and `explain` share, and how they become a prompt message.

use anyhow::Context;
use clap::{ArgGroup, Args};
use kvindex_client::v1::{self, PromptItem};
use kvindex_client::{PromptHashes, PromptTokens};
use kvindex_core::limits::{MAX_BLOCK_SIZE, MAX_PROMPT_TOKENS};
use kvindex_server::tokenizer::{MAX_TEXT_BYTES, TextTokenizer};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::failure;

/// The longest prompt, written as generously as `4294967295,` and a space.
const MAX_FILE_BYTES: u64 = MAX_PROMPT_TOKENS as u64 * 12;

/// A prompt.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("by").required(true).multiple(false)
    .args(["tokens", "tokens_file", "text", "text_file", "sequence_hashes", "engine_hashes"])))]
#[command(next_help_heading = "Prompt")]
pub(crate) struct PromptArgs {
    /// Token ids, such as 1,2,3
    #[arg(long, value_name = "IDS")]
    tokens: Option<String>,
    /// File with token ids: a JSON array, or separated by commas or white space; - for standard input
    #[arg(long, value_name = "PATH")]
    tokens_file: Option<String>,
    /// The prompt as text; needs --tokenizer. What the engine puts around a chat's messages is not added
    #[arg(long, requires = "tokenizer")]
    text: Option<String>,
    /// File with the prompt as text; - for standard input; needs --tokenizer
    #[arg(long, value_name = "PATH", requires = "tokenizer")]
    text_file: Option<String>,
    /// The model's tokenizer.json, which makes token ids of a text
    #[arg(long, value_name = "PATH", env = "KVINDEX_TOKENIZER")]
    tokenizer: Option<PathBuf>,
    /// Sequence hashes of the prompt's blocks, decimal or 0x…; needs --block-size
    #[arg(long, value_name = "HASHES", requires = "block_size")]
    sequence_hashes: Option<String>,
    /// The engine's own block hashes, decimal or 0x…; needs --block-size
    #[arg(long, value_name = "HASHES", requires = "block_size")]
    engine_hashes: Option<String>,
    /// Model name, as workers registered it
    #[arg(long)]
    model: String,
    /// Tenant [default: default]
    #[arg(long)]
    tenant: Option<String>,
    /// LoRA adapter
    #[arg(long, value_name = "NAME")]
    lora: Option<String>,
    /// Cache salt
    #[arg(long, conflicts_with_all = ["sequence_hashes", "engine_hashes"])]
    salt: Option<String>,
    /// Multimodal item: content hash, first placeholder token, number of placeholder tokens; repeatable
    #[arg(long = "item", value_name = "ID:OFFSET:LENGTH", value_parser = parse_item,
        conflicts_with_all = ["sequence_hashes", "engine_hashes"])]
    items: Vec<PromptItem>,
    /// Tokens a block; with tokens: only workers of this block size
    #[arg(long, value_name = "TOKENS",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BLOCK_SIZE)))]
    block_size: Option<u32>,
}

/// Which workers are asked about.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filter")]
pub(crate) struct FilterArgs {
    /// Only this worker, by worker id or address; repeatable
    #[arg(long = "worker", value_name = "ID")]
    pub(crate) candidates: Vec<String>,
    /// Only workers of this role: prefill, decode or aggregate
    #[arg(long)]
    pub(crate) role: Option<String>,
    /// Only workers of this prefill-decode group
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Only workers with this label; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Count only copies on this tier: device, host, disk, external
    #[arg(long)]
    pub(crate) tier: Option<String>,
    /// Only the best so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
    /// How fresh the answer must be: local for what the asked node has, lease or linearizable for everything
    /// acknowledged before [default: local]
    #[arg(long, value_name = "LEVEL", value_parser = ["local", "lease", "linearizable"], help_heading = "Filter")]
    pub(crate) consistency: Option<String>,
}

impl FilterArgs {
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

impl PromptArgs {
    /// The prompt as it is sent.
    pub(crate) fn message(&self) -> anyhow::Result<v1::Prompt> {
        let block_size = self.block_size.unwrap_or(0);
        let model = self.model.as_str();
        let prompt = if let Some(text) = &self.sequence_hashes {
            let hashes = hashes_of("--sequence-hashes", text)?;
            PromptHashes::sequence(model, block_size, hashes).message().clone()
        } else if let Some(text) = &self.engine_hashes {
            let hashes = hashes_of("--engine-hashes", text)?;
            PromptHashes::engine(model, block_size, hashes).message().clone()
        } else {
            PromptTokens::new(model, &self.token_ids()?).message().clone()
        };
        Ok(v1::Prompt {
            tenant: self.tenant.clone().unwrap_or_default(),
            lora_name: self.lora.clone(),
            cache_salt: self.salt.clone(),
            items: self.items.clone(),
            block_size,
            ..prompt
        })
    }

    fn token_ids(&self) -> anyhow::Result<Vec<u32>> {
        let (flag, text) = match (&self.tokens, &self.tokens_file) {
            _ if self.text.is_some() || self.text_file.is_some() => return self.token_ids_of_text(),
            (Some(text), _) => ("--tokens", text.clone()),
            (None, Some(path)) => ("--tokens-file", read_text("--tokens-file", path, MAX_FILE_BYTES)?),
            (None, None) => ("--tokens", String::new()),
        };
        let numbers = |word: &str| {
            word.parse::<u32>()
                .map_err(|_| failure::usage(format!("{flag}: {word:?} is no token id (0 to {})", u32::MAX)))
        };
        let ids = words(&text).map(numbers).collect::<anyhow::Result<Vec<u32>>>()?;
        match ids.len() {
            0 => Err(failure::usage(format!("{flag}: there are no token ids; give some, such as 1,2,3"))),
            found if found > MAX_PROMPT_TOKENS => {
                Err(failure::usage(format!("{flag}: {found} token ids, the limit is {MAX_PROMPT_TOKENS}")))
            }
            _ => Ok(ids),
        }
    }

    fn token_ids_of_text(&self) -> anyhow::Result<Vec<u32>> {
        let (flag, text) = match (&self.text, &self.text_file) {
            (Some(text), _) => ("--text", text.clone()),
            (None, path) => {
                let path = path.as_deref().unwrap_or_default();
                ("--text-file", read_text("--text-file", path, MAX_TEXT_BYTES as u64)?)
            }
        };
        let wrong = |flag: &str, error| failure::usage(format!("{flag}: {error}"));
        // The flags are required together.
        let tokenizer = TextTokenizer::open(self.tokenizer.as_deref().unwrap_or(Path::new("")));
        let ids = tokenizer.map_err(|error| wrong("--tokenizer", error))?.token_ids(&text);
        match ids.map_err(|error| wrong(flag, error))? {
            ids if ids.is_empty() => Err(failure::usage(format!("{flag}: the text is empty"))),
            ids => Ok(ids),
        }
    }
}

fn read_text(flag: &str, path: &str, limit: u64) -> anyhow::Result<String> {
    let read = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        from.take(limit + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = match path {
        "-" => read(&mut std::io::stdin().lock()),
        path => std::fs::File::open(Path::new(path)).and_then(|mut file| read(&mut file)),
    };
    let bytes = bytes.with_context(|| format!("{flag}: cannot read {path}"))?;
    if bytes.len() as u64 > limit {
        return Err(failure::usage(format!("{flag}: {path} is larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| failure::usage(format!("{flag}: {path} is not text")))
}

/// The numbers of a list, which may be a JSON array.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    list.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

fn hashes_of(flag: &str, text: &str) -> anyhow::Result<Vec<u64>> {
    let number = |word: &str| {
        let parsed = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => word.parse(),
        };
        parsed.map_err(|_| {
            failure::usage(format!("{flag}: {word:?} is no hash (0 to {}, or 0x and 16 digits)", u64::MAX))
        })
    };
    let hashes = words(text).map(number).collect::<anyhow::Result<Vec<u64>>>()?;
    if hashes.is_empty() {
        return Err(failure::usage(format!("{flag}: there are no hashes; give some, such as 0x4cf1,0x77aa")));
    }
    Ok(hashes)
}

/// The identifier may hold colons itself, so the numbers are taken from the end.
fn parse_item(text: &str) -> Result<PromptItem, String> {
    let mut parts = text.rsplitn(3, ':');
    let (length, offset, identifier) = (parts.next(), parts.next(), parts.next());
    let number = |name: &str, text: Option<&str>| {
        text.unwrap_or_default().parse().map_err(|_| format!("{name} must be a number of tokens, 0 or more"))
    };
    match identifier {
        None | Some("") => Err("must be ID:OFFSET:LENGTH, such as 4f1c:12:576".into()),
        Some(identifier) => Ok(PromptItem {
            identifier: identifier.into(),
            offset: number("OFFSET", offset)?,
            length: number("LENGTH", length)?,
        }),
    }
}

/// A label as `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("must be KEY=VALUE".into()),
    }
}
