//! Whether discovery could work: the API server, its version, the rights, and what the selectors find.

use kvindex_server::config::DiscoveryConfig;
use kvindex_server::discovery::{Survey, survey};

use super::finding::{Finding, Findings};

/// The oldest minor version of Kubernetes 1 that is supported.
const OLDEST_MINOR: u32 = 33;

pub(super) async fn examine(config: &DiscoveryConfig, findings: &mut Findings) {
    if !config.enabled {
        return findings.note(Finding::skipped("kubernetes", "discovery is off"));
    }
    match survey(config).await {
        Err(error) => findings.note(Finding::wrong("kubernetes", error.message, error.advice)),
        Ok(survey) => {
            version(&survey, findings);
            found(&survey, findings);
        }
    }
}

fn version(survey: &Survey, findings: &mut Findings) {
    let Survey { server, api_version, .. } = survey;
    let what = format!("{server} speaks {api_version}");
    // Such as v1.33.2 or v1.34.1-gke.100.
    let mut numbers = api_version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
    findings.note(match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(1), Some(minor)) if minor < OLDEST_MINOR => {
            let next = format!("Kubernetes 1.{OLDEST_MINOR} and later are supported");
            Finding::wrong("kubernetes", what, next)
        }
        (Some(_), Some(_)) => Finding::well("kubernetes", what),
        _ => {
            Finding::doubtful("kubernetes", what, "its version cannot be read; 1.33 and later are supported")
        }
    });
}

fn found(survey: &Survey, findings: &mut Findings) {
    let selection = &survey.selection;
    let what = format!(
        "{} pods in namespace {}, {} selected, {} engines",
        selection.pods, survey.namespace, selection.selected, selection.engines
    );
    let next = "`kvindex discover --explain` says of each pod what it lacks";
    findings.note(match selection.why_nothing() {
        Some(why) => {
            let near = survey.nearest_text();
            Finding::wrong("discovery", format!("{what}: {why}{near}; {}", crate::discover::KEEPS), next)
        }
        None if selection.engines < selection.selected => Finding::doubtful("discovery", what, next),
        None => Finding::well("discovery", what),
    });
}
