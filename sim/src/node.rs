//! A node: a disk that stays, and processes on it that come and go.

use kvindex_core::replication::log_store::{LogBackend, LogStore};
use kvindex_core::replication::{ClusterId, Identity, NodeId, Replica, Role, ShardId, Surroundings};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

use crate::disk::{Disk, OpenDisk};
use crate::ingest;
use crate::life::{Gate, Life};
use crate::machine::SimMachine;
use crate::network::Wire;
use crate::world::World;

/// The simulated cluster's id.
const CLUSTER: ClusterId = ClusterId(0x7369_6d75_6c61_7465);
/// What a node's wall clock shows at the start.
const WALL_MS: i64 = 1_700_000_000_000;

/// A process that has started.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its life.
    pub life: Arc<Life>,
    /// What is simulated: the real thing.
    pub replica: Arc<Replica>,
    /// Its state.
    pub machine: Arc<SimMachine>,
}

impl Running {
    /// Whether it says that it leads a shard.
    pub(crate) fn leads(&self, shard: ShardId) -> bool {
        self.replica.shard_status(shard).is_some_and(|status| status.role == Role::Leader)
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number, which is its id.
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
            tokio::spawn(async move { running.replica.shutdown().await });
        }
    }
}

/// Starts everything that a process consists of.
async fn run(world: Arc<World>, node: Arc<Node>, life: Arc<Life>) {
    let open = Arc::new(OpenDisk { disk: Arc::clone(&node.disk), life: Arc::clone(&life) });
    let logs = LogStore::start(Arc::clone(&open) as Arc<dyn LogBackend>, world.plan.durability);
    let plan = &world.plan;
    let machine =
        Arc::new(SimMachine::new(plan.shards, Arc::clone(&life), Arc::clone(&world.judge), world.mutation));
    let wire = Wire { network: Arc::clone(&world.network), life: Arc::clone(&life) };
    let surroundings = Surroundings {
        logs: logs.clone(),
        snapshots: open,
        machine: Arc::clone(&machine) as _,
        transport: Arc::new(wire),
    };
    let identity = Identity { cluster: CLUSTER, node: NodeId(node.number), shards: plan.shards };
    let settings = plan.settings(node.number, life.number);
    let started = Replica::start(identity, settings, surroundings).await;
    let replica = match started {
        Ok(replica) => Arc::new(replica),
        Err(error) => {
            if !life.is_over() {
                node.kill(&world);
                world.start_failed(&node, &error.to_string());
            }
            return;
        }
    };
    if life.is_over() {
        replica.shutdown().await;
        return;
    }
    let running = Arc::new(Running { life: Arc::clone(&life), replica: Arc::clone(&replica), machine });
    world.network.join(&running);
    world.judge.began(node.number, life.number);
    let snapshots = Arc::clone(&replica);
    life.spawn(async move { snapshots.keep_log_short(settings).await });
    ingest::start(&world, &node, &running);
    life.spawn(watch_over(world, node, running, logs));
}

/// Ends the process when its log or a shard has failed, as the program does.
async fn watch_over(world: Arc<World>, node: Arc<Node>, running: Arc<Running>, logs: LogStore) {
    loop {
        sleep(Duration::from_millis(20)).await;
        let stopped = running.replica.status().into_iter().find_map(|status| status.stopped);
        if let Some(reason) = logs.failure().map(|failure| failure.to_string()).or(stopped) {
            world.stopped_itself(&node, &reason);
            node.kill(&world);
            return;
        }
    }
}
