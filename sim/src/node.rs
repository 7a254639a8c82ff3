//! A node: a disk that stays, and processes on it that come and go. A process is the server's own room, put together
//! as the server puts it together, around what is simulated.

use bytes::Bytes;
use kvindex_core::replication::{NodeId, Replica, Role, ShardId};
use kvindex_server::cluster::{Cluster, ClusterSettings, JoinError, Parts};
use kvindex_server::config::{ClusterConfig, Config};
use kvindex_server::metrics::Metrics;
use kvindex_server::node::Node as Server;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::dice::Dice;
use crate::disk::{Disk, OpenDisk};
use crate::home::Home;
use crate::ingest;
use crate::life::{Gate, Life};
use crate::network::{Wire, address};
use crate::plan::PATIENCE;
use crate::witness::{Seat, Witness};
use crate::world::World;

/// What a node's wall clock shows at the start.
const WALL_MS: i64 = 1_700_000_000_000;

/// A process that answers.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its life.
    pub life: Arc<Life>,
    /// Its part in the cluster.
    pub cluster: Arc<Cluster>,
    /// Its index and its workers.
    pub server: Arc<Server>,
    /// Who sees what is applied.
    pub witness: Arc<Witness>,
}

impl Running {
    /// Its shards, once it is a member.
    pub(crate) fn replica(&self) -> Option<&Arc<Replica>> {
        self.cluster.replica()
    }

    /// Its id, once it is a member.
    pub(crate) fn id(&self) -> Option<NodeId> {
        Some(self.replica()?.identity().node)
    }

    /// Whether it says that it leads a shard.
    pub(crate) fn leads(&self, shard: ShardId) -> bool {
        let status = self.replica().and_then(|replica| replica.shard_status(shard));
        status.is_some_and(|status| status.role == Role::Leader)
    }

    /// Answers another node.
    pub(crate) async fn handle(&self, request: Bytes) -> Bytes {
        self.cluster.handle(request).await
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number, which is its address.
    pub number: u64,
    /// Its disk.
    pub disk: Arc<Disk>,
    /// What pauses it.
    pub gate: Arc<Gate>,
    clock_offset_ms: AtomicI64,
    lives: Mutex<(u64, Option<Arc<Life>>)>,
}

impl Node {
    /// A node that has not started yet.
    #[must_use]
    pub(crate) fn new(number: u64, disk: Arc<Disk>) -> Arc<Self> {
        let (gate, lives) = (Arc::default(), Mutex::default());
        Arc::new(Self { number, disk, gate, clock_offset_ms: AtomicI64::new(0), lives })
    }

    /// Sets its wall clock so far off.
    pub(crate) fn set_clock(&self, offset_ms: i64) {
        self.clock_offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// What its wall clock shows.
    pub(crate) fn wall_ms(&self, world: &World) -> u64 {
        let now = i64::try_from(world.trace.now_ms()).unwrap_or(i64::MAX);
        u64::try_from(WALL_MS + now + self.clock_offset_ms.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether a process lives here, started or starting.
    pub(crate) fn lives(&self) -> bool {
        self.lives.lock().1.as_ref().is_some_and(|life| !life.is_over())
    }

    /// Starts a process, unless one lives.
    pub(crate) fn start(self: &Arc<Self>, world: &Arc<World>) {
        if self.lives() {
            return;
        }
        let life = {
            let mut lives = self.lives.lock();
            lives.0 += 1;
            let life = Life::begin(self.number, lives.0, Arc::clone(&self.gate));
            lives.1 = Some(Arc::clone(&life));
            life
        };
        world.trace.say("starts", self.number, format!("life {}", life.number));
        tokio::spawn(run(Arc::clone(world), Arc::clone(self), life));
    }

    /// Kills the process, if one lives. What it wrote stays.
    pub(crate) fn kill(&self, world: &World) {
        let Some(life) = self.lives.lock().1.take() else { return };
        world.trace.say("dies", self.number, format!("life {}", life.number));
        life.end();
        if let Some(running) = world.network.running(self.number) {
            world.network.leave(self.number);
            // Nothing comes of this but that its tasks end: disk and network are gone for it.
            tokio::spawn(async move { running.cluster.shutdown().await });
        }
    }
}

/// What the server's room is made of here.
fn process(world: &Arc<World>, node: &Node, life: &Arc<Life>, streams: ingest::Streams) -> Running {
    let plan = &world.plan;
    let mut config = Config { cluster: Some(ClusterConfig::default()), ..Config::defaults() };
    config.limits.index_bytes = plan.caps.of_node(node.number).unwrap_or(0);
    // What `explain` remembers would be most of so small an index.
    config.index.journal_removals = 0;
    let server = Arc::new(Server::new(&config, Metrics::new()));
    let judge = Arc::clone(&world.judge);
    let witness = Witness::new(Arc::clone(life), Arc::clone(&judge), world.mutation, Arc::clone(&server));
    let witness = Arc::new(witness);
    let disk = Arc::new(OpenDisk { disk: Arc::clone(&node.disk), life: Arc::clone(life) });
    let cluster = Cluster::new(Parts {
        settings: ClusterSettings {
            address: address(node.number),
            peers: plan.peers(),
            size: plan.size_for(node.number),
            shards: Some(plan.shards),
            standby: plan.standby,
            pace: plan.settings(node.number, life.number),
            patience: PATIENCE,
        },
        node: Arc::clone(&server),
        home: Arc::new(Home { disk, judge }),
        durability: plan.durability,
        transport: Arc::new(Wire { network: Arc::clone(&world.network), life: Arc::clone(life) }),
        streams: Arc::new(streams),
        witness: Some(Arc::new(Seat(Arc::clone(&witness)))),
        run: Dice::of(plan.seed, &format!("run {} of node {}", life.number, node.number)).next(),
    });
    Running { life: Arc::clone(life), cluster, server, witness }
}

/// Starts everything that a process consists of, in the order of the server's own start.
async fn run(world: Arc<World>, node: Arc<Node>, life: Arc<Life>) {
    let (streams, orders) = ingest::Streams::new(&world, &life);
    let running = Arc::new(process(&world, &node, &life, streams));
    let came_back = running.cluster.come_back().await;
    if life.is_over() {
        running.cluster.shutdown().await;
        return;
    }
    if let Err(error) = came_back {
        node.kill(&world);
        world.start_failed(&node, &error.to_string(), matches!(error, JoinError::Dismissed { .. }));
        return;
    }
    world.network.join(&running);
    ingest::start(&world, &node, &running, orders);
    life.adopt(running.cluster.start());
    life.spawn(watch_over(world, node, running));
}

/// Ends the process when its log or a shard has failed, as the program does.
async fn watch_over(world: Arc<World>, node: Arc<Node>, running: Arc<Running>) {
    let reason = running.cluster.until_failed().await;
    world.stopped_itself(&node, &reason);
    node.kill(&world);
}
