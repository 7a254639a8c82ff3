//! The keys of the dialects: which other indexers' calls are answered on the public port. Each has a switch of its own,
//! and all are off unless somebody asks for them.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::{Config, ConfigError, Shown, text};

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
}

/// Which dialects are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialectsConfig {
    /// Mooncake's, and which of its two JSON forms; `None` for none.
    pub mooncake: Option<MooncakeJson>,
    /// Dynamo's standalone indexer.
    pub dynamo: bool,
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
        Ok(DialectsConfig {
            mooncake: self.word("dialect_mooncake", mooncake, &MooncakeJson::WORDS)?,
            dynamo: raw.dialect_dynamo.unwrap_or(false),
        })
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let dialects = &config.dialects;
    let mooncake = MooncakeJson::WORDS.iter().find(|(_, form)| *form == dialects.mooncake);
    vec![
        ("dialect_mooncake", text(mooncake.map_or("off", |(word, _)| word))),
        ("dialect_dynamo", dialects.dynamo.to_string()),
    ]
}
