//! kvindex's service beside Dynamo's standalone indexer: two real servers, one stream of events, one set of
//! questions. The peer's answers are the measure of our dialect of its calls, and its times that of our times.

mod answer;
mod fleet;
mod http;
mod page;
mod recorded;
mod servers;
mod timed;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use fleet::Fleet;
use recorded::Compared;
use servers::Pair;
pub(crate) use servers::dynamo;
use timed::Effort;

/// Cases that are enough to see that it works.
const SMOKE: [&str; 3] = ["basic-v0.20.2", "dp", "dup"];

/// How the two are compared.
#[derive(Args)]
pub(crate) struct ServiceArgs {
    /// The kvindex binary.
    #[arg(long, env = "KVINDEX_BIN", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/kvindex"))]
    kvindex: PathBuf,
    /// Folder of the recordings.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recording/cases"))]
    recordings: PathBuf,
    /// Recordings to compare answers on; all of the folder unless told.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Dynamo's indexer threads: as many as its own tests start it with.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Questions of a kind to each server in a round.
    #[arg(long, default_value_t = 1000)]
    asked: usize,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Milliseconds that a kind of question waits for a quiet machine.
    #[arg(long, default_value_t = 3000)]
    wait_ms: u64,
    /// Everything once, tiny; writes nothing.
    #[arg(long)]
    smoke: bool,
    /// Folder for service.md.
    #[arg(long, default_value = crate::cli::DOCS)]
    out: PathBuf,
}

impl ServiceArgs {
    fn fleet(&self) -> Fleet {
        let seed = self.seed;
        if self.smoke {
            Fleet { seed, engines: 4, systems: 4, shared: 64, conversations: 16, depth: 128 }
        } else {
            Fleet { seed, engines: 16, systems: 32, shared: 64, conversations: 512, depth: 1024 }
        }
    }

    fn effort(&self) -> Effort {
        if self.smoke {
            Effort { rounds: 1, asked: 20, patience: Duration::ZERO }
        } else {
            let patience = Duration::from_millis(self.wait_ms);
            Effort { rounds: self.rounds, asked: self.asked, patience }
        }
    }

    fn cases(&self) -> anyhow::Result<Vec<String>> {
        if !self.cases.is_empty() {
            return Ok(self.cases.clone());
        }
        if self.smoke {
            return Ok(SMOKE.map(str::to_owned).to_vec());
        }
        let mut cases = Vec::new();
        for file in std::fs::read_dir(&self.recordings)? {
            cases.extend(file?.file_name().to_string_lossy().strip_suffix(".kvrec.gz").map(str::to_owned));
        }
        cases.sort();
        Ok(cases)
    }
}

/// Compares answers on the recordings, then answers, times and memory on a generated fleet. Fails where the peer was
/// right and kvindex was not, but for what is known.
pub(crate) fn run(args: &ServiceArgs) -> anyhow::Result<()> {
    let compared = compare(args)?;
    println!("{}", page::answers(&compared));
    let timed = timed::run(&args.kvindex, args.threads, &args.fleet(), args.effort())?;
    println!("{}", page::times(&timed));
    let page = page::page(args, &compared, &timed);
    println!("{page}");
    if !args.smoke {
        crate::write(&args.out, "service.md", &page)?;
    }
    let worse = compared.iter().filter(|compared| compared.only_theirs > compared.known());
    let worse: Vec<&str> = worse.map(|compared| compared.case.as_str()).collect();
    anyhow::ensure!(worse.is_empty(), "Dynamo was right where kvindex was not: {}", worse.join(", "));
    Ok(())
}

fn compare(args: &ServiceArgs) -> anyhow::Result<Vec<Compared>> {
    let mut pair = Pair::start(&args.kvindex, args.threads)?;
    let mut compared = Vec::new();
    for case in args.cases()? {
        eprintln!("{case}");
        compared.push(recorded::compare(&mut pair, &args.recordings, &case)?);
    }
    Ok(compared)
}
