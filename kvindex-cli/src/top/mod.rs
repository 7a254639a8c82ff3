//! `kvindex top`: a node as a live screen: its workers with lag and rates, its shards, its questions. It asks what any
//! caller may ask, once an interval, and asks nothing while it is paused.

mod board;
mod draw;
mod format;
mod keys;
mod live;
mod look;
mod page;
mod view;

use anyhow::Context;
use clap::Args;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use crate::args::{Output, ServerArgs};
use crate::connect::with_client;
use crate::paint::Paint;
use crate::{failure, output};
use board::Board;
use look::Looker;
use view::View;

/// Watch a node's workers, shards and questions on a live screen.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// Print one screen as text and end; rates are of one interval
    #[arg(long)]
    once: bool,
    /// Where the node's metrics are, which say how many questions it answers and how fast; the token goes to the host of
    /// --server only [default: /metrics of --server]
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// Column to sort the workers by
    #[arg(long, value_enum, default_value = "worker")]
    sort: view::Column,
    /// Show only workers whose id, model, tenant or trust contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    #[command(flatten)]
    server: ServerArgs,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.parse().map_err(|_| "must be a number of seconds, such as 2 or 0.5".to_owned())?;
    if !(0.2..=3600.0).contains(&seconds) {
        return Err("must be 0.2 to 3600 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub(crate) fn run(args: &TopArgs, format: Output) -> anyhow::Result<ExitCode> {
    let live = format == Output::Table && !args.once;
    if live && !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        let text = "standard input and output must be a terminal; --once prints one screen, --output json a line a look";
        return Err(failure::usage(text));
    }
    let view = View::new(args.sort, args.filter.clone());
    with_client(&args.server, async |client| {
        let looker = Looker::new(client, args.metrics.as_deref(), &args.server)?;
        if live {
            return live::run(looker, view, args.interval).await;
        }
        lines(looker, &view, args, format).await
    })
}

/// Screens as text, or boards as JSON.
async fn lines(looker: Looker, view: &View, args: &TopArgs, format: Output) -> anyhow::Result<ExitCode> {
    let mut before = looker.look().await?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot wait for Ctrl-C")?;
                return Ok(ExitCode::SUCCESS);
            }
        }
        let look = looker.look().await?;
        let board = Board::new(looker.server(), &look, Some(&before));
        match format {
            Output::Json => output::json_line(&board)?,
            Output::Table => output::line(&draw::as_text(&board, view, Paint::of_stdout().width)?)?,
        }
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        before = look;
    }
}
