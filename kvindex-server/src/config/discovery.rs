//! The keys of discovery: where engines are looked for, how they are told from other pods, and what their labels say.

use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;
use std::time::Duration;

use kvindex_core::DEFAULT_TENANT;

use super::check::Checker;
use super::{Config, ConfigError, Shown, text};
use crate::discovery::Selector;
use crate::net::IpFamily;

/// Seconds between two complete lists: the watch tells everything as it happens, so this only bounds how long a
/// change can stay unseen that the watch lost.
const DEFAULT_RESYNC_S: u64 = 60;
/// Longest time between two complete lists.
const MAX_RESYNC_S: u64 = 86_400;
/// Longest name of a port, as Kubernetes has it.
const MAX_PORT_NAME: usize = 15;

/// Engines found in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawDiscovery {
    /// Where engines are looked for: off or kubernetes [default: off].
    #[arg(long, value_name = "WHERE", help_heading = "Discovery")]
    pub discovery: Option<String>,
    /// File that says how the API server is reached [default: KUBECONFIG, ~/.kube/config, the pod's own account].
    #[arg(long, value_name = "PATH", help_heading = "Discovery")]
    pub discovery_kubeconfig: Option<String>,
    /// Namespace to look in; * for all [default: the node's own].
    #[arg(long, value_name = "NAMESPACE", help_heading = "Discovery")]
    #[serde(deserialize_with = "text_or_number")]
    pub discovery_namespace: Option<String>,
    /// Labels of Services whose pods are engines, such as a=b,c=d.
    #[arg(long, value_name = "SELECTOR", help_heading = "Discovery")]
    #[serde(deserialize_with = "text_or_number")]
    pub discovery_service_selector: Option<String>,
    /// Labels of pods that are engines; with a service selector too, what either selects.
    #[arg(long, value_name = "SELECTOR", help_heading = "Discovery")]
    #[serde(deserialize_with = "text_or_number")]
    pub discovery_pod_selector: Option<String>,
    /// Between two complete lists, in seconds or as 30s, 5m, 1h [default: 60s].
    #[arg(long, value_name = "DURATION", help_heading = "Discovery")]
    #[serde(deserialize_with = "text_or_number")]
    pub discovery_resync: Option<String>,
    /// Name of the port on which engines publish events [default: zmq-pub].
    #[arg(long, value_name = "NAME", help_heading = "Discovery")]
    pub discovery_port_name: Option<String>,
    /// Name of the port from which they replay lost ones [default: zmq-replay].
    #[arg(long, value_name = "NAME", help_heading = "Discovery")]
    pub discovery_replay_port_name: Option<String>,
    /// Number of the publishing port where none has the name; 0 for none [default: 0].
    #[arg(long, value_name = "PORT", help_heading = "Discovery")]
    pub discovery_port: Option<u64>,
    /// Number of the replaying port where none has the name; 0 for none [default: 0].
    #[arg(long, value_name = "PORT", help_heading = "Discovery")]
    pub discovery_replay_port: Option<u64>,
    /// Name of the port that takes requests: the address that answers carry [default: http].
    #[arg(long, value_name = "NAME", help_heading = "Discovery")]
    pub discovery_http_port_name: Option<String>,
    /// Label that says which engine a pod runs: vllm or sglang [default: openfuyao.com/engine].
    #[arg(long, value_name = "KEY", help_heading = "Discovery")]
    pub discovery_label_engine: Option<String>,
    /// Label or annotation with the model's name [default: openfuyao.com/model].
    #[arg(long, value_name = "KEY", help_heading = "Discovery")]
    pub discovery_label_model: Option<String>,
    /// Label with the role: aggregate, prefill or decode [default: openfuyao.com/pdRole].
    #[arg(long, value_name = "KEY", help_heading = "Discovery")]
    pub discovery_label_role: Option<String>,
    /// Label with the prefill-decode group [default: openfuyao.com/pdGroupID].
    #[arg(long, value_name = "KEY", help_heading = "Discovery")]
    pub discovery_label_group: Option<String>,
    /// Label with the number of data-parallel ranks in the pod [default: openfuyao.com/dpSize].
    #[arg(long, value_name = "KEY", help_heading = "Discovery")]
    pub discovery_label_dp_size: Option<String>,
    /// Label with the tensor-parallel size, which is passed on only [default: openfuyao.com/tpSize].
    #[arg(long, value_name = "KEY", help_heading = "Discovery")]
    pub discovery_label_tp_size: Option<String>,
    /// Tenant of the engines that are found [default: default].
    #[arg(long, value_name = "TENANT", help_heading = "Discovery")]
    #[serde(deserialize_with = "text_or_number")]
    pub discovery_tenant: Option<String>,
    /// Which address is taken where a pod, or this node, has several: any, ipv4 or ipv6 [default: any].
    #[arg(long, value_name = "FAMILY", help_heading = "Discovery")]
    pub ip_family: Option<String>,
}

