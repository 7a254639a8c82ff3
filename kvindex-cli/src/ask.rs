//! `kvindex match`: which workers hold how long a prefix of a prompt.

use clap::Args;
use kvindex_client::{Answer, v1};
use std::process::ExitCode;

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::prompt::{FilterArgs, PromptArgs};
use crate::{failure, output, tables};

/// Ask which workers hold how long a prefix of a prompt.
#[derive(Debug, Args)]
pub(crate) struct MatchArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Leave out workers with fewer matched blocks than this
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Filter")]
    min_blocks: u32,
    /// Also name the best prefill and decode worker of each prefill-decode group
    #[arg(long, help_heading = "Filter")]
    rollup: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: MatchArgs, format: Output) -> anyhow::Result<ExitCode> {
    let request = v1::MatchRequest {
        prompt: Some(args.prompt.message()?),
        labels: args.filter.labels(),
        candidates: args.filter.candidates,
        role: args.filter.role,
        pd_group: args.filter.group,
        tier: args.filter.tier,
        top_k: args.filter.top,
        min_matched_blocks: args.min_blocks,
        group_rollup: args.rollup,
        consistency: args.filter.consistency.unwrap_or_default(),
        report_applied: false,
    };
    let answer = with_client(&args.server, async |client| Ok(client.match_prompt(request).await))?;
    let response = match answer {
        Answer::Known(response) => response,
        Answer::Unknown { reason } => return Err(failure::of_unknown(&args.server.server, &reason)),
    };
    match format {
        Output::Json => output::json_line(&response)?,
        Output::Table => output::line(&tables::matches(&response))?,
    }
    Ok(ExitCode::SUCCESS)
}
