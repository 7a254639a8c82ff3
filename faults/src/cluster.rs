//! Real `kvindex serve` processes, mostly three of a cluster, and what can be done to them from outside.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::cluster_service_client::ClusterServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use crate::http::{self, Key};
use crate::network::Network;
use crate::secrets::{Bearer, Role, Secrets};

/// A connection to a node, with a token on every call where nodes want one.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// How long founding a cluster, catching up or becoming equal may take.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// How long a single question to a node may take.
const CALL: Duration = Duration::from_secs(2);
/// Ports in a namespace, where nobody else has any.
const PORTS: (u16, u16) = (9590, 9591);

/// How the nodes run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program to start.
    pub program: PathBuf,
    /// Where the nodes are.
    pub network: Network,
    /// Further flags of `kvindex serve`.
    pub flags: Vec<String>,
}

#[derive(Debug)]
struct Process {
    listen: String,
    peer_listen: String,
    channel: tonic::transport::Channel,
    child: Option<Child>,
    /// What it printed before it was started last.
    log_before: u64,
}

/// The nodes, each with a data directory below one folder that goes with them.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    folder: PathBuf,
    nodes: Vec<Process>,
    /// How many found the cluster; 0 for one node without a cluster.
    founders: usize,
    /// What locks their doors; `None` for neither TLS nor tokens.
    secrets: Option<Secrets>,
    /// Keeps the folder for whoever wants to see what went wrong.
    pub keep: bool,
}

impl Cluster {
    /// A place for `count` nodes, which will find each other by themselves once they run.
    pub fn start(options: Options, name: &str, count: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::empty(options, name, count)?;
        cluster.make_room(count)?;
        Ok(cluster)
    }

    /// The same with TLS and tokens for clients, and mutual TLS between the nodes.
    pub fn locked(options: Options, name: &str, count: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::empty(options, name, count)?;
        let hosts = (0..count).map(|number| cluster.options.network.host(number)).collect();
        let folder = cluster.folder.join("secrets");
        cluster.secrets = Some(Secrets::make(&cluster.options.program, &folder, hosts)?);
        cluster.make_room(count)?;
        Ok(cluster)
    }

    fn empty(options: Options, name: &str, founders: usize) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("kvindex-faults-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { options, folder, nodes: Vec::new(), founders, secrets: None, keep: false })
    }

    /// A place for one node that belongs to no cluster.
    pub fn alone(options: Options, name: &str) -> anyhow::Result<Self> {
        let mut cluster = Self::start(options, name, 1)?;
        cluster.founders = 0;
        Ok(cluster)
    }

    /// A place for one node more than have founded the cluster; answers its number.
    pub fn one_more(&mut self) -> anyhow::Result<usize> {
        self.make_room(1)?;
        Ok(self.nodes.len() - 1)
    }

    fn make_room(&mut self, count: usize) -> anyhow::Result<()> {
        let mut free = free_ports(2 * count)?.into_iter();
        for number in self.nodes.len()..self.nodes.len() + count {
            let host = self.options.network.host(number);
            let (port, peer) = match self.options.network {
                Network::Loopback => free.next().zip(free.next()).context("no free port")?,
                Network::Namespaces(_) => PORTS,
            };
            let listen = format!("{host}:{port}");
            let scheme = if self.secrets.is_some() { "https" } else { "http" };
            let endpoint = Endpoint::from_shared(format!("{scheme}://{listen}"))?.connect_timeout(CALL);
            let channel = match &self.secrets {
                None => endpoint.connect_lazy(),
                Some(secrets) => endpoint.tls_config(secrets.grpc())?.connect_lazy(),
            };
            self.nodes.push(Process {
                listen,
                peer_listen: format!("{host}:{peer}"),
                channel,
                child: None,
                log_before: 0,
            });
        }
        Ok(())
    }

