//! `kvindex explain`: where each worker's match ends, and why.

mod bar;
mod tree;

use clap::Args;
use kvindex_client::v1;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::paint::Paint;
use crate::prompt::{FilterArgs, PromptArgs};
use crate::{failure, output, tables};

/// Ask where each worker's match ends, and why.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// A row for each worker and rank instead of the tree
    #[arg(long)]
    table: bool,
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
        Output::Table if args.table => output::line(&tables::explanations(&response))?,
        Output::Table => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            output::coloured(&tree::draw(&response, &Paint::of_stdout(), now_ms))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
