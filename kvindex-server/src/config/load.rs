//! From file, environment and flags to a configuration whose every value knows who set it.

use clap::Args;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::{Figment, Profile};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::LazyLock;

use super::cgroup::MemoryLimit;
use super::check::Origin;
use super::limits::INDEX_CAP;
use super::{Config, ConfigError, DiscoveryConfig, Loaded, RawConfig, RawDiscovery, Setting};
use crate::workers::RawWorker;

/// What comes before each variable of ours.
const PREFIX: &str = "KVINDEX_";

/// Variables with our prefix that belong to the command line.
const OTHER_VARIABLES: [&str; 10] = [
    "config",
    "server",
    "output",
    "timeout_ms",
    "token",
    "token_file",
    "ca",
    "client_cert",
    "client_key",
    "server_name",
];

/// The one key that stands in the file only.
const WORKERS: &str = "workers";

/// How much two keys must be alike for one to be taken for the other's misspelling.
const ALIKE: f64 = 0.8;

impl Config {
    /// Reads `file`, then `KVINDEX_*` variables, then `flags`; later ones win. An empty variable counts as not set. A
    /// cap on the index that nobody sets follows from the control group's memory.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, or a value is of the wrong kind or out of range.
    pub fn load(file: Option<&Path>, flags: &RawConfig) -> Result<Loaded, ConfigError> {
        Self::load_under(file, flags, MemoryLimit::of_this_process())
    }

    /// The same, for a process with so much memory.
    pub(super) fn load_under(
        file: Option<&Path>,
        flags: &RawConfig,
        memory: Option<MemoryLimit>,
    ) -> Result<Loaded, ConfigError> {
        let keys = RawConfig::keys();
        let figment = gather(file, flags, keys)?;
        refuse_unknown(&figment, keys)?;
        let raw = extract(&figment)?;
        let origin = |key: &str| origin_of(&figment, key);
        let mut config = raw.check(&origin)?;
        let granted = memory.filter(|_| raw.limits.max_index_bytes.is_none());
        if let Some(granted) = &granted {
            config.limits.cap_index(granted.index_bytes());
        }
        let origin = |key: &str| match &granted {
            Some(granted) if key == INDEX_CAP => granted.origin(),
            _ => origin(key),
        };
        let settings = config.settings_from(&origin);
        Ok(Loaded { config, unknown_variables: unknown_variables(keys), settings })
    }

    /// Every value in effect, as those of a configuration of nothing but defaults.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        self.settings_from(&|_| "default".into())
    }

    fn settings_from(&self, origin: &Origin<'_>) -> Vec<Setting> {
        let shown = self.shown().into_iter();
        shown.map(|(key, value)| Setting { key, value, origin: origin(key) }).collect()
    }

    /// What a file would be taken for, without environment and flags.
    ///
    /// # Errors
    /// When a key is unknown, or a value is of the wrong kind or out of range.
    pub fn of_text(text: &str) -> Result<Self, ConfigError> {
        let figment = Figment::from(Toml::string(text));
        refuse_unknown(&figment, RawConfig::keys())?;
        extract(&figment)?.check(&|_| "text".into())
    }

    /// The configuration of nothing but defaults.
    ///
    /// # Panics
    /// Never: a test loads the defaults.
    #[must_use]
    pub fn defaults() -> Self {
        match RawConfig::default().check(&|_| "default".into()) {
            Ok(config) => config,
            Err(error) => unreachable!("defaults are valid: {error}"),
        }
    }
}

impl DiscoveryConfig {
    /// Reads the keys of discovery as [`Config::load`] does, and leaves the others unchecked: who only looks at a cluster
    /// needs no address of its own.
    ///
    /// # Errors
    /// As [`Config::load`], for these keys.
    pub fn load(file: Option<&Path>, flags: &RawDiscovery) -> Result<Self, ConfigError> {
        let keys = RawConfig::keys();
        let flags = RawConfig { discovery: flags.clone(), ..RawConfig::default() };
        let figment = gather(file, &flags, keys)?;
        refuse_unknown(&figment, keys)?;
        section::<RawDiscovery>(&figment)?.check(&|key: &str| origin_of(&figment, key))
    }
}

