//! `kvindex demo`: a node, recorded engines on real ZeroMQ sockets, and every answer checked against the
//! engines' own, in one process.

mod ask;
mod doubts;
mod format;
mod play;
mod processes;
pub(crate) mod roster;
mod show;
mod source;
mod stage;
mod stay;
mod tally;
mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use format::Output;
pub(crate) use play::progress_bar;
use source::Case;
pub(crate) use source::without_suffix;
use stage::Stage;

/// The model name that the demo registers its workers under.
const MODEL: &str = "demo-model";

/// Arguments of `kvindex demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Recording to play: the path of a case without suffix, such as `cases/conv-a`. A bundled one by default
    #[arg(long, value_name = "CASE")]
    recording: Option<PathBuf>,
    /// Leave node and engines up until Ctrl-C, to try `kvindex match` and `kvindex explain`
    #[arg(long)]
    stay: bool,
    /// Where the node listens; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Nodes; with more than one they are processes of a cluster, and one is killed in the middle
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9),
          conflicts_with = "stay")]
    nodes: u16,
}

/// Plays, asks and compares; fails with exit status 1 when an answer differs without saying that it may, or when
/// more answers differ than the reference model's.
pub(crate) fn run(args: DemoArgs, output: Output) -> anyhow::Result<ExitCode> {
    let DemoArgs { recording, stay, listen, nodes } = args;
    let mut case = Case::open(recording.as_deref())?;
    let mut stage = Stage::set_up(&case, listen, nodes)?;
    show::opening(output, &case, &stage)?;
    let checked = play::play_and_check(&mut case, &mut stage)?;
    let verdict = verdict::Verdict::of(&checked.tally, kvindex_recording::Bar::of(&case.header().case));
    // What a person may try comes before the verdict, which stays the last line.
    let stay = stay.then(|| stay::Invitation::write(&checked, &stage)).transpose()?;
    let cluster = stage.verdict()?;
    show::closing(output, &case, &checked, &verdict, stay.as_ref(), cluster.as_ref())?;
    if stay.is_some() {
        stage.until_interrupted()?;
    }
    stage.take_down()?;
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