/// How engines are found in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// Whether they are.
    pub enabled: bool,
    /// How the API server is reached; `None` for what the environment says.
    pub kubeconfig: Option<PathBuf>,
    /// Where to look; `None` for the node's own namespace, `*` for all.
    pub namespace: Option<String>,
    /// Services whose pods are engines.
    pub service_selector: Option<Selector>,
    /// Pods that are engines.
    pub pod_selector: Option<Selector>,
    /// Between two complete lists.
    pub resync: Duration,
    /// How an engine's ports are told.
    pub ports: PortSettings,
    /// Which labels say what.
    pub labels: LabelKeys,
    /// The tenant of engines that are found.
    pub tenant: String,
    /// Which of a pod's addresses is taken.
    pub family: IpFamily,
}

/// How an engine's ports are told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSettings {
    /// Name of the port that publishes.
    pub publish: String,
    /// Name of the port that replays.
    pub replay: String,
    /// Name of the port that takes requests.
    pub http: String,
    /// Number of the publishing port where none has the name.
    pub publish_number: Option<u16>,
    /// Number of the replaying port where none has the name.
    pub replay_number: Option<u16>,
}

/// Which labels say what of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelKeys {
    /// `vllm` or `sglang`.
    pub engine: String,
    /// Its model.
    pub model: String,
    /// Its role.
    pub role: String,
    /// Its prefill-decode group.
    pub group: String,
    /// Its data-parallel ranks.
    pub dp_size: String,
    /// Its tensor-parallel size.
    pub tp_size: String,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        let own = |name: &str| format!("openfuyao.com/{name}");
        Self {
            enabled: false,
            kubeconfig: None,
            namespace: None,
            service_selector: None,
            pod_selector: None,
            resync: Duration::from_secs(DEFAULT_RESYNC_S),
            ports: PortSettings {
                publish: "zmq-pub".into(),
                replay: "zmq-replay".into(),
                http: "http".into(),
                publish_number: None,
                replay_number: None,
            },
            labels: LabelKeys {
                engine: own("engine"),
                model: own("model"),
                role: own("pdRole"),
                group: own("pdGroupID"),
                dp_size: own("dpSize"),
                tp_size: own("tpSize"),
            },
            tenant: DEFAULT_TENANT.into(),
            family: IpFamily::Any,
        }
    }
}