impl RawConfig {
    /// Every key that has a flag and a variable, in order.
    #[must_use]
    pub fn keys() -> &'static [String] {
        // Made once: a whole command line is put together for it.
        static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
            let command = RawConfig::augment_args(clap::Command::new("keys"));
            // A group is made for each section; only what it holds is a key.
            command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
        });
        &KEYS
    }
}

fn gather(file: Option<&Path>, flags: &RawConfig, keys: &[String]) -> Result<Figment, ConfigError> {
    let mut figment = Figment::new();
    if let Some(path) = file {
        // Read here and not by figment, which takes a missing file for an empty one.
        std::fs::metadata(path)
            .and_then(|_| std::fs::read_to_string(path))
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let set = |key: &str| std::env::var_os(format!("{PREFIX}{}", key.to_ascii_uppercase()));
    let given: Vec<&str> = keys.iter().map(String::as_str).collect();
    let given: Vec<&str> =
        given.into_iter().filter(|key| set(key).is_some_and(|value| !value.is_empty())).collect();
    Ok(figment
        .merge(Env::prefixed(PREFIX).only(&given))
        .merge(given_flags(&flags.node))
        .merge(given_flags(&flags.ingest))
        .merge(given_flags(&flags.limits))
        .merge(given_flags(&flags.access))
        .merge(given_flags(&flags.dialects))
        .merge(given_flags(&flags.cluster))
        .merge(given_flags(&flags.net))
        .merge(given_flags(&flags.tls))
        .merge(given_flags(&flags.telemetry))
        .merge(given_flags(&flags.discovery)))
}

/// A flag that is not given must not hide what file or environment say.
fn given_flags(section: &impl Serialize) -> Serialized<serde_json::Map<String, serde_json::Value>> {
    let mut given = match serde_json::to_value(section) {
        Ok(serde_json::Value::Object(map)) => map,
        // A section is a plain struct.
        _ => serde_json::Map::new(),
    };
    given.retain(|_, value| !value.is_null());
    Serialized::from(given, Profile::Default)
}

fn extract(figment: &Figment) -> Result<RawConfig, ConfigError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct FileOnly {
        workers: Vec<RawWorker>,
    }
    Ok(RawConfig {
        node: section(figment)?,
        ingest: section(figment)?,
        limits: section(figment)?,
        access: section(figment)?,
        dialects: section(figment)?,
        cluster: section(figment)?,
        net: section(figment)?,
        tls: section(figment)?,
        telemetry: section(figment)?,
        discovery: section(figment)?,
        workers: section::<FileOnly>(figment)?.workers,
    })
}

/// Each section takes its keys out of all: so errors keep the name of their key.
fn section<T: DeserializeOwned>(figment: &Figment) -> Result<T, ConfigError> {
    figment.extract().map_err(|error| ConfigError::Malformed(Box::new(error)))
}

fn refuse_unknown(figment: &Figment, keys: &[String]) -> Result<(), ConfigError> {
    let written: serde_json::Map<String, serde_json::Value> = section(figment)?;
    let Some(key) = written.keys().find(|key| *key != WORKERS && !keys.contains(*key)) else {
        return Ok(());
    };
    let likeness = |known: &&String| strsim::jaro_winkler(known, key);
    let nearest = keys.iter().filter(|known| likeness(known) >= ALIKE);
    let nearest = nearest.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(ConfigError::Unknown { key: key.clone(), origin: origin_of(figment, key), nearest: nearest.cloned() })
}

fn origin_of(figment: &Figment, key: &str) -> String {
    match figment.find_metadata(key) {
        None => "default".into(),
        Some(metadata) => match (&metadata.source, metadata.name.contains("environment")) {
            (_, true) => format!("{PREFIX}{}", key.to_ascii_uppercase()),
            (Some(source), false) if source.file_path().is_some() => source.to_string(),
            _ => format!("--{}", key.replace('_', "-")),
        },
    }
}

fn unknown_variables(keys: &[String]) -> Vec<String> {
    let known = |name: &str| keys.iter().any(|key| key == name) || OTHER_VARIABLES.contains(&name);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names
        .filter(|name| name.strip_prefix(PREFIX).is_some_and(|rest| !known(&rest.to_ascii_lowercase())))
        .collect()
}