    /// All of them, by number.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    fn node(&mut self, number: usize) -> anyhow::Result<&mut Process> {
        self.nodes.get_mut(number).context("no such node")
    }

    /// Where a node serves clients.
    pub fn address(&self, number: usize) -> String {
        self.nodes.get(number).map(|node| node.listen.clone()).unwrap_or_default()
    }

    /// A connection that is made again whenever it is lost, for whoever may do everything.
    pub fn channel(&self, number: usize) -> anyhow::Result<Channel> {
        self.channel_of(number, Role::Operator)
    }

    /// The same for somebody else.
    pub fn channel_of(&self, number: usize, role: Role) -> anyhow::Result<Channel> {
        let channel = self.nodes.get(number).context("no such node")?.channel.clone();
        let bearer = match &self.secrets {
            None => Bearer::default(),
            Some(secrets) => Bearer::new(&secrets.bearer(role)?)?,
        };
        Ok(InterceptedService::new(channel, bearer))
    }

    /// What locks the doors, if they are locked.
    pub fn secrets(&self) -> Option<&Secrets> {
        self.secrets.as_ref()
    }

    /// Asks a node for a path by plain HTTP; the answer's status and body, `None` when there is no answer.
    pub fn get(&self, number: usize, path: &str) -> Option<(u16, String)> {
        let key = |secrets: &Secrets| {
            let authorization = secrets.bearer(Role::Operator).ok()?;
            Some(Key { tls: secrets.http(), authorization })
        };
        let key = self.secrets.as_ref().and_then(key);
        http::get(&self.address(number), path, key.as_ref())
    }

    /// One of a node's metrics by its name, labels included.
    pub fn metric(&self, number: usize, name: &str) -> Option<u64> {
        http::metric(&self.get(number, "/metrics")?.1, name)
    }

    /// A node's data directory.
    pub fn data(&self, number: usize) -> PathBuf {
        self.folder.join(format!("node-{}", number + 1))
    }

    /// The id that a node has written down.
    pub fn node_id(&self, number: usize) -> anyhow::Result<String> {
        let text = fs::read_to_string(self.data(number).join("node.json"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("\"node\": "));
        Ok(line.context("node.json names no node")?.trim_end_matches(',').to_owned())
    }

    /// What a node has logged since it was last started.
    pub fn log(&self, number: usize) -> String {
        let all = fs::read(self.log_file(number)).unwrap_or_default();
        let before = self.nodes.get(number).map_or(0, |node| node.log_before as usize);
        String::from_utf8_lossy(all.get(before..).unwrap_or(&[])).into_owned()
    }

    fn log_file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("node-{}.log", number + 1))
    }

    /// Starts a node, for the first time or again with the data it left.
    pub fn run(&mut self, number: usize) -> anyhow::Result<()> {
        let peers: Vec<&str> = self.nodes.iter().map(|node| node.peer_listen.as_str()).collect();
        let (peers, size) = (peers.join(","), self.founders.to_string());
        let log =
            File::options().create(true).append(true).open(self.log_file(number)).context("a node's log")?;
        let before = log.metadata().map_or(0, |metadata| metadata.len());
        let data = self.data(number);
        let mut command = self.options.network.command(number, &self.options.program);
        let (mut flags, alone) = (self.options.flags.clone(), self.founders == 0);
        flags.extend(self.secrets.as_ref().map(Secrets::flags).unwrap_or_default());
        let node = self.node(number)?;
        command.args(["serve", "--listen", &node.listen]);
        if !alone {
            command.args(["--peer-listen", &node.peer_listen, "--cluster-size", &size]);
            command.args(["--cluster-peers", &peers, "--data-dir"]).arg(data);
        }
        command.args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        node.child = Some(command.spawn().context("a node does not start")?);
        node.log_before = before;
        Ok(())
    }

    /// Kills a node as the operating system does when memory runs out: without a word.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.node(number)?.child.take() {
            child.kill().context("cannot kill a node")?;
            child.wait().context("a killed node does not end")?;
        }
        Ok(())
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&mut self, number: usize, name: &str) -> anyhow::Result<()> {
        let child = self.node(number)?.child.as_ref().context("the node does not run")?;
        let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status()?;
        if !sent.success() {
            bail!("cannot send SIG{name}");
        }
        Ok(())
    }

    /// The process that is a node.
    pub fn pid(&self, number: usize) -> anyhow::Result<u32> {
        let child = self.nodes.get(number).and_then(|node| node.child.as_ref());
        Ok(child.context("the node does not run")?.id())
    }

    /// Waits until a node says itself that it is ready: that it has applied what it finds when it starts.
    pub async fn until_serving(&mut self, number: usize, patience: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let said = self.get(number, "/readyz");
            if said.as_ref().is_some_and(|(status, _)| *status == 200) {
                return Ok(());
            }
            if self.has_ended(number)? || started.elapsed() > patience {
                let log = self.log(number);
                let last: Vec<&str> = log.lines().rev().take(4).collect();
                bail!("node {} is not ready: {said:?}; its last words:\n{}", number + 1, last.join("\n"));
            }
            tokio::time::sleep(POLL / 5).await;
        }
    }

    /// Whether a node that was started has ended by itself.
    pub fn has_ended(&mut self, number: usize) -> anyhow::Result<bool> {
        let node = self.node(number)?;
        Ok(node.child.as_mut().is_some_and(|child| child.try_wait().ok().flatten().is_some()))
    }

    /// The cluster as one node sees it.
    pub async fn status(&self, number: usize, digests: bool) -> anyhow::Result<v1::ClusterStatusResponse> {
        let mut client = ClusterServiceClient::new(self.channel(number)?);
        let call = client.cluster_status(v1::ClusterStatusRequest { digests });
        Ok(tokio::time::timeout(CALL, call).await.context("no answer in time")??.into_inner())
    }

    /// Waits until every node belongs to the cluster, votes in every shard and has applied what there is.
    pub async fn until_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let mut waiting = None;
            for number in self.all() {
                if let Err(why) = self.is_ready(number).await {
                    waiting = Some((number, why));
                    break;
                }
            }
            let Some((number, why)) = waiting else { return Ok(()) };
            if self.has_ended(number)? || started.elapsed() > PATIENCE {
                let log = self.log(number);
                let last: Vec<&str> = log.lines().rev().take(4).collect();
                bail!("node {} is not ready: {why:#}; its last words:\n{}", number + 1, last.join("\n"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_ready(&self, number: usize) -> anyhow::Result<()> {
        let status = self.status(number, false).await?;
        let (me, count) = (status.node_id, self.founders);
        if status.nodes.len() != count || status.shards.is_empty() {
            bail!("{} of {count} nodes are known", status.nodes.len());
        }
        for shard in &status.shards {
            let voters = shard.members.iter().filter(|member| member.voter).count();
            let mine = shard.members.iter().any(|member| member.voter && member.node_id == me);
            let fresh = shard.age_ms.is_some_and(|age| age < 1000);
            if !mine || voters != count || shard.members.len() != count || shard.leader == 0 || !fresh {
                bail!("shard {}: {shard:?}", shard.shard);
            }
        }
        Ok(())
    }

    /// Waits until leadership is spread as the nodes want it, or the time is over.
    pub async fn until_balanced(&self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            let status = self.status(0, false).await?;
            let mut ids: Vec<u64> = status.nodes.iter().map(|node| node.node_id).collect();
            ids.sort_unstable();
            let preferred = |shard: u32| ids.get(shard as usize % ids.len().max(1)).copied();
            if status.shards.iter().all(|shard| Some(shard.leader) == preferred(shard.shard)) {
                return Ok(());
            }
            tokio::time::sleep(POLL * 4).await;
        }
        Ok(())
    }

    /// Which shards each node leads, as some node that answers sees it.
    pub async fn leaders(&self, asked: usize) -> anyhow::Result<Vec<Vec<u32>>> {
        let status = self.status(asked, false).await?;
        let id_of = |number| {
            let address = self.address(number);
            status.nodes.iter().find(|node| node.address == address).map(|node| node.node_id)
        };
        let led = |number| {
            let id = id_of(number);
            let shards = status.shards.iter().filter(|shard| Some(shard.leader) == id && shard.leader != 0);
            shards.map(|shard| shard.shard).collect()
        };
        Ok(self.all().map(led).collect())
    }

    /// Waits until all nodes have equal digests of every shard.
    pub async fn until_equal(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let mut all = Vec::new();
            for number in self.all() {
                let shards = self.status(number, true).await?.shards;
                all.push(shards.into_iter().map(|shard| shard.digest).collect::<Vec<_>>());
            }
            if all.iter().all(|digests| !digests.is_empty() && *digests == all[0]) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("the nodes' digests differ: {all:x?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The folder of data and logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The network between the nodes.
    pub fn network(&self) -> &Network {
        &self.options.network
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in self.all() {
            // There is nobody left to tell.
            let _ = self.signal(number, "CONT");
            let _ = self.kill(number);
            // Only where the row had one; it fails elsewhere.
            let _ = Command::new("umount").arg(self.data(number)).stderr(Stdio::null()).status();
        }
        if !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Ports that nobody has now; somebody might take one before its node does, and then the node says so.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    // All are held until all are known, or one might come twice.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>();
    let listeners = listeners.context("no free port")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
