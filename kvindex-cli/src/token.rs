//! `kvindex token new`: a fresh token, shown once, and its entry for the access file, which holds only a digest.

use clap::{Args, Subcommand};
use kvindex_server::{NewToken, check_access};
use serde::Serialize;
use std::fmt::Write;
use std::process::ExitCode;

use crate::args::Output;
use crate::{failure, output};

/// Make a token that lets a caller in.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a fresh token once, and its entry for the access file; nothing is kept
    New(NewArgs),
}

#[derive(Debug, Args)]
struct NewArgs {
    /// Name of the token, which metrics and refusals tell
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may do: read, publish, admin
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "read")]
    rights: Vec<String>,
    /// Tenants that it is for; * is every one
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    tenants: Vec<String>,
    /// Questions that it may ask in a second [default: no limit]
    #[arg(long, value_name = "N")]
    queries_per_s: Option<u64>,
    /// Questions that it may ask at once [default: as many as in a second]
    #[arg(long, value_name = "N", requires = "queries_per_s")]
    burst: Option<u64>,
    /// Moment from which on it is good no more, such as 2027-01-31T00:00:00Z [default: never]
    #[arg(long, value_name = "MOMENT")]
    expires: Option<String>,
}

/// What is printed for programs.
#[derive(Serialize)]
struct Made<'a> {
    token: &'a str,
    entry: &'a str,
}

pub(crate) fn run(args: TokenArgs, format: Output) -> anyhow::Result<ExitCode> {
    let Verb::New(args) = args.verb;
    let token = NewToken::draw()?;
    let entry = entry(&args, &token.sha256())?;
    check_access(&entry)
        .map_err(|error| failure::usage(error.to_string().replace("access_file: tokens[0].", "--")))?;
    match format {
        Output::Json => output::json_line(&Made { token: token.secret(), entry: &entry })?,
        Output::Table => {
            let hint = "# The token, shown this once. Keep it where its caller alone can read it.";
            let place = "# Its entry for the access file:";
            output::line(&format!("{hint}\n{}\n\n{place}\n{}", token.secret(), entry.trim_end()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn entry(args: &NewArgs, sha256: &str) -> anyhow::Result<String> {
    // JSON's texts and lists of texts are TOML's too.
    let (name, rights, tenants) = (
        serde_json::to_string(&args.name)?,
        serde_json::to_string(&args.rights)?,
        serde_json::to_string(&args.tenants)?,
    );
    let mut entry =
        format!("[[tokens]]\nname = {name}\nsha256 = \"{sha256}\"\nrights = {rights}\ntenants = {tenants}\n");
    for (key, number) in [("queries_per_s", args.queries_per_s), ("burst", args.burst)] {
        if let Some(number) = number {
            writeln!(entry, "{key} = {number}")?;
        }
    }
    if let Some(expires) = &args.expires {
        writeln!(entry, "expires = {}", serde_json::to_string(expires)?)?;
    }
    Ok(entry)
}
