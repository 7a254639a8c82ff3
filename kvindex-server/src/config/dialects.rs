//! The keys of the dialects: which other indexers' calls are answered on the public port. Each has a switch of its own,
//! and all are off unless somebody asks for them.

use clap::Args;
use kvindex_core::limits::MAX_BLOCK_SIZE;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use super::check::Checker;
use super::hitrate::HitRateConfig;
use super::{Config, ConfigError, Shown, hitrate, text};

/// Calls of other indexers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawDialects {
    /// Answer the Mooncake indexer's calls: off, rfc (its documents' JSON) or conductor (its C++ conductor's JSON); either
    /// with the conductor's MessagePack [default: off].
    #[arg(long, value_name = "FORM")]
    pub dialect_mooncake: Option<String>,
    /// Answer the calls of Dynamo's standalone indexer [default: false].
    #[arg(long, value_name = "BOOL")]
    pub dialect_dynamo: Option<bool>,
    /// Answer SGLang's router as its KV indexer does (gRPC); needs dialect_model and dialect_block_size [default: false].
    #[arg(long, value_name = "BOOL")]
    pub dialect_sglang: Option<bool>,
    /// What stands before a worker's address for SGLang's router, which compares it with its worker URLs [default: http].
    #[arg(long, value_name = "SCHEME")]
    pub dialect_sglang_scheme: Option<String>,
    /// Answer llm-d's GetPodScores (gRPC); needs dialect_llmd_tokenizers [default: false].
    #[arg(long, value_name = "BOOL")]
    pub dialect_llmd: Option<bool>,
    /// Tokenizers of llm-d's prompts, `MODEL=PATH` to a tokenizer.json, between commas; a PATH alone for every other model.
    #[arg(long, value_name = "LIST")]
    pub dialect_llmd_tokenizers: Option<String>,
    /// Answer POST /lookup as LMCache's controller does; needs dialect_model [default: false].
    #[arg(long, value_name = "BOOL")]
    pub dialect_lmcache: Option<bool>,
    /// Model of dialects' calls that name none.
    #[arg(long, value_name = "MODEL")]
    pub dialect_model: Option<String>,
    /// Tenant of dialects' calls that name none [default: the caller's only one, or default].
    #[arg(long, value_name = "TENANT")]
    pub dialect_tenant: Option<String>,
    /// Tokens a block of dialects' calls that name none: what SGLang's hashes are of, what llm-d's scores count; 0 for
    /// any [default: 0].
    #[arg(long, value_name = "TOKENS")]
    pub dialect_block_size: Option<u64>,
    /// Answer hit rates on this path, as an InferNex router might ask for them: a guess, see docs/dialects.md.
    #[arg(long, value_name = "PATH")]
    pub dialect_hitrate: Option<String>,
    /// Field of a hit rate's request that names the model [default: model].
    #[arg(long, value_name = "FIELD")]
    pub dialect_hitrate_model_field: Option<String>,
    /// Field of a hit rate's request that holds the token ids [default: token_ids].
    #[arg(long, value_name = "FIELD")]
    pub dialect_hitrate_tokens_field: Option<String>,
    /// Field of a hit rate's request that lists the pods asked about [default: pods].
    #[arg(long, value_name = "FIELD")]
    pub dialect_hitrate_pods_field: Option<String>,
    /// Form of the answer about hit rates: map or list [default: map].
    #[arg(long, value_name = "FORM")]
    pub dialect_hitrate_answer: Option<String>,
    /// What pods are called in hit rates: address, pod_ip or pod_name [default: address].
    #[arg(long, value_name = "NAME")]
    pub dialect_hitrate_key: Option<String>,
    /// What is said of a pod: rate, not_rate (1 - rate) or tokens [default: rate].
    #[arg(long, value_name = "VALUE")]
    pub dialect_hitrate_value: Option<String>,
    /// Role of the workers that hit rates are about; empty for every role [default: prefill].
    #[arg(long, value_name = "ROLE")]
    pub dialect_hitrate_role: Option<String>,
}

/// Which dialects are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialectsConfig {
    /// Mooncake's, and which of its two JSON forms; `None` for none.
    pub mooncake: Option<MooncakeJson>,
    /// Dynamo's standalone indexer.
    pub dynamo: bool,
    /// SGLang's KV indexer, as its router asks it.
    pub sglang: bool,
    /// What stands before an address in SGLang's answers.
    pub sglang_scheme: String,
    /// llm-d's scores.
    pub llmd: bool,
    /// Tokenizers of llm-d's prompts.
    pub tokenizers: Vec<TokenizerFile>,
    /// LMCache's lookup.
    pub lmcache: bool,
    /// Model of calls that name none; empty for none.
    pub model: String,
    /// Tenant of calls that name none; empty for the caller's own.
    pub tenant: String,
    /// Tokens a block of calls that name none; 0 for any.
    pub block_size: u32,
    /// Hit rates.
    pub hitrate: HitRateConfig,
}

/// A tokenizer's file, and for which model it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFile {
    /// The model; `None` for every one that has no file of its own.
    pub model: Option<String>,
    /// Its tokenizer.json.
    pub path: PathBuf,
}

/// The two JSON forms of Mooncake's answers, which no request tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MooncakeJson {
    /// By tenant, with counts of blocks on each medium: the published documents.
    Rfc,
    /// With cumulative counts: the conductor's C++ program.
    Conductor,
}

impl MooncakeJson {
    const WORDS: [(&str, Option<Self>); 3] =
        [("off", None), ("rfc", Some(Self::Rfc)), ("conductor", Some(Self::Conductor))];
}

