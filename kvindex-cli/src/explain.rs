//! `kvindex explain`: where each worker's match ends, and why.

use clap::Args;
use kvindex_client::v1;
use std::process::ExitCode;

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::prompt::{FilterArgs, PromptArgs};
use crate::{failure, output, tables};

/// Ask where each worker's match ends, and why.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: ExplainArgs, format: Output) -> anyhow::Result<ExitCode> {
    let request = v1::ExplainRequest {
        prompt: Some(args.prompt.message()?),
        labels: args.filter.labels(),
        candidates: args.filter.candidates,
        role: args.filter.role,
        pd_group: args.filter.group,
        tier: args.filter.tier,
        top_k: args.filter.top,
        consistency: args.filter.consistency.unwrap_or_default(),
    };
    let response = with_client(&args.server, async |client| {
        client.explain(request).await.map_err(|error| failure::of_call(&args.server.server, error))
    })?;
    match format {
        Output::Json => output::json_line(&response)?,
        Output::Table => output::line(&tables::explanations(&response))?,
    }
    Ok(ExitCode::SUCCESS)
}
