//! Two nodes of a cluster, one on each host, and what is asked of them by name from the other host.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::wires::{Wires, v4, v6};

/// How long founding a cluster may take: elections in between, and a name whose first address is tried in vain.
const PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);
const ENGINE_PORT: u16 = 5557;

/// The nodes and whatever else runs on the hosts; all of it ends with this.
pub(crate) struct Hosts<'a> {
    wires: &'a Wires,
    program: PathBuf,
    folder: PathBuf,
    children: Vec<Child>,
}

impl<'a> Hosts<'a> {
    /// Starts a node on each host. Nobody tells them their own addresses, unless they are to be reached by name.
    pub(crate) fn start(
        wires: &'a Wires,
        program: &Path,
        listen: &str,
        by_name: bool,
    ) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("kvindex-networks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("a folder for the nodes")?;
        let mut hosts = Self { wires, program: program.to_owned(), folder, children: Vec::new() };
        for (host, name) in [(1, "one.test"), (2, "two.test")] {
            let log = File::create(hosts.log(host)).context("a node's log")?;
            let mut command = wires.command(host, program);
            command.args(["serve", "--listen", &format!("{listen}:9590"), "--peer-listen"]);
            command.arg(format!("{listen}:9591"));
            command.args(["--cluster-size", "2", "--cluster-shards", "1", "--log-store", "memory"]);
            command.args(["--cluster-peers", "one.test:9591,two.test:9591", "--durability", "memory"]);
            if by_name {
                command.args(["--advertise-peer", name]);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            hosts.children.push(command.spawn().context("a node does not start")?);
        }
        Ok(hosts)
    }

    fn log(&self, host: usize) -> PathBuf {
        self.folder.join(format!("node-{host}.log"))
    }

    /// Runs a command on a host; what it printed, if it ended well.
    fn run(&self, host: usize, arguments: &[&str]) -> anyhow::Result<String> {
        let done = self.wires.command(host, &self.program).args(arguments).output().context("kvindex")?;
        ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn last_words(&self) -> String {
        let words = |host| {
            let text = std::fs::read_to_string(self.log(host)).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(3).collect();
            format!("node {host}: {}", last.join(" / "))
        };
        format!("{}; {}", words(1), words(2))
    }

    /// How long it took until both nodes say that they are ready.
    pub(crate) fn until_a_cluster(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        for host in [1, 2] {
            let own = if self.wires.families.v4 { v4(host) } else { format!("[{}]", v6(host)) };
            let url = format!("http://{own}:9590");
            // Its own host asks it: that does not depend on what is tried here.
            loop {
                let status = self.run(host, &["cluster", "status", "--server", &url, "--output", "json"]);
                let members = status.as_ref().map_or(0, |status| status.matches("\"peer_address\"").count());
                if members == 2 && self.is_ready(host)? {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    bail!("no cluster: {status:?}; {}", self.last_words());
                }
                std::thread::sleep(POLL * 5);
            }
        }
        Ok(began.elapsed())
    }

    /// One node's metrics or readiness, asked on its own host.
    fn get(&self, host: usize, path: &str) -> anyhow::Result<String> {
        // No curl is needed where bash opens sockets.
        let own = if self.wires.families.v4 { v4(host) } else { v6(host) };
        let script = format!(
            "exec 3<>/dev/tcp/{own}/9590; printf 'GET {path} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' >&3; \
             cat <&3"
        );
        let done =
            self.wires.command(host, Path::new("bash")).args(["-c", &script]).output().context("bash")?;
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn is_ready(&self, host: usize) -> anyhow::Result<bool> {
        Ok(self.get(host, "/readyz")?.starts_with("HTTP/1.1 200"))
    }

    /// A client on host 2 asks the node on host 1 by its name.
    pub(crate) fn ask_by_name(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.run(2, &["workers", "--server", "http://one.test:9590"]).with_context(|| self.last_words())?;
        Ok(began.elapsed())
    }

    /// The node on host 1 follows an engine on host 2 by its name: the time from the registration to the connection.
    pub(crate) fn engine_by_name(&mut self, listens: &str) -> anyhow::Result<Duration> {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases/conv-a");
        let mut engine = self.wires.command(2, &self.program);
        engine.arg("replay").arg(case).args(["--host", listens, "--port", &ENGINE_PORT.to_string()]);
        engine.args(["--wait", "60"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(engine.spawn().context("the engine does not start")?);
        // It listens within this time; the wait is not counted.
        std::thread::sleep(Duration::from_millis(700));
        let endpoint = format!("tcp://two.test:{ENGINE_PORT}");
        let began = Instant::now();
        self.run(
            2,
            &[
                "register",
                "engine-0",
                "--model",
                "m",
                "--endpoint",
                &endpoint,
                "--server",
                "http://one.test:9590",
            ],
        )?;
        let registered = began.elapsed();
        // It has subscribers before it has anything to say.
        while self.state(1)?.contains("not connected to the engine") {
            if began.elapsed() > PATIENCE {
                bail!("the engine is not found: {}; {}", self.state(1)?, self.last_words());
            }
            std::thread::sleep(POLL);
        }
        Ok(began.elapsed().saturating_sub(registered))
    }

    fn state(&self, host: usize) -> anyhow::Result<String> {
        self.get(host, "/v1/workers")
    }

    /// How long until the paths between the nodes, as each has its own, are as wanted.
    pub(crate) fn until_paths(
        &self,
        wanted: impl Fn(&[u64]) -> bool,
        within: Duration,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let mut states = Vec::new();
            for (host, other) in [(1, v4(2)), (2, v4(1))] {
                let metrics = self.get(host, "/metrics")?;
                let lines = metrics.lines().filter(|line| line.starts_with("kvindex_degrade_state_current{"));
                // By the address that the other told: its name is only asked at the beginning.
                let of_other = lines.filter(|line| line.contains(&other));
                states.extend(of_other.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()));
            }
            if wanted(&states) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                bail!("after {} s the paths are {states:?}; {}", within.as_secs(), self.last_words());
            }
            std::thread::sleep(POLL * 5);
        }
    }
}

impl Drop for Hosts<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // There is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
