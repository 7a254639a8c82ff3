//! Clusters of real nodes in one process: real listeners, real logs on disk, and waits that end with a condition.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kvindex_core::replication::{Role, ShardStatus};
use kvindex_proto::v1;
use kvindex_proto::v1::cluster_service_client::ClusterServiceClient;
use kvindex_proto::v1::ingest_service_client::IngestServiceClient;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use kvindex_server::config::{ClusterConfig, Config, DiscoveryConfig, TlsConfig};
use kvindex_server::{App, Running, StartError};
use tonic::Code;
use tonic::transport::Channel;

use crate::api_server::{Server, config};
use crate::ingest_node::free_ports;

/// Few, so that a test is cheap, and as many as nodes, so that each leads one.
pub(crate) const SHARDS: u16 = 3;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty folder, gone at the end.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cluster-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a node lives: it keeps its ports and its data over restarts.
#[derive(Debug)]
pub(crate) struct Seat {
    public: u16,
    peer: u16,
    pub(crate) data: Folder,
    node: Option<Server>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("running", &self.running).finish_non_exhaustive()
    }
}

/// Seats of one cluster; who sits there may come and go.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) seats: Vec<Seat>,
    /// How its nodes find engines, if they do.
    pub(crate) discovery: Option<DiscoveryConfig>,
    /// How every node's connections are encrypted.
    pub(crate) tls: TlsConfig,
}

impl Rig {
    /// So many seats, all empty.
    pub(crate) fn of(seats: usize) -> Self {
        let mut rig = Self { seats: Vec::new(), discovery: None, tls: TlsConfig::default() };
        rig.add_seats(seats);
        rig
    }

    /// So many more empty seats.
    pub(crate) fn add_seats(&mut self, more: usize) {
        for _ in 0..more {
            let public = free_ports(2);
            self.seats.push(Seat { public, peer: public + 1, data: Folder::new(), node: None });
        }
    }

    /// A cluster of three, ready.
    pub(crate) async fn founded() -> Self {
        let mut rig = Self::of(3);
        rig.start_all(|_| ()).await;
        rig.wait_ready().await;
        rig
    }

    pub(crate) fn peer_address(&self, seat: usize) -> String {
        format!("127.0.0.1:{}", self.seats[seat].peer)
    }

    /// A node's configuration: its peers are all seats, the first three found.
    pub(crate) fn config(&self, seat: usize, change: impl FnOnce(&mut ClusterConfig)) -> Config {
        let mut cluster = ClusterConfig {
            peer_listen: Some(self.peer_address(seat).parse().unwrap()),
            peers: (0..self.seats.len()).map(|seat| self.peer_address(seat)).collect(),
            shards: Some(SHARDS),
            data_dir: self.seats[seat].data.path().to_owned(),
            ..ClusterConfig::default()
        };
        change(&mut cluster);
        config(|config| {
            config.cluster = Some(cluster);
            config.discovery = self.discovery.clone().unwrap_or_default();
            config.tls = self.tls.clone();
            config.ingest.idle_poll = Duration::from_millis(300);
            config.ingest.replay_timeout = Duration::from_millis(500);
        })
    }

    pub(crate) async fn start(&mut self, seat: usize) {
        self.start_as(seat, |_| ()).await.unwrap();
    }

    /// Starts a node whose configuration differs.
    pub(crate) async fn start_as(
        &mut self,
        seat: usize,
        change: impl FnOnce(&mut ClusterConfig),
    ) -> Result<(), StartError> {
        let node = started(self.config(seat, change), self.seats[seat].public).await?;
        self.seats[seat].node = Some(node);
        Ok(())
    }

    /// Starts everyone at once.
    pub(crate) async fn start_all(&mut self, change: impl Fn(&mut ClusterConfig)) {
        let configs = (0..self.seats.len()).map(|seat| (self.config(seat, &change), self.seats[seat].public));
        let nodes = join_all(configs.map(|(config, port)| started(config, port))).await;
        for (seat, node) in self.seats.iter_mut().zip(nodes) {
            seat.node = Some(node.unwrap());
        }
    }

    /// Starts some at once, whose configurations differ.
    pub(crate) async fn start_some(&mut self, seats: Range<usize>, change: impl Fn(usize, &mut Config)) {
        let configs = seats.clone().map(|seat| {
            let mut config = self.config(seat, |_| ());
            change(seat, &mut config);
            (config, self.seats[seat].public)
        });
        let nodes = join_all(configs.map(|(config, port)| started(config, port))).await;
        for (seat, node) in self.seats[seats].iter_mut().zip(nodes) {
            seat.node = Some(node.unwrap());
        }
    }

    pub(crate) async fn stop(&mut self, seat: usize) {
        self.seats[seat].node.take().unwrap().running.shutdown().await.unwrap();
    }

    /// Empties the data directory of a seat where nobody sits.
    pub(crate) fn wipe(&mut self, seat: usize) {
        assert!(self.seats[seat].node.is_none());
        self.seats[seat].data = Folder::new();
    }

    /// Stops everyone at once.
    pub(crate) async fn stop_all(&mut self) {
        let nodes = self.seats.iter_mut().filter_map(|seat| seat.node.take());
        let stopped = join_all(nodes.map(|node| node.running.shutdown())).await;
        assert!(stopped.iter().all(Result::is_ok), "{stopped:?}");
    }

    pub(crate) fn node(&mut self, seat: usize) -> &mut Server {
        self.seats[seat].node.as_mut().unwrap()
    }