impl Checker<'_> {
    pub(super) fn discovery(&self, raw: &RawDiscovery) -> Result<DiscoveryConfig, ConfigError> {
        let defaults = DiscoveryConfig::default();
        let words = [("off", false), ("kubernetes", true)];
        let config = DiscoveryConfig {
            enabled: self.word("discovery", raw.discovery.as_deref(), &words)?,
            kubeconfig: present(raw.discovery_kubeconfig.as_ref()).map(PathBuf::from),
            namespace: present(raw.discovery_namespace.as_ref()),
            service_selector: self
                .selector("discovery_service_selector", raw.discovery_service_selector.as_ref())?,
            pod_selector: self.selector("discovery_pod_selector", raw.discovery_pod_selector.as_ref())?,
            resync: self.resync(raw.discovery_resync.as_deref(), defaults.resync)?,
            ports: self.port_settings(raw, defaults.ports)?,
            labels: label_keys(raw, defaults.labels),
            tenant: present(raw.discovery_tenant.as_ref()).unwrap_or(defaults.tenant),
            family: self.word("ip_family", raw.ip_family.as_deref(), &IpFamily::ALL)?,
        };
        if config.enabled && config.service_selector.is_none() && config.pod_selector.is_none() {
            let reason = "needs discovery_pod_selector or discovery_service_selector, or both: without them every pod \
                          would be taken for an engine";
            return Err(self.invalid("discovery", "kubernetes", reason));
        }
        Ok(config)
    }

    fn selector(&self, key: &str, text: Option<&String>) -> Result<Option<Selector>, ConfigError> {
        let Some(text) = present(text) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|error: crate::discovery::SelectorError| self.invalid(key, &text, &error.to_string()))
    }

    fn resync(&self, text: Option<&str>, default: Duration) -> Result<Duration, ConfigError> {
        let Some(text) = text else { return Ok(default) };
        let refused = || {
            let reason = format!("must be from 1 to {MAX_RESYNC_S} seconds, or so much as 30s, 5m or 1h");
            self.invalid("discovery_resync", text, &reason)
        };
        let seconds = seconds(text).ok_or_else(refused)?;
        if (1..=MAX_RESYNC_S).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(refused()) }
    }

    fn port_settings(&self, raw: &RawDiscovery, defaults: PortSettings) -> Result<PortSettings, ConfigError> {
        let name = |key: &str, text: &Option<String>, default: String| match present(text.as_ref()) {
            None => Ok(default),
            Some(name) if name.len() <= MAX_PORT_NAME => Ok(name),
            Some(name) => {
                let reason = format!(
                    "a port's name has at most {MAX_PORT_NAME} characters; for a number use discovery_port"
                );
                Err(self.invalid(key, &name, &reason))
            }
        };
        let number = |key: &str, value: Option<u64>| {
            let port: u16 = self.number(key, value, 0, 0..=65_535)?;
            Ok::<_, ConfigError>(Some(port).filter(|port| *port > 0))
        };
        Ok(PortSettings {
            publish: name("discovery_port_name", &raw.discovery_port_name, defaults.publish)?,
            replay: name("discovery_replay_port_name", &raw.discovery_replay_port_name, defaults.replay)?,
            http: name("discovery_http_port_name", &raw.discovery_http_port_name, defaults.http)?,
            publish_number: number("discovery_port", raw.discovery_port)?,
            replay_number: number("discovery_replay_port", raw.discovery_replay_port)?,
        })
    }
}

fn label_keys(raw: &RawDiscovery, defaults: LabelKeys) -> LabelKeys {
    let key = |text: &Option<String>, default: String| present(text.as_ref()).unwrap_or(default);
    LabelKeys {
        engine: key(&raw.discovery_label_engine, defaults.engine),
        model: key(&raw.discovery_label_model, defaults.model),
        role: key(&raw.discovery_label_role, defaults.role),
        group: key(&raw.discovery_label_group, defaults.group),
        dp_size: key(&raw.discovery_label_dp_size, defaults.dp_size),
        tp_size: key(&raw.discovery_label_tp_size, defaults.tp_size),
    }
}

