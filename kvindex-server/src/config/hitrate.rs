//! What hit rates are asked by and answered in. Nothing about that call is public, so all of it can be set.

use std::net::SocketAddr;

use super::check::Checker;
use super::dialects::RawDialects;
use super::{ConfigError, Shown, text};

/// Longest path or name of a field.
const MAX_LEN: usize = 128;

/// Paths that other calls have, ours and other dialects'.
const TAKEN: [&str; 19] = [
    "/metrics",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/health",
    "/lookup",
    "/query",
    "/query_by_hash",
    "/query_tiered_by_hash",
    "/register",
    "/unregister",
    "/services",
    "/global_view",
    "/workers",
    "/dump",
    "/peers",
    "/register_peer",
    "/deregister_peer",
    "/reopen_logs",
];

/// How paths begin that other calls have.
const TAKEN_BEGINNINGS: [&str; 5] = ["/v1/", "/kvindex.", "/kv_indexer.", "/indexer.", "/ui"];

/// How hit rates are asked for, and in what form they are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HitRateConfig {
    /// Where; empty for nowhere.
    pub path: String,
    /// Field that names the model.
    pub model_field: String,
    /// Field that holds the token ids.
    pub tokens_field: String,
    /// Field that lists the pods asked about.
    pub pods_field: String,
    /// Whether the answer is a list of objects; a map otherwise.
    pub is_list: bool,
    /// What pods are called.
    pub key: HitRateKey,
    /// What is said of each.
    pub value: HitRateValue,
    /// Only workers of this role; empty for all.
    pub role: String,
}

/// What a pod is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HitRateKey {
    /// Its address and port.
    #[default]
    Address,
    /// Its address.
    PodIp,
    /// Its name in Kubernetes.
    PodName,
}

/// What is said of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HitRateValue {
    /// The part of the prompt that it holds, from 0 to 1.
    #[default]
    Rate,
    /// The part that it does not hold.
    NotRate,
    /// Tokens that it holds.
    Tokens,
}

const FORMS: [(&str, bool); 2] = [("map", false), ("list", true)];

const KEYS: [(&str, HitRateKey); 3] =
    [("address", HitRateKey::Address), ("pod_ip", HitRateKey::PodIp), ("pod_name", HitRateKey::PodName)];

const VALUES: [(&str, HitRateValue); 3] =
    [("rate", HitRateValue::Rate), ("not_rate", HitRateValue::NotRate), ("tokens", HitRateValue::Tokens)];

impl HitRateKey {
    /// What a pod of this address, `ip:port`, and this name is called; `None` when that is not known.
    #[must_use]
    pub fn of(self, address: Option<&str>, pod: Option<&str>) -> Option<String> {
        match self {
            Self::Address => address.map(str::to_owned),
            Self::PodName => pod.map(str::to_owned),
            Self::PodIp => {
                let parsed = address?.parse::<SocketAddr>().map(|parsed| parsed.ip().to_string());
                let host = || Some(address?.rsplit_once(':')?.0.to_owned());
                parsed.ok().or_else(host)
            }
        }
    }
}