impl Checker<'_> {
    pub(super) fn dialects(&self, raw: &RawDialects) -> Result<DialectsConfig, ConfigError> {
        let mooncake = raw.dialect_mooncake.as_deref().filter(|text| !text.is_empty());
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let sizes = 0..=u64::from(MAX_BLOCK_SIZE);
        let dialects = DialectsConfig {
            mooncake: self.word("dialect_mooncake", mooncake, &MooncakeJson::WORDS)?,
            dynamo: raw.dialect_dynamo.unwrap_or(false),
            sglang: raw.dialect_sglang.unwrap_or(false),
            sglang_scheme: raw.dialect_sglang_scheme.clone().unwrap_or_else(|| "http".into()),
            llmd: raw.dialect_llmd.unwrap_or(false),
            tokenizers: self.tokenizers(raw.dialect_llmd_tokenizers.as_deref().unwrap_or(""))?,
            lmcache: raw.dialect_lmcache.unwrap_or(false),
            model: text(&raw.dialect_model),
            tenant: text(&raw.dialect_tenant),
            block_size: self.number("dialect_block_size", raw.dialect_block_size, 0, sizes)?,
            hitrate: self.hitrate(raw)?,
        };
        self.complete(&dialects)?;
        Ok(dialects)
    }

    fn tokenizers(&self, list: &str) -> Result<Vec<TokenizerFile>, ConfigError> {
        let mut files: Vec<TokenizerFile> = Vec::new();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (model, path) = match entry.split_once('=') {
                Some((model, path)) => (Some(model.trim().to_owned()), path.trim()),
                None => (None, entry),
            };
            let wrong = |reason| self.invalid("dialect_llmd_tokenizers", entry, reason);
            if path.is_empty() || model.as_deref() == Some("") {
                return Err(wrong("must be MODEL=PATH, or a PATH"));
            }
            if files.iter().any(|file| file.model == model) {
                return Err(wrong("there is another tokenizer for the same models"));
            }
            files.push(TokenizerFile { model, path: Path::new(path).into() });
        }
        Ok(files)
    }

    /// A switch whose calls would all be refused for what they do not say is refused itself.
    fn complete(&self, dialects: &DialectsConfig) -> Result<(), ConfigError> {
        let (no_model, no_size) = (dialects.model.is_empty(), dialects.block_size == 0);
        let no_tokenizer = dialects.tokenizers.is_empty();
        let needs = [
            (dialects.sglang && no_model, "dialect_sglang", "dialect_model: its calls name no model"),
            (
                dialects.sglang && no_size,
                "dialect_sglang",
                "dialect_block_size: its calls name no block size",
            ),
            (dialects.lmcache && no_model, "dialect_lmcache", "dialect_model: its calls name no model"),
            (
                dialects.llmd && no_tokenizer,
                "dialect_llmd",
                "dialect_llmd_tokenizers: its calls carry prompts as text",
            ),
        ];
        match needs.into_iter().find(|(lacks, _, _)| *lacks) {
            Some((_, switch, what)) => Err(self.invalid(switch, "true", &format!("needs {what}"))),
            None => Ok(()),
        }
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let dialects = &config.dialects;
    let mooncake = MooncakeJson::WORDS.iter().find(|(_, form)| *form == dialects.mooncake);
    let mut values = vec![
        ("dialect_mooncake", text(mooncake.map_or("off", |(word, _)| word))),
        ("dialect_dynamo", dialects.dynamo.to_string()),
        ("dialect_sglang", dialects.sglang.to_string()),
        ("dialect_sglang_scheme", text(&dialects.sglang_scheme)),
        ("dialect_llmd", dialects.llmd.to_string()),
        ("dialect_llmd_tokenizers", text(shown_files(&dialects.tokenizers))),
        ("dialect_lmcache", dialects.lmcache.to_string()),
        ("dialect_model", text(&dialects.model)),
        ("dialect_tenant", text(&dialects.tenant)),
        ("dialect_block_size", dialects.block_size.to_string()),
    ];
    values.extend(hitrate::shown(&dialects.hitrate));
    values
}

fn shown_files(files: &[TokenizerFile]) -> String {
    let shown = files.iter().map(|TokenizerFile { model, path }| match model {
        Some(model) => format!("{model}={}", path.display()),
        None => path.display().to_string(),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(text: &str) -> String {
        Config::of_text(text).unwrap_err().to_string()
    }

    #[test]
    fn a_switch_that_lacks_something_is_refused_and_says_what() {
        for (text, says) in [
            ("dialect_sglang = true", "dialect_sglang = true (text): needs dialect_model"),
            ("dialect_sglang = true\ndialect_model = \"m\"", "needs dialect_block_size"),
            ("dialect_lmcache = true", "dialect_lmcache = true (text): needs dialect_model"),
            ("dialect_llmd = true", "dialect_llmd = true (text): needs dialect_llmd_tokenizers"),
            ("dialect_llmd_tokenizers = \"m=\"", "dialect_llmd_tokenizers = m= (text): must be MODEL=PATH"),
            ("dialect_llmd_tokenizers = \"a, b\"", "dialect_llmd_tokenizers = b (text): there is another"),
        ] {
            let refused = refusal(text);
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    #[test]
    fn tokenizers_are_listed_by_model() {
        let config = Config::of_text("dialect_llmd_tokenizers = \"org/m = /t/m.json, /t/any.json\"").unwrap();
        let [own, any] = config.dialects.tokenizers.as_slice() else { panic!("two") };
        assert_eq!((own.model.as_deref(), own.path.as_path()), (Some("org/m"), Path::new("/t/m.json")));
        assert_eq!((any.model.as_deref(), any.path.as_path()), (None, Path::new("/t/any.json")));
        let shown = config.settings().into_iter().find(|s| s.key == "dialect_llmd_tokenizers").unwrap();
        assert_eq!(shown.value, "\"org/m=/t/m.json,/t/any.json\"");
    }
}
