//! What became of each pod and why, in words for people and fields for programs.

use serde::Serialize;

use super::seen::Pod;

/// One pod, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodReport {
    /// Namespace and name.
    pub pod: String,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The pod selector selects it.
    pub by_pod_selector: bool,
    /// Selected Services that it is behind.
    pub services: Vec<String>,
    /// Its role; empty unless it is an engine's.
    pub role: String,
    /// It says that it can serve.
    pub ready: bool,
    /// Where its ranks publish.
    pub streams: Vec<String>,
    /// What is odd, although it is no obstacle.
    pub notes: Vec<String>,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It is an engine.
    Engine {
        /// The worker's name.
        worker: String,
    },
    /// No selector selects it.
    NotSelected {
        /// The terms that fail.
        failed: Vec<String>,
    },
    /// It is selected, and has no port that publishes: a proxy, or an engine whose port has another name.
    NoPort {
        /// What is there instead.
        reason: String,
    },
    /// It will be an engine.
    NotYet {
        /// What it waits for.
        reason: String,
    },
    /// It was one.
    Gone {
        /// Why it is none any more.
        reason: String,
    },
    /// What it says of itself cannot be used.
    Refused {
        /// What is wrong.
        reason: String,
    },
}

impl PodReport {
    pub(super) fn of(pod: &Pod) -> Self {
        Self {
            pod: pod.name.to_string(),
            verdict: Verdict::NotSelected { failed: Vec::new() },
            by_pod_selector: false,
            services: Vec::new(),
            role: String::new(),
            ready: pod.ready,
            streams: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether a selector selects it.
    #[must_use]
    pub fn is_selected(&self) -> bool {
        self.by_pod_selector || !self.services.is_empty()
    }

    /// Whether it is an engine.
    #[must_use]
    pub fn is_engine(&self) -> bool {
        matches!(self.verdict, Verdict::Engine { .. })
    }

    pub(super) fn namespace(&self) -> &str {
        self.pod.split('/').next().unwrap_or_default()
    }
}

impl Verdict {
    /// One word, for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Engine { .. } => "engine",
            Self::NotSelected { .. } => "not_selected",
            Self::NoPort { .. } => "no_port",
            Self::NotYet { .. } => "not_yet",
            Self::Gone { .. } => "gone",
            Self::Refused { .. } => "refused",
        }
    }

    /// Words of all verdicts on selected pods.
    pub const OF_SELECTED: [&'static str; 5] = ["engine", "no_port", "not_yet", "gone", "refused"];

    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Engine { worker } => worker.clone(),
            Self::NotSelected { failed } => failed.join("; "),
            Self::NoPort { reason }
            | Self::NotYet { reason }
            | Self::Gone { reason }
            | Self::Refused { reason } => reason.clone(),
        }
    }
}

/// What the selectors found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// The pod selector.
    pub pod_selector: Option<String>,
    /// The service selector.
    pub service_selector: Option<String>,
    /// Pods that were looked at.
    pub pods: usize,
    /// Pods that a selector selects.
    pub selected: usize,
    /// Engines among them.
    pub engines: usize,
    /// Services that the service selector selects.
    pub services: Vec<ServiceReport>,
}

/// One selected Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceReport {
    /// Namespace and name.
    pub service: String,
    /// Pods behind it.
    pub pods: usize,
    /// Engines among them.
    pub engines: usize,
    /// Endpoints behind it that are no pods.
    pub others: usize,
}

impl Selection {
    /// Why no engine was found, and what to do; `None` when one was.
    #[must_use]
    pub fn why_nothing(&self) -> Option<String> {
        if self.engines > 0 {
            return None;
        }
        if self.selected > 0 {
            let proxies: Vec<&str> =
                self.services.iter().filter(|s| s.pods > 0).map(|s| s.service.as_str()).collect();
            let only_services = self.pod_selector.is_none() && !proxies.is_empty();
            return Some(if only_services {
                format!(
                    "Service {} selects {} pods, and none is an engine: in prefill-decode mode a Service often fronts \
                     the proxy only, then say discovery_pod_selector",
                    proxies.join(", "),
                    self.selected
                )
            } else {
                format!("{} pods are selected, and none is an engine", self.selected)
            });
        }
        let mut parts = Vec::new();
        if let Some(selector) = &self.pod_selector {
            parts.push(format!("no pod matches {selector}"));
        }
        if let Some(selector) = &self.service_selector {
            let empty: Vec<&str> = self.services.iter().map(|s| s.service.as_str()).collect();
            parts.push(if empty.is_empty() {
                format!("no Service matches {selector}")
            } else {
                format!("no pod is behind Service {}", empty.join(", "))
            });
        }
        Some(parts.join("; "))
    }
}