impl Checker<'_> {
    pub(super) fn hitrate(&self, raw: &RawDialects) -> Result<HitRateConfig, ConfigError> {
        let path = raw.dialect_hitrate.clone().unwrap_or_default();
        self.path(&path)?;
        let field = |key: &str, value: &Option<String>, default: &str| {
            let value = value.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| default.into());
            if value.len() > MAX_LEN {
                return Err(self.invalid(key, &value, &format!("must have at most {MAX_LEN} bytes")));
            }
            Ok(value)
        };
        let config = HitRateConfig {
            path,
            model_field: field("dialect_hitrate_model_field", &raw.dialect_hitrate_model_field, "model")?,
            tokens_field: field(
                "dialect_hitrate_tokens_field",
                &raw.dialect_hitrate_tokens_field,
                "token_ids",
            )?,
            pods_field: field("dialect_hitrate_pods_field", &raw.dialect_hitrate_pods_field, "pods")?,
            is_list: self.word("dialect_hitrate_answer", raw.dialect_hitrate_answer.as_deref(), &FORMS)?,
            key: self.word("dialect_hitrate_key", raw.dialect_hitrate_key.as_deref(), &KEYS)?,
            value: self.word("dialect_hitrate_value", raw.dialect_hitrate_value.as_deref(), &VALUES)?,
            role: raw.dialect_hitrate_role.clone().unwrap_or_else(|| "prefill".into()),
        };
        let fields = [&config.model_field, &config.tokens_field, &config.pods_field];
        if fields.iter().enumerate().any(|(i, field)| fields.iter().skip(i + 1).any(|other| other == field)) {
            let (key, value) = ("dialect_hitrate_tokens_field", &config.tokens_field);
            return Err(self.invalid(key, value, "the fields of a hit rate's request must differ"));
        }
        Ok(config)
    }

    fn path(&self, path: &str) -> Result<(), ConfigError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
        let reason = if path.is_empty() {
            return Ok(());
        } else if !path.starts_with('/') || path.len() < 2 || !path.chars().all(is_plain) {
            "must be a path such as /hitrate, of letters, digits and the signs / _ - ."
        } else if path.len() > MAX_LEN {
            "must have at most 128 bytes"
        } else if TAKEN.contains(&path) || TAKEN_BEGINNINGS.iter().any(|taken| path.starts_with(taken)) {
            "other calls have this path"
        } else {
            return Ok(());
        };
        Err(self.invalid("dialect_hitrate", path, reason))
    }
}

/// The values in effect.
pub(super) fn shown(config: &HitRateConfig) -> Shown {
    fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> String {
        text(words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word))
    }
    vec![
        ("dialect_hitrate", text(&config.path)),
        ("dialect_hitrate_model_field", text(&config.model_field)),
        ("dialect_hitrate_tokens_field", text(&config.tokens_field)),
        ("dialect_hitrate_pods_field", text(&config.pods_field)),
        ("dialect_hitrate_answer", word(&FORMS, &config.is_list)),
        ("dialect_hitrate_key", word(&KEYS, &config.key)),
        ("dialect_hitrate_value", word(&VALUES, &config.value)),
        ("dialect_hitrate_role", text(&config.role)),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_path_is_its_own() {
        for path in ["hitrate", "/", "/a b", "/{x}", "/v1/match", "/metrics", "/query", "/lookup"] {
            let refused = Config::of_text(&format!("dialect_hitrate = \"{path}\"")).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("dialect_hitrate = {path} (text)")), "{refused}");
        }
        assert_eq!(
            Config::of_text("dialect_hitrate = \"/v2/hit\"").unwrap().dialects.hitrate.path,
            "/v2/hit"
        );
        let same = Config::of_text("dialect_hitrate_pods_field = \"model\"").unwrap_err().to_string();
        assert!(same.contains("must differ"), "{same}");
    }

    #[test]
    fn pods_are_called_by_address_ip_or_name() {
        let of = |key: HitRateKey, address| key.of(Some(address), Some("p-0")).unwrap();
        assert_eq!(of(HitRateKey::Address, "10.0.0.7:8000"), "10.0.0.7:8000");
        assert_eq!(of(HitRateKey::PodIp, "10.0.0.7:8000"), "10.0.0.7");
        assert_eq!(of(HitRateKey::PodIp, "[fd00::7]:8000"), "fd00::7");
        assert_eq!(of(HitRateKey::PodIp, "vllm.ns:8000"), "vllm.ns");
        assert_eq!(of(HitRateKey::PodName, "10.0.0.7:8000"), "p-0");
        assert_eq!(HitRateKey::PodName.of(Some("10.0.0.7:8000"), None), None);
    }
}
