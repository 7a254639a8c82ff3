//! One look at a cluster for people: every pod, what became of it, and what labels there are instead of those that
//! nothing matches. Needs no node.

use std::collections::BTreeMap;
use std::fmt::Write;

use kvindex_core::GapPolicy;
use serde::Serialize;

use super::engines::judge;
use super::kubernetes::{self, Connection};
use super::nearest::{NearTerm, nearest};
use super::verdict::{PodReport, Selection};
use super::view::Failure;
use crate::config::DiscoveryConfig;

/// What there is in a cluster, and what discovery makes of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survey {
    /// The API server.
    pub server: String,
    /// The version that it says of itself, such as `v1.36.2`.
    pub api_version: String,
    /// The namespace; `*` for all.
    pub namespace: String,
    /// What the selectors found.
    pub selection: Selection,
    /// Every pod.
    pub pods: Vec<PodReport>,
    /// The pod selector's terms beside the pods' labels.
    pub pod_terms: Vec<NearTerm>,
    /// The service selector's terms beside the Services' labels.
    pub service_terms: Vec<NearTerm>,
}

/// Why nothing can be said of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n{advice}")]
pub struct SurveyError {
    /// The condition, in one word.
    pub condition: &'static str,
    /// What happened.
    pub message: String,
    /// What can be done.
    pub advice: &'static str,
}

impl From<Failure> for SurveyError {
    fn from(failure: Failure) -> Self {
        let Failure { condition, message } = failure;
        Self { condition: condition.name(), message, advice: condition.advice() }
    }
}

/// Looks at the cluster that KUBECONFIG names, or that this process runs in.
///
/// # Errors
/// When there is none, or it does not answer or allow.
pub async fn survey(config: &DiscoveryConfig) -> Result<Survey, SurveyError> {
    let connection = kubernetes::connect(config).await?;
    Ok(survey_at(&connection, config, GapPolicy::default()).await?)
}

pub(super) async fn survey_at(
    connection: &Connection,
    config: &DiscoveryConfig,
    gap_policy: GapPolicy,
) -> Result<Survey, Failure> {
    let (seen, services) = kubernetes::list_all(connection, config).await?;
    let found = judge(&seen, config, gap_policy);
    let pods: Vec<&BTreeMap<String, String>> = seen.pods.iter().map(|pod| &pod.labels).collect();
    let terms = |selector: &Option<super::Selector>, labels: &[&BTreeMap<String, String>]| {
        selector.as_ref().map(|selector| nearest(selector, labels)).unwrap_or_default()
    };
    Ok(Survey {
        server: connection.server.clone(),
        api_version: connection.version().await?,
        namespace: connection.namespace().to_owned(),
        selection: found.selection,
        pods: found.pods,
        pod_terms: terms(&config.pod_selector, &pods),
        service_terms: terms(&config.service_selector, &services.iter().collect::<Vec<_>>()),
    })
}

impl Survey {
    /// The terms that nothing passes, with what there is instead, as the end of a sentence.
    #[must_use]
    pub fn nearest_text(&self) -> String {
        let mut text = String::new();
        for (kind, terms, there) in [
            ("pod", &self.pod_terms, self.selection.pods),
            ("Service", &self.service_terms, self.selection.services.len()),
        ] {
            for term in terms.iter().filter(|term| term.matching == 0) {
                let _ = write!(text, "; {} ({kind}): {}", term.term, term.there_is);
            }
            if kind == "pod" && there == 0 {
                text.push_str("; the namespace has no pods: is it the right one (discovery_namespace)?");
            }
        }
        text
    }
}
