//! kvindex on networks of one family, of both, and of both where one swallows everything: two real nodes, a client and
//! an engine in network namespaces. Prints a table of how long each door took; fails when one did not open in time.
//!
//! Needs root and `ip`; without them it says SKIPPED and ends well.

mod hosts;
mod wires;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use hosts::Hosts;
use wires::{Families, SWALLOWED, Wires, v4, v6};

/// Try nodes, clients and engines on networks of every kind
#[derive(Debug, Parser)]
struct Args {
    /// The program to start [default: kvindex beside this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Only networks whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// How long a door may take: the connect timeout of links, and a moment.
const SOON: Duration = Duration::from_millis(2500);

/// A network to try.
struct Network {
    name: &'static str,
    families: Families,
    /// Whether the first address of each name leads nowhere, of IPv4 or of IPv6.
    swallowed: Option<&'static str>,
    /// What is listened on.
    listen: &'static str,
}

const BOTH: Families = Families { v4: true, v6: true };

const NETWORKS: [Network; 6] = [
    Network {
        name: "IPv4 only",
        families: Families { v4: true, v6: false },
        swallowed: None,
        listen: "[::]",
    },
    Network {
        name: "IPv6 only",
        families: Families { v4: false, v6: true },
        swallowed: None,
        listen: "[::]",
    },
    Network { name: "both", families: BOTH, swallowed: None, listen: "[::]" },
    Network { name: "both, nodes on IPv4 only", families: BOTH, swallowed: None, listen: "0.0.0.0" },
    Network { name: "both, AAAA swallowed", families: BOTH, swallowed: Some("AAAA"), listen: "[::]" },
    Network { name: "both, A swallowed", families: BOTH, swallowed: Some("A"), listen: "[::]" },
];

impl Network {
    /// What names lead to: host 1 is `one.test`, host 2 is `two.test`.
    fn names(&self) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for (host, name) in [(1, "one.test"), (2, "two.test")] {
            let address = |swallowed, own: String, nowhere: &str| {
                if self.swallowed == Some(swallowed) { nowhere.to_owned() } else { own }
            };
            if self.families.v6 {
                names.push((address("AAAA", v6(host), SWALLOWED[1]), name.to_owned()));
            }
            if self.families.v4 {
                names.push((address("A", v4(host), SWALLOWED[0]), name.to_owned()));
            }
        }
        names
    }

    /// The address that the engine listens on, of the family that is not swallowed.
    fn engine(&self) -> String {
        let prefers_v6 = self.families.v6 && self.swallowed != Some("AAAA") && self.listen == "[::]";
        if prefers_v6 { format!("[{}]", v6(2)) } else { v4(2) }
    }

    fn try_it(&self, program: &std::path::Path) -> anyhow::Result<Row> {
        let wires = Wires::make(self.families, &self.names())?;
        let mut hosts = Hosts::start(&wires, program, self.listen, self.swallowed.is_some())?;
        Ok(Row {
            peers: hosts.until_a_cluster()?,
            client: hosts.ask_by_name()?,
            engine: hosts.engine_by_name(&self.engine())?,
        })
    }
}

/// How long each door took.
struct Row {
    peers: Duration,
    client: Duration,
    engine: Duration,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let beside = std::env::current_exe()?.with_file_name("kvindex");
    let program = args.program.unwrap_or(beside);
    ensure!(program.exists(), "{} is not there: cargo build --bin kvindex", program.display());
    if let Err(why) = Wires::make(BOTH, &[]) {
        println!("SKIPPED: no network namespaces here: {why:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut good = true;
    println!("| network | nodes are a cluster after | client by name | engine by name |");
    println!("| --- | --- | --- | --- |");
    for network in NETWORKS.iter().filter(|network| wanted(network.name)) {
        match network.try_it(&program) {
            Ok(row) => {
                let in_time = row.client <= SOON && row.engine <= SOON;
                good &= in_time;
                let mark = if in_time { "" } else { " **too late**" };
                println!(
                    "| {} | {:.1} s | {} ms | {} ms{mark} |",
                    network.name,
                    row.peers.as_secs_f64(),
                    row.client.as_millis(),
                    row.engine.as_millis()
                );
            }
            Err(why) => {
                good = false;
                println!("| {} | **failed**: {why:#} | | |", network.name);
            }
        }
    }
    if wanted("one-way loss") {
        match one_way(&program) {
            Ok(text) => println!("\n{text}"),
            Err(why) => {
                good = false;
                println!("\none-way loss: **failed**: {why:#}");
            }
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What one node sends is lost, what the other sends arrives: neither gets an answer, both paths are blocked, and both
/// come back.
fn one_way(program: &std::path::Path) -> anyhow::Result<String> {
    let network = &NETWORKS[2];
    let wires = Wires::make(network.families, &network.names())?;
    let mut hosts = Hosts::start(&wires, program, network.listen, false)?;
    hosts.until_a_cluster()?;
    wires.cut(true, 1, 2)?;
    let all_blocked = |states: &[u64]| !states.is_empty() && states.iter().all(|state| *state == 2);
    let blocked = hosts.until_paths(all_blocked, Duration::from_secs(30))?;
    wires.cut(false, 1, 2)?;
    // The one that leads calls the other all the time; the other has nothing to say, and finds out when it has.
    let back = hosts.until_paths(|states| states.contains(&0), Duration::from_secs(40))?;
    Ok(format!(
        "One-way loss (what node 1 sends to node 2 is dropped): the paths are blocked after {:.1} s, and \
         the leader's is normal again {:.1} s after the loss ended (a blocked path is held for 15 s).",
        blocked.as_secs_f64(),
        back.as_secs_f64()
    ))
}