    /// Seats that are taken.
    pub(crate) fn taken(&self) -> Vec<usize> {
        (0..self.seats.len()).filter(|seat| self.seats[*seat].node.is_some()).collect()
    }

    pub(crate) fn running(&self, seat: usize) -> &Running {
        &self.sitting(seat).running
    }

    fn sitting(&self, seat: usize) -> &Server {
        self.seats[seat].node.as_ref().unwrap()
    }

    /// The shards as a node sees them.
    pub(crate) fn shards(&self, seat: usize) -> Vec<ShardStatus> {
        self.sitting(seat).running.cluster().unwrap().status()
    }

    /// The node's id; 0 before it has one.
    pub(crate) fn id(&self, seat: usize) -> u64 {
        let cluster = self.sitting(seat).running.cluster().unwrap();
        cluster.replica().map_or(0, |replica| replica.identity().node.0)
    }

    /// What the node waits for before it belongs to a cluster.
    pub(crate) fn waits_for(&self, seat: usize) -> String {
        self.sitting(seat).running.cluster().unwrap().waits_for()
    }

    /// Who leads a shard, as far as any node knows of itself.
    pub(crate) fn leader(&self, shard: usize) -> Option<usize> {
        let leads = |seat: &usize| self.shards(*seat).get(shard).is_some_and(|s| s.role == Role::Leader);
        self.taken().into_iter().find(leads)
    }

    pub(crate) fn cluster_client(&self, seat: usize) -> ClusterServiceClient<Channel> {
        let address = self.sitting(seat).running.local_addr();
        ClusterServiceClient::new(channel(&format!("http://{address}")))
    }

    pub(crate) async fn status(&self, seat: usize) -> v1::ClusterStatusResponse {
        let request = v1::ClusterStatusRequest { digests: true };
        self.cluster_client(seat).cluster_status(request).await.unwrap().into_inner()
    }

    /// Each shard's applied entry and digest on a node.
    pub(crate) async fn digests(&self, seat: usize) -> Vec<(Option<u64>, Option<u64>)> {
        self.status(seat).await.shards.iter().map(|shard| (shard.applied, shard.digest)).collect()
    }

    /// (id, votes) of everyone in the directory as a node has it.
    pub(crate) fn known(&self, seat: usize) -> Vec<(u64, bool)> {
        let directory = self.sitting(seat).running.cluster().unwrap().directory();
        directory.nodes().map(|(id, known)| (id.0, known.voter)).collect()
    }

    /// (id, votes) of the members of every shard, as a node sees them.
    pub(crate) fn members(&self, seat: usize) -> Vec<Vec<(u64, bool)>> {
        let of = |shard: ShardStatus| shard.members.iter().map(|(id, m)| (id.0, m.voter)).collect();
        self.shards(seat).into_iter().map(of).collect()
    }

    pub(crate) async fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            if Instant::now() >= deadline {
                let seats = self.taken();
                let states: Vec<_> =
                    seats.iter().map(|seat| (seat, self.known(*seat), self.shards(*seat))).collect();
                panic!("{what}: {states:#?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks one node to have a shard handed over, again while it knows of no leader: on a busy machine one is elected now
    /// and then, and a caller is told to come again.
    pub(crate) async fn hand_over(&self, through: usize, shard: usize, heir: usize) {
        let deadline = Instant::now() + PATIENCE;
        let request = v1::HandOverRequest { shard: shard as u32, node_id: self.id(heir) };
        while let Err(refused) = self.cluster_client(through).hand_over(request).await {
            assert_eq!(refused.code(), Code::Unavailable, "{refused}");
            assert!(Instant::now() < deadline, "{refused}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every node that runs says that it is ready, and knows who belongs to the cluster.
    pub(crate) async fn wait_ready(&self) {
        self.wait("the directory", |rig| rig.taken().iter().all(|seat| !rig.known(*seat).is_empty())).await;
        for seat in self.taken() {
            let deadline = Instant::now() + PATIENCE;
            while self.sitting(seat).http("GET", "/readyz", "").await.0 != 200 {
                assert!(Instant::now() < deadline, "node {seat} is not ready: {:#?}", self.shards(seat));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits until every node that runs has applied the same, and answers the digests.
    pub(crate) async fn wait_equal(&self) -> Vec<Option<u64>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut all = Vec::new();
            for seat in self.taken() {
                all.push(self.digests(seat).await);
            }
            if all.windows(2).all(|pair| pair[0] == pair[1]) {
                return all.swap_remove(0).into_iter().map(|(_, digest)| digest).collect();
            }
            assert!(Instant::now() < deadline, "nodes differ: {all:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the directory and every shard, on every node that runs, have these members.
    pub(crate) async fn wait_members(&self, expected: &[(u64, bool)]) {
        let as_expected = |rig: &Self, seat: &usize| {
            rig.known(*seat) == expected
                && rig.members(*seat).iter().all(|members| members == expected)
                && rig.shards(*seat).iter().all(|shard| !shard.changing)
        };
        let what = format!("members {expected:?}");
        self.wait(&what, |rig| rig.taken().iter().all(|seat| as_expected(rig, seat))).await;
    }
}

async fn started(config: Config, port: u16) -> Result<Server, StartError> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let running = App::start(config, listener).await?;
    let channel = channel(&format!("http://{}", running.local_addr()));
    let query = QueryServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    Ok(Server { running, query, ingest: IngestServiceClient::new(channel) })
}

fn channel(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).unwrap().connect_lazy()
}
