//! The demo's cluster: real processes of this very program on loopback, one of which is killed and comes back.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::cluster_service_client::ClusterServiceClient;

/// How long founding a cluster, or catching up, may take.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// One process.
#[derive(Debug)]
struct Process {
    listen: SocketAddr,
    peer_listen: SocketAddr,
    child: Option<Child>,
}

/// Nodes of one cluster, each with a data directory below one folder that goes with them.
#[derive(Debug)]
pub(super) struct Processes {
    folder: PathBuf,
    nodes: Vec<Process>,
}

impl Processes {
    /// Starts `count` nodes; they find each other by themselves.
    pub(super) fn start(count: u16) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("kvindex-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut ports = free_ports(2 * usize::from(count))?.into_iter();
        let nodes = std::iter::from_fn(|| {
            Some(Process { listen: ports.next()?, peer_listen: ports.next()?, child: None })
        });
        let nodes = nodes.collect();
        let mut processes = Self { folder, nodes };
        for number in 0..processes.nodes.len() {
            processes.run(number)?;
        }
        Ok(processes)
    }

    /// Starts a node, for the first time or again with the data it left.
    pub(super) fn run(&mut self, number: usize) -> anyhow::Result<()> {
        let peers: Vec<String> = self.nodes.iter().map(|node| node.peer_listen.to_string()).collect();
        let (size, peers) = (self.nodes.len().to_string(), peers.join(","));
        let log = File::options().create(true).append(true).open(self.log(number)).context("a node's log")?;
        let data = self.folder.join(format!("node-{}", number + 1));
        let node = self.nodes.get_mut(number).context("no such node")?;
        let program = std::env::current_exe().context("this program's own path")?;
        let child = Command::new(program)
            .args([
                "serve",
                "--listen",
                &node.listen.to_string(),
                "--peer-listen",
                &node.peer_listen.to_string(),
            ])
            .args(["--cluster-size", &size, "--cluster-peers", &peers, "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        node.child = Some(child.context("a node does not start")?);
        Ok(())
    }

    /// Kills a node as the operating system does when memory runs out: without a word.
    pub(super) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(number).context("no such node")?;
        if let Some(mut child) = node.child.take() {
            child.kill().context("cannot kill a node")?;
            child.wait().context("a killed node does not end")?;
        }
        Ok(())
    }

    /// Where a node serves clients.
    pub(super) fn address(&self, number: usize) -> Option<SocketAddr> {
        self.nodes.get(number).map(|node| node.listen)
    }

    /// Nodes that run, by number.
    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].child.is_some()).collect()
    }

    /// Waits until a node has joined and has applied everything there is.
    pub(super) async fn until_ready(&mut self, number: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.is_ready(number).await {
            let node = self.nodes.get_mut(number).context("no such node")?;
            let ended = node.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("node {} is not ready; its last words:\n{}", number + 1, last.join("\n"));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn is_ready(&self, number: usize) -> bool {
        let Ok(status) = self.status(number, false).await else { return false };
        let fresh = |shard: &v1::ShardState| shard.leader != 0 && shard.age_ms.is_some_and(|age| age < 1000);
        status.nodes.len() == self.nodes.len() && !status.shards.is_empty() && status.shards.iter().all(fresh)
    }

    /// The cluster as one node sees it.
    pub(super) async fn status(
        &self,
        number: usize,
        digests: bool,
    ) -> anyhow::Result<v1::ClusterStatusResponse> {
        let address = self.address(number).context("no such node")?;
        let mut client = ClusterServiceClient::connect(format!("http://{address}")).await?;
        Ok(client.cluster_status(v1::ClusterStatusRequest { digests }).await?.into_inner())
    }

    /// Waits until all nodes have equal digests of every shard; answers how many shards there are.
    pub(super) async fn until_equal(&self) -> anyhow::Result<usize> {
        let started = Instant::now();
        loop {
            let mut all = Vec::new();
            for number in self.alive() {
                let shards = self.status(number, true).await?.shards;
                all.push(shards.into_iter().map(|shard| shard.digest).collect::<Vec<_>>());
            }
            let shards = all.first().map_or(0, Vec::len);
            if shards > 0 && all.iter().all(|digests| *digests == all[0]) {
                return Ok(shards);
            }
            if started.elapsed() > PATIENCE {
                bail!("the nodes' digests differ: {all:x?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("node-{}.log", number + 1))
    }

    /// Where the nodes keep data and logs while the demo runs.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            // There is nobody left to tell.
            let _ = self.kill(number);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ports that nobody has now; somebody might take one before its node does, and then the node says so.
fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    // All are held until all are known, or one might come twice.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>();
    let listeners = listeners.context("no free port")?;
    listeners.iter().map(|listener| listener.local_addr().context("no free port")).collect()
}
