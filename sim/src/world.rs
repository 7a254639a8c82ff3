//! One simulated life of a cluster, from its foundation through a storm of faults to rest.

use kvindex_core::replication::ShardId;
use kvindex_server::WorkerDefinition;
use kvindex_server::node::Origin;
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
use crate::invariants::Judge;
use crate::mutation::Mutation;
use crate::network::Network;
use crate::node::{Node, Running};
use crate::plan::Plan;
use crate::trace::Trace;
use crate::workers;

/// Virtual time in which a cluster must have recovered once nothing is broken any more: a node that lost everything
/// has joined anew by then, and its old id has left every shard, step by step.
const RECOVERY: Duration = Duration::from_secs(15);
/// Virtual time that engines go on after the storm.
const AFTERWARDS: Duration = Duration::from_millis(700);
/// How often a fresh write is tried.
const FRESH_TRIES: usize = 3;
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
    /// Nodes that are about to.
    leaving: Mutex<BTreeSet<u64>>,
    /// Held by whoever takes a node or its data away: one at a time, and until the cluster has got over it.
    pub operator: tokio::sync::Mutex<()>,
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
            judge: Judge::new(&plan, Arc::clone(&trace)),
            network: Network::new(plan.link, Dice::of(plan.seed, "network"), Arc::clone(&trace)),
            engines: plan.engines.iter().map(engine).collect(),
            nodes: Mutex::default(),
            left: Mutex::default(),
            leaving: Mutex::default(),
            operator: tokio::sync::Mutex::default(),
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

    /// A node is being removed: it may find that it was, and stop.
    pub(crate) fn dismiss(&self, number: u64) {
        self.leaving.lock().insert(number);
    }

    /// Takes a node out of the cluster's life, for good.
    pub(crate) fn retire(&self, number: u64) {
        self.left.lock().insert(number);
        if let Some(node) = self.nodes.lock().get(&number).cloned() {
            node.kill(self);
        }
    }

    /// How many nodes there ever were.
    pub(crate) fn nodes_ever(&self) -> u64 {
        self.nodes.lock().len() as u64
    }

    /// Everyone who runs and is a member.
    pub(crate) fn members(&self) -> Vec<Arc<Running>> {
        self.network.all_running().into_iter().filter(|running| running.replica().is_some()).collect()
    }

    /// The engine that publishes at an endpoint.
    pub(crate) fn engine_at(&self, endpoint: &str) -> Option<Arc<Engine>> {
        let mut engines = self.engines.iter();
        engines.find(|engine| workers::endpoint(&engine.plan.stream) == endpoint).cloned()
    }

    /// Who leads a shard, by the highest term.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<Arc<Running>> {
        let leaders = self.network.all_running().into_iter().filter(|running| running.leads(shard));
        leaders.max_by_key(|running| Some(running.replica()?.shard_status(shard)?.term))
    }

    /// All shards.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.plan.shards).map(ShardId)
    }

    /// A process could not start; only a broken disk excuses that, and that the node was removed.
    pub(crate) fn start_failed(&self, node: &Node, reason: &str, dismissed: bool) {
        self.trace.say("no start", node.number, reason);
        let removed = dismissed && self.leaving.lock().contains(&node.number);
        if !node.disk.was_full() && !removed {
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

    /// Nodes find each other and found the cluster; nobody tells them to.
    async fn found(self: &Arc<Self>) -> bool {
        for _ in 0..self.plan.nodes {
            self.add_node();
        }
        let workers = tokio::spawn(Arc::clone(self).register_all());
        if self.plan.rough {
            return true;
        }
        let fine = self.until(RECOVERY, || workers.is_finished()).await;
        if !fine {
            self.judge.fail("a cluster can be founded", format!("it was not: {}", self.obstacles()));
        }
        fine
    }

    /// What stands in the way of the nodes' membership.
    fn obstacles(&self) -> String {
        let running = self.network.all_running();
        let obstacles =
            running.iter().map(|one| format!("node {}: {}", one.life.node, one.cluster.waits_for()));
        obstacles.collect::<Vec<_>>().join("; ")
    }

    async fn register_all(self: Arc<Self>) {
        let engines: Vec<EnginePlan> = self.engines.iter().map(|engine| engine.plan.clone()).collect();
        for (turn, worker) in workers::all(&engines).into_iter().enumerate() {
            // Whoever registers asks until there is an answer; registering again changes nothing.
            for node in turn.. {
                let members = self.members();
                if let Some(running) = members.get(node % members.len().max(1))
                    && self.register(running, worker.clone()).await
                {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Registers a worker through a node; whether it surely is.
    pub(crate) async fn register(&self, running: &Arc<Running>, worker: WorkerDefinition) -> bool {
        let there = Arc::clone(running);
        let registered = running.life.spawn(async move {
            there.life.gate.pass().await;
            let registered = there.cluster.register(worker, Origin::Registered, true).await;
            there.life.gate.pass().await;
            registered.is_ok()
        });
        registered.await.unwrap_or(false)
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
        if !self.fresh_write().await {
            self.judge.fail("liveness", "a fresh write is not acknowledged");
            return;
        }
        let settled = || self.unsettled().is_none();
        if !self.until(RECOVERY, settled).await {
            self.judge.fail("liveness", "after a fresh write nodes do not agree again");
        }
    }

    /// A register of every shard that no client knows is written through any node; a change of leaders may come between.
    async fn fresh_write(&self) -> bool {
        for shard in self.shards() {
            let Some(id) = workers::register_id(shard, workers::REGISTERS, self.plan.shards) else {
                return false;
            };
            let mut done = false;
            for _ in 0..FRESH_TRIES {
                let Some(running) = self.members().into_iter().next() else { return false };
                done = done || self.register(&running, workers::register(id.clone(), self.number())).await;
            }
            if !done {
                return false;
            }
        }
        true
    }

    /// The last look at everything.
    fn end(&self) {
        if self.judge.violation().is_none() {
            for running in self.members() {
                if let Err(reason) = running.server.look(|index| index.check_invariants()) {
                    self.judge.fail("the index agrees with itself", reason);
                }
                running.witness.show(|share| self.judge.settled(share));
            }
            self.judge.finish();
        }
        let (digest, count) = self.trace.digest();
        self.trace.say("ends", 0, format!("{count} events, {digest:016x}"));
        self.nodes.lock().clear();
        self.network.all_running().iter().for_each(|running| self.network.leave(running.life.node));
    }
}