fn present(text: Option<&String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Seconds, or a number with `s`, `m` or `h`.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The environment has no types: `30` and `true` come as a number and a truth value.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(i64),
        Truth(bool),
    }
    Ok(Option::<Written>::deserialize(deserializer)?.map(|written| match written {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
        Written::Truth(truth) => truth.to_string(),
    }))
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let discovery = &config.discovery;
    let selector =
        |selector: &Option<Selector>| text(selector.as_ref().map_or_else(String::new, ToString::to_string));
    let number = |port: Option<u16>| port.unwrap_or(0).to_string();
    let kubeconfig =
        discovery.kubeconfig.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let (ports, labels) = (&discovery.ports, &discovery.labels);
    vec![
        ("discovery", text(if discovery.enabled { "kubernetes" } else { "off" })),
        ("discovery_kubeconfig", text(kubeconfig)),
        ("discovery_namespace", text(discovery.namespace.as_deref().unwrap_or(""))),
        ("discovery_service_selector", selector(&discovery.service_selector)),
        ("discovery_pod_selector", selector(&discovery.pod_selector)),
        ("discovery_resync", text(format!("{}s", discovery.resync.as_secs()))),
        ("discovery_port_name", text(&ports.publish)),
        ("discovery_replay_port_name", text(&ports.replay)),
        ("discovery_port", number(ports.publish_number)),
        ("discovery_replay_port", number(ports.replay_number)),
        ("discovery_http_port_name", text(&ports.http)),
        ("discovery_label_engine", text(&labels.engine)),
        ("discovery_label_model", text(&labels.model)),
        ("discovery_label_role", text(&labels.role)),
        ("discovery_label_group", text(&labels.group)),
        ("discovery_label_dp_size", text(&labels.dp_size)),
        ("discovery_label_tp_size", text(&labels.tp_size)),
        ("discovery_tenant", text(&discovery.tenant)),
        ("ip_family", text(discovery.family.name())),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::RawConfig;

    fn checked(raw: &RawDiscovery) -> Result<DiscoveryConfig, String> {
        let raw = RawConfig { discovery: raw.clone(), ..RawConfig::default() };
        raw.check(&|_| "test".into()).map(|config| config.discovery).map_err(|error| error.to_string())
    }

    #[test]
    fn a_duration_is_seconds_or_has_a_unit() {
        for (text, expected) in [("30", 30), ("30s", 30), ("5m", 300), ("1h", 3600), (" 7 ", 7)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "s", "30ms", "1.5s", "-1", "1d", "99999999999999999999h"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn discovery_needs_a_selector() {
        let on = RawDiscovery { discovery: Some("kubernetes".into()), ..RawDiscovery::default() };
        assert!(checked(&on).unwrap_err().contains("discovery_pod_selector"));
        let with = RawDiscovery { discovery_pod_selector: Some("app=vllm".into()), ..on };
        assert!(checked(&with).unwrap().enabled);
        let empty = RawDiscovery { discovery_pod_selector: Some(" ".into()), ..with };
        assert!(checked(&empty).is_err(), "an empty selector selects nothing here, not everything");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let raw = RawDiscovery::default;
        let text = |text: &str| Some(text.to_owned());
        for (raw, part) in [
            (RawDiscovery { discovery: text("consul"), ..raw() }, "off, kubernetes"),
            (RawDiscovery { discovery_pod_selector: text("a=/"), ..raw() }, "discovery_pod_selector = a=/"),
            (RawDiscovery { discovery_resync: text("0"), ..raw() }, "from 1 to 86400"),
            (RawDiscovery { discovery_resync: text("soon"), ..raw() }, "30s, 5m or 1h"),
            (RawDiscovery { discovery_port: Some(70_000), ..raw() }, "from 0 to 65535"),
            (RawDiscovery { discovery_port_name: text("a-name-that-is-too-long"), ..raw() }, "15 characters"),
        ] {
            let message = checked(&raw).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn numbers_of_the_environment_are_taken_as_texts() {
        let raw: RawDiscovery =
            serde_json::from_str(r#"{"discovery_resync": 30, "discovery_tenant": true}"#).unwrap();
        assert_eq!(
            (raw.discovery_resync.as_deref(), raw.discovery_tenant.as_deref()),
            (Some("30"), Some("true"))
        );
    }
}
