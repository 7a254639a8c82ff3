//! A node that belongs to a cluster, put together: the listener for other nodes, ingest that proposes instead of
//! applying, and what has to happen before it is ready and when it stops.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use kvindex_core::replication::{NodeAddress, Settings};

use crate::app::StartError;
use crate::cluster::{
    Cluster, ClusterSettings, DataDirectory, EngineStreams, GrpcTransport, LinkSettings, Parts, PeerDoor,
    PeerHandler, serve_peers,
};
use crate::config::{ClusterConfig, Config};
use crate::doors;
use crate::net::{HostPort, IpFamily, PeerTls, told};
use crate::node::Node;

/// How long a change of a worker or node may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether everything before the start is applied.
const LOOK: Duration = Duration::from_millis(50);

/// The cluster's part of a running node.
#[derive(Debug)]
pub(crate) struct Clustered {
    pub(crate) cluster: Arc<Cluster>,
    tasks: Vec<JoinHandle<()>>,
    peers: JoinHandle<()>,
    stop_peers: watch::Sender<bool>,
}

/// Passes other nodes' messages on.
#[derive(Debug)]
struct Doorkeeper(Arc<Cluster>);

impl PeerHandler for Doorkeeper {
    fn handle(&self, request: Bytes) -> BoxFuture<'_, Bytes> {
        async move { self.0.handle(request).await }.boxed()
    }
}

/// Binds the listener for other nodes and starts the node's part in the cluster.
pub(crate) async fn start(
    config: &Config,
    cluster: &ClusterConfig,
    public: SocketAddr,
    node: &Arc<Node>,
) -> Result<Clustered, StartError> {
    let wanted = cluster.peer_listen.unwrap_or(public);
    let listener = doors::bind("peer_listen", wanted)?;
    let local = listener.local_addr().map_err(StartError::Listener)?;
    let (stop_peers, stopping) = watch::channel(false);
    let tls = peer_tls(config, node, &stopping)?;
    let metrics = node.metrics().net().clone();
    let address = addresses(cluster, (local, public), config.discovery.family)?;
    tracing::info!(peer = address.peer, public = address.public, "what other nodes are told");
    let transport = GrpcTransport::with(LinkSettings::default(), tls.clone(), metrics.clone());
    let cluster = Cluster::new(parts(cluster, address, node, transport)?);
    cluster.come_back().await?;
    let door = PeerDoor { tls, metrics };
    let peers = serve_peers(listener, door, Arc::new(Doorkeeper(Arc::clone(&cluster))), stopping);
    node.start_ingest_for(config.ingest, &cluster.wiring(&Handle::current()))?;
    let tasks = cluster.start();
    tracing::info!(peer_address = %local, "other nodes are served");
    Ok(Clustered { cluster, tasks, peers, stop_peers })
}

fn peer_tls(
    config: &Config,
    node: &Node,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<PeerTls>, StartError> {
    let Some(tls) = &config.tls.peer else { return Ok(None) };
    let metrics = node.metrics().net();
    Ok(Some(PeerTls::load(&tls.files, tls.name.as_deref(), metrics, stopping.clone())?))
}

/// Where others reach this node: as configured, else where it listens, else by an address of its own.
fn addresses(
    config: &ClusterConfig,
    (local, public): (SocketAddr, SocketAddr),
    family: IpFamily,
) -> Result<NodeAddress, StartError> {
    let no_address = |key| move |reason| StartError::NoAddress { key, reason };
    let peer = told(config.advertise_peer.as_deref(), local, family).map_err(no_address("advertise_peer"))?;
    let public = match &config.advertise {
        // Whoever reaches it as a peer reaches it as a client.
        None if public.ip().is_unspecified() => HostPort { host: peer.host.clone(), port: public.port() },
        advertised => told(advertised.as_deref(), public, family).map_err(no_address("advertise"))?,
    };
    Ok(NodeAddress { peer: peer.to_string(), public: public.to_string() })
}

fn parts(
    config: &ClusterConfig,
    address: NodeAddress,
    node: &Arc<Node>,
    transport: GrpcTransport,
) -> Result<Parts, StartError> {
    // Drawn by the operating system: two starts must never look alike.
    let run = random().map_err(StartError::Random)?;
    let pace = Settings {
        heartbeat: config.heartbeat,
        // The larger one is also the lease, and nobody stands before the old leader's lease is over: an election comes
        // after six to eight heartbeats of silence.
        election: (config.heartbeat * 2, config.heartbeat * 4),
        snapshot_after: config.snapshot_after,
        seed: random().map_err(StartError::Random)?,
        ..Settings::default()
    };
    Ok(Parts {
        settings: ClusterSettings {
            address,
            peers: config.peers.clone(),
            size: config.size,
            shards: config.shards,
            standby: config.standby,
            pace,
            patience: PATIENCE,
        },
        node: Arc::clone(node),
        home: Arc::new(DataDirectory {
            path: config.data_dir.clone(),
            backend: config.log_store,
            durability: config.durability,
            shards: config.shards,
        }),
        durability: config.durability,
        transport: Arc::new(transport),
        streams: Arc::new(EngineStreams::new(Arc::clone(node))),
        witness: None,
        run,
    })
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Clustered {
    /// Resolves once the cluster is founded and this node has applied everything that was committed before it started.
    pub(crate) fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let cluster = Arc::clone(&self.cluster);
        async move {
            cluster.until_joined().await;
            let fresh = || cluster.status().iter().all(|shard| shard.lag.age.is_some());
            // Before the founders are listed nobody can join.
            while cluster.directory().is_empty() || !fresh() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Others take over what this node leads. Ingest still runs: nothing is lost in between.
    pub(crate) async fn hand_over(&self) {
        self.cluster.hand_over_all().await;
    }

    /// Stops, after ingest has.
    pub(crate) async fn shutdown(self) {
        for task in &self.tasks {
            task.abort();
        }
        self.cluster.shutdown().await;
        self.stop_peers.send_replace(true);
        // An error says that it panicked, which ends it too.
        let _ = self.peers.await;
    }
}
