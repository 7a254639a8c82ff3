//! `kvindex man`: the manual pages, made from what the command line itself is made from.

use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::{examples, output};

/// Write the manual pages.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for a page a command; made if it is not there. Without it the first page is printed
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let command = examples::command().disable_help_subcommand(true);
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::write(&page)?;
        return Ok(ExitCode::SUCCESS);
    };
    let shown = dir.display();
    std::fs::create_dir_all(dir).with_context(|| format!("--dir: cannot make {shown}"))?;
    clap_mangen::generate_to(command, dir).with_context(|| format!("--dir: cannot write to {shown}"))?;
    output::line(&format!("wrote the pages to {shown}; `man {shown}/kvindex.1` shows the first"))?;
    Ok(ExitCode::SUCCESS)
}
