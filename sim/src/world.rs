//! One simulated life of a cluster, from its foundation through a storm of faults to rest.

use kvindex_core::replication::{NodeId, ShardCommand, ShardId, shard_of};
use kvindex_core::{Command, WorkerId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

use crate::clients;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::engine::{Engine, EnginePlan};
use crate::faults;
use crate::invariants::{Judge, Settled};
use crate::machine::RegisterWrite;
use crate::mutation::Mutation;
use crate::network::{Network, address};
use crate::node::{Node, Running};
use crate::plan::Plan;
use crate::question::spec;
use crate::trace::Trace;

/// Virtual time in which a cluster must have recovered once nothing is broken any more.
const RECOVERY: Duration = Duration::from_secs(10);
/// Virtual time that engines go on after the storm.
const AFTERWARDS: Duration = Duration::from_millis(700);
const STEP: Duration = Duration::from_millis(10);

/// Everything there is in a run.
#[derive(Debug)]
pub(crate) struct World {
    /// What it follows.
    pub plan: Plan,
    /// The bug put in, if any.
    pub mutation: Mutation,
    /// What happened.
    pub trace: Arc<Trace>,
    /// What must hold.
    pub judge: Arc<Judge>,
    /// Between nodes.
    pub network: Arc<Network>,
    /// Outside.
    pub engines: Vec<Arc<Engine>>,
    nodes: Mutex<BTreeMap<u64, Arc<Node>>>,
    /// Nodes that left the cluster, for good.
    left: Mutex<BTreeSet<u64>>,
    resting: AtomicBool,
    /// Numbers for questions and writes.
    numbers: AtomicU64,
}

impl World {
    /// A world in which nothing has happened yet; call it inside the runtime.
    #[must_use]
    pub(crate) fn new(plan: Plan, mutation: Mutation, loud: bool) -> Arc<Self> {
        let trace = Arc::new(Trace::begin(loud));
        let engine = |engine: &EnginePlan| {
            Engine::new(engine.clone(), Dice::of(plan.seed, &engine.stream.to_string()))
        };
        Arc::new(Self {
            judge: Judge::new(plan.shards, Arc::clone(&trace)),
            network: Network::new(plan.link, Dice::of(plan.seed, "network"), Arc::clone(&trace)),
            engines: plan.engines.iter().map(engine).collect(),
            nodes: Mutex::default(),
            left: Mutex::default(),
            resting: AtomicBool::new(false),
            numbers: AtomicU64::new(1),
            mutation,
            trace,
            plan,
        })
    }

    /// A number that is given once.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether engines have nothing more to do.
    pub(crate) fn engines_rest(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    /// Every node that has not left, in order.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let left = self.left.lock();
        self.nodes.lock().values().filter(|node| !left.contains(&node.number)).cloned().collect()
    }

    /// Adds a node and starts it; answers its number.
    pub(crate) fn add_node(self: &Arc<Self>) -> u64 {
        let number = self.nodes.lock().len() as u64 + 1;
        let dice = Dice::of(self.plan.seed, &format!("disk of node {number}"));
        let disk = Disk::new(format!("disk of node {number}"), self.plan.disk_ms, dice, self.mutation);
        let node = Node::new(number, Arc::new(disk));
        self.nodes.lock().insert(number, Arc::clone(&node));
        node.start(self);
        number
    }

    /// Takes a node out of the cluster's life, for good.
    pub(crate) fn retire(&self, number: u64) {
        self.left.lock().insert(number);
        if let Some(node) = self.nodes.lock().get(&number).cloned() {
            node.kill(self);
        }
    }

    /// Who leads a shard, by the highest term.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<Arc<Running>> {
        let leaders = self.network.all_running().into_iter().filter(|running| running.leads(shard));
        leaders.max_by_key(|running| running.replica.shard_status(shard).map(|status| status.term))
    }

    /// All shards.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.plan.shards).map(ShardId)
    }

    /// A process could not start; only a broken disk excuses that.
    pub(crate) fn start_failed(&self, node: &Node, reason: &str) {
        self.trace.say("no start", node.number, reason);
        if !node.disk.was_full() {
            self.judge.fail("starts from its disk", format!("node {}: {reason}", node.number));
        }
    }

    /// A process ended itself; only a broken disk excuses that.
    pub(crate) fn stopped_itself(&self, node: &Node, reason: &str) {
        self.trace.say("stops", node.number, reason);
        if !node.disk.was_full() {
            self.judge.fail("runs until it is stopped", format!("node {}: {reason}", node.number));
        }
    }

    /// Lives through it all.
    pub(crate) async fn live(self: &Arc<Self>) {
        if self.found().await && self.storm().await {
            self.rest().await;
        }
        self.end();
    }

    /// Waits until something holds; `false` when it does not in time, or a rule was broken.
    async fn until(&self, patience: Duration, holds: impl Fn() -> bool) -> bool {
        let mut left = patience;
        while !holds() {
            if left.is_zero() || self.judge.violation().is_some() {
                return false;
            }
            sleep(STEP).await;
            left = left.saturating_sub(STEP);
        }
        self.judge.violation().is_none()
    }

    async fn found(self: &Arc<Self>) -> bool {
        for _ in 0..self.plan.nodes {
            self.add_node();
        }
        let all = self.plan.nodes as usize;
        let mut fine = self.until(RECOVERY, || self.network.all_running().len() == all).await;
        let voters = (1..=self.plan.nodes).map(|node| (NodeId(node), address(node))).collect();
        if let Some(first) = self.network.running(1).filter(|_| fine) {
            fine = first.replica.found(&voters).await.is_ok();
            let led = || self.shards().all(|shard| self.leader(shard).is_some());
            fine = fine && self.until(RECOVERY, led).await;
            let workers: BTreeSet<WorkerId> =
                self.plan.engines.iter().map(|engine| engine.stream.worker.clone()).collect();
            for worker in workers {
                let shard = shard_of(&worker, self.plan.shards);
                let register = Command::Register(Box::new(spec(worker))).into();
                // Registering again changes nothing, so an unknown outcome is no harm.
                let mut tries = 0;
                while first.replica.propose(shard, std::slice::from_ref(&register), RECOVERY).await.is_err() {
                    tries += 1;
                    fine = fine && tries < 3;
                    if !fine {
                        break;
                    }
                }
            }
        }
        if !fine {
            self.judge.fail("a cluster can be founded", "it was not within its time");
        }
        fine
    }

    async fn storm(self: &Arc<Self>) -> bool {
        for engine in &self.engines {
            tokio::spawn(Arc::clone(engine).work(Arc::clone(self)));
        }
        for client in 1..=self.plan.clients {
            tokio::spawn(clients::live(Arc::clone(self), client));
        }
        for fault in self.plan.faults.clone() {
            tokio::spawn(faults::strike(Arc::clone(self), fault));
        }
        let ends = self.plan.storm_ends_ms;
        let fine = self.until(Duration::from_secs(60), || self.trace.now_ms() >= ends).await;
        self.trace.say("heals", 0, "");
        self.heal();
        fine
    }

    /// Nothing is broken any more.
    fn heal(self: &Arc<Self>) {
        self.network.heal();
        self.engines.iter().for_each(|engine| engine.lose_nothing());
        for node in self.nodes() {
            node.gate.close(None);
            node.disk.fill(false);
            node.disk.slow_down(None);
            node.set_clock(0);
            node.start(self);
        }
    }

    async fn rest(self: &Arc<Self>) {
        sleep(AFTERWARDS).await;
        // Faults that were still at it when the storm ended leave no trace.
        self.heal();
        self.resting.store(true, Ordering::Relaxed);
        let unsettled = Mutex::new(String::new());
        let settled = || match self.unsettled() {
            None => true,
            Some(what) => {
                *unsettled.lock() = what;
                false
            }
        };
        if !self.until(RECOVERY, settled).await {
            self.judge.fail("liveness", format!("{RECOVERY:?} after the storm: {}", unsettled.lock()));
            return;
        }
        for shard in self.shards() {
            let write = RegisterWrite { client: u64::MAX, number: 1, register: u64::MAX, value: 1 };
            let Some(running) = self.network.all_running().into_iter().next() else { return };
            let written = running.replica.propose(shard, &[write.command()], Duration::from_secs(3)).await;
            if let Err(error) = written {
                self.judge.fail("liveness", format!("a fresh write: {error}"));
                return;
            }
        }
        let settled = || self.unsettled().is_none();
        if !self.until(RECOVERY, settled).await {
            self.judge.fail("liveness", "after a fresh write nodes do not agree again");
        }
    }

    /// What is not yet as it must be at rest.
    fn unsettled(&self) -> Option<String> {
        for shard in self.shards() {
            let Some(leader) = self.leader(shard) else { return Some(format!("{shard} has no leader")) };
            let applied = leader.machine.applied(shard);
            let members = leader.replica.shard_status(shard).map(|status| status.members).unwrap_or_default();
            for member in members.keys() {
                let Some(running) = self.network.running(member.0) else {
                    return Some(format!("{member}, of {shard}, does not run"));
                };
                if running.machine.applied(shard) != applied {
                    let found = running.machine.applied(shard);
                    return Some(format!(
                        "{member} has {shard} up to {found:?}, the leader up to {applied:?}"
                    ));
                }
                let status = running.replica.shard_status(shard);
                let follows = status.as_ref().and_then(|status| status.leader);
                if follows != Some(NodeId(leader.life.node)) {
                    return Some(format!("{member} takes {follows:?} for the leader of {shard}"));
                }
                let behind = self.engines.iter().find(|engine| {
                    shard_of(&engine.plan.stream.worker, self.plan.shards) == shard
                        && !running.machine.is_as(&engine.plan, &engine.now())
                });
                if let Some(engine) = behind {
                    let (life, next, truth) = engine.now();
                    let stamp = running.machine.stamp(&engine.plan.stream);
                    return Some(format!(
                        "{member} has {} at {stamp:?}, the engine is at batch {next} of life {life}; held and truth \
                         differ in {:?}",
                        engine.plan.stream,
                        running.machine.difference(&engine.plan.stream, &truth)
                    ));
                }
            }
        }
        None
    }

    /// The last look at everything.
    fn end(&self) {
        if self.judge.violation().is_none() {
            for running in self.network.all_running() {
                running.machine.show(|index, shares| {
                    if let Err(reason) = index.check_invariants() {
                        self.judge.fail("the index agrees with itself", reason);
                    }
                    let mut shares = shares.clone();
                    shares.retain(|shard, _| self.is_member(*shard, running.life.node));
                    self.judge.settled(&Settled { node: running.life.node, index, shares: &shares });
                });
            }
            self.judge.finish();
        }
        let (digest, count) = self.trace.digest();
        self.trace.say("ends", 0, format!("{count} events, {digest:016x}"));
        self.nodes.lock().clear();
        self.network.all_running().iter().for_each(|running| self.network.leave(running.life.node));
    }

    fn is_member(&self, shard: ShardId, node: u64) -> bool {
        let status = self.leader(shard).and_then(|leader| leader.replica.shard_status(shard));
        status.is_some_and(|status| status.members.contains_key(&NodeId(node)))
    }
}

/// A registration, for faults that take one back.
#[must_use]
pub(crate) fn registration(worker: WorkerId) -> ShardCommand {
    Command::Register(Box::new(spec(worker))).into()
}
