//! `kvindex watch`: changes of the index as they happen, one line each.

use anyhow::Context;
use clap::Args;
use kvindex_client::v1;
use std::process::ExitCode;

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::failure::{self, Failure};
use crate::output;

/// Watch changes of the index as they happen.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only this worker; repeatable
    #[arg(long = "worker", value_name = "ID")]
    workers: Vec<String>,
    /// Only workers of this model
    #[arg(long)]
    model: Option<String>,
    /// End after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: WatchArgs, format: Output) -> anyhow::Result<ExitCode> {
    let server = args.server.server.as_str();
    let request = v1::WatchRequest { worker_ids: args.workers, model: args.model };
    with_client(&args.server, async |client| {
        let mut watcher = client.watch(request).await.map_err(|error| failure::of_call(server, error))?;
        // Said once it is true, on the channel that is not data.
        eprintln!("watching {server}, Ctrl-C ends");
        let mut left = args.count;
        while left != Some(0) {
            let event = tokio::select! {
                event = watcher.next() => event.map_err(|error| failure::of_call(server, error))?,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted.context("cannot wait for Ctrl-C")?;
                    return Ok(());
                }
            };
            let Some(event) = event else {
                let reason = "the server ended the watch".into();
                return Err(Failure::Unreachable { server: server.to_owned(), reason }.into());
            };
            match format {
                Output::Json => output::json_line(&event)?,
                Output::Table => output::line(&line(&event))?,
            }
            left = left.map(|left| left - 1);
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn line(event: &v1::WatchEvent) -> String {
    if event.kind == "dropped" {
        return format!("dropped      {} changes, read too slowly", event.count);
    }
    let mut line = format!("{:<12} {} rank {}", event.kind, event.worker_id, event.dp_rank);
    line += &format!(" generation {}", event.generation);
    if let Some(seq) = event.seq {
        line += &format!(" batch {seq}");
    }
    match event.kind.as_str() {
        "stored" | "removed" => line += &format!(": {} blocks on {}", event.count, event.tier),
        "gap" => line += &format!(": {} batches lost", event.count),
        _ => {}
    }
    if let Some(lora) = &event.lora_name {
        line += &format!(", LoRA {lora}");
    }
    line
}
