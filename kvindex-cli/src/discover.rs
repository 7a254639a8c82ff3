//! `kvindex discover`: which engines a node would find in Kubernetes, and why not others. Asks the API server itself,
//! so it needs no node.

use anyhow::Context;
use clap::Args;
use kvindex_server::config::{DiscoveryConfig, RawDiscovery};
use kvindex_server::discovery::{NearTerm, PodReport, Selection, Survey, SurveyError, survey};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::args::Output;
use crate::failure::{self, Failure};
use crate::{output, tables};

/// Show which engines would be found in the cluster that KUBECONFIG names, or that this runs in.
#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// Configuration file of a node; its discovery_* keys are taken, and KVINDEX_DISCOVERY_* variables and flags win
    #[arg(long, value_name = "PATH", env = "KVINDEX_CONFIG")]
    config: Option<PathBuf>,
    /// Show every pod, and for each that is no engine which term or label is at fault
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    settings: RawDiscovery,
}

/// Exit status 0 when an engine was found, 1 when none was.
pub(crate) fn run(args: &DiscoverArgs, format: Output) -> anyhow::Result<ExitCode> {
    let config = DiscoveryConfig::load(args.config.as_deref(), &args.settings)
        .map_err(|error| failure::usage(format!("configuration: {error}")))?;
    if config.pod_selector.is_none() && config.service_selector.is_none() {
        let text =
            "say which pods are engines: --discovery-pod-selector, --discovery-service-selector, or both";
        return Err(failure::usage(text));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let survey = runtime.block_on(survey(&config)).map_err(failed)?;
    match format {
        Output::Json => output::json_line(&survey)?,
        Output::Table => output::line(&as_text(&survey, args.explain))?,
    }
    let found = survey.selection.engines > 0;
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn failed(error: SurveyError) -> anyhow::Error {
    match error.condition {
        "not_configured" => failure::usage(error.to_string()),
        "unreachable" => Failure::NoApiServer(error.to_string()).into(),
        _ => error.into(),
    }
}

/// What a running node makes of settings that find nothing.
pub(crate) const KEEPS: &str =
    "a node that takes such settings keeps the workers it knows for one discovery_resync, then forgets them";

fn as_text(survey: &Survey, explain: bool) -> String {
    let Survey { server, namespace, selection, pods, .. } = survey;
    let mut text = format!("{server} namespace {namespace}\n");
    selectors(&mut text, selection);
    let shown: Vec<&PodReport> = pods.iter().filter(|report| explain || report.is_engine()).collect();
    if !shown.is_empty() {
        let _ = writeln!(text, "\n{}\n", rows(&shown));
    }
    let Selection { pods, selected, engines, .. } = selection;
    let _ = write!(text, "{pods} pods, {selected} selected, {engines} engines");
    if let Some(why) = selection.why_nothing() {
        let _ = write!(text, "\n{why}\n{KEEPS}");
    }
    near(&mut text, "pod", &survey.pod_terms);
    near(&mut text, "Service", &survey.service_terms);
    if !explain && engines < selected {
        text.push_str("\n--explain says what the other selected pods lack");
    }
    text
}

fn selectors(text: &mut String, selection: &Selection) {
    if let Some(selector) = &selection.pod_selector {
        let _ = writeln!(text, "pods that match {selector}");
    }
    if let Some(selector) = &selection.service_selector {
        let _ = writeln!(text, "pods behind Services that match {selector}");
    }
    for service in &selection.services {
        let _ = write!(text, "  {}: {} pods, {} engines", service.service, service.pods, service.engines);
        if service.others > 0 {
            let _ = write!(text, ", {} endpoints that are no pods", service.others);
        }
        text.push('\n');
    }
}

fn rows(reports: &[&PodReport]) -> String {
    let mut rows = tables::table(&["pod", "verdict", "role", "ready", "streams", "why"]);
    for report in reports {
        let mut why = vec![report.verdict.reason()];
        why.extend(report.notes.iter().cloned());
        let streams = match report.streams.as_slice() {
            [] => "-".to_owned(),
            [only] => only.clone(),
            [first, .., last] => format!("{first} to {last}"),
        };
        let role = if report.role.is_empty() { "-" } else { &report.role };
        let ready = if report.ready { "yes" } else { "no" };
        let why = why.join("; ");
        rows.add_row([&report.pod, report.verdict.word(), role, ready, &streams, &why].map(tables::cell));
    }
    tables::lines(&rows)
}

/// Terms that nothing passes; of a selector whose terms pass one by one only, all.
fn near(text: &mut String, kind: &str, terms: &[NearTerm]) {
    for term in terms.iter().filter(|term| term.matching == 0) {
        let _ = write!(text, "\n{} ({kind}): {}", term.term, term.there_is);
    }
}
