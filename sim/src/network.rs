//! The network between nodes: every message has its own delay, so messages overtake each other; some are lost on the
//! way there or back, some come twice, and links can be cut in one direction or both.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvindex_core::replication::{NodeAddress, Transport, TransportError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use crate::dice::Dice;
use crate::life::Life;
use crate::node::Running;
use crate::trace::Trace;

/// How messages fare in one direction between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Milliseconds on the way, from and below.
    pub delay_ms: (u64, u64),
    /// Messages in a thousand that are lost.
    pub lost: u32,
    /// A shard's requests in a thousand that come twice.
    pub doubled: u32,
    /// Nothing gets through.
    pub cut: bool,
}

/// First byte of what nodes say to each other beside their shards' messages.
const NODE_MESSAGE: u8 = 0;

/// The address of a node.
#[must_use]
pub(crate) fn address(node: u64) -> NodeAddress {
    NodeAddress { peer: format!("node-{node}:1"), public: format!("node-{node}:2") }
}

/// The node at an address.
#[must_use]
pub(crate) fn node_at(address: &str) -> u64 {
    address.trim_start_matches("node-").split(':').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// All links, and who is there.
#[derive(Debug)]
pub(crate) struct Network {
    usual: Mutex<Link>,
    links: Mutex<BTreeMap<(u64, u64), Link>>,
    present: Mutex<BTreeMap<u64, Arc<Running>>>,
    dice: Mutex<Dice>,
    trace: Arc<Trace>,
}

/// What becomes of one message.
enum Fate {
    Answer(Bytes),
    Nobody,
    Lost,
}

impl Network {
    /// A network whose links usually are so.
    #[must_use]
    pub(crate) fn new(usual: Link, dice: Dice, trace: Arc<Trace>) -> Arc<Self> {
        let (links, present) = (Mutex::default(), Mutex::default());
        let usual = Mutex::new(usual);
        Arc::new(Self { usual, links, present, dice: Mutex::new(dice), trace })
    }

    /// A process answers from now on.
    pub(crate) fn join(&self, running: &Arc<Running>) {
        self.present.lock().insert(running.life.node, Arc::clone(running));
    }

    /// A node answers no more.
    pub(crate) fn leave(&self, node: u64) {
        self.present.lock().remove(&node);
    }

    /// Who runs on a node.
    pub(crate) fn running(&self, node: u64) -> Option<Arc<Running>> {
        self.present.lock().get(&node).cloned()
    }

    /// All who run, in order.
    pub(crate) fn all_running(&self) -> Vec<Arc<Running>> {
        self.present.lock().values().cloned().collect()
    }

    /// Changes a link in one direction.
    pub(crate) fn change(&self, from: u64, to: u64, change: impl FnOnce(&mut Link)) {
        let usual = *self.usual.lock();
        change(self.links.lock().entry((from, to)).or_insert(usual));
    }

    /// Nothing is cut, slow or lost any more, for good.
    pub(crate) fn heal(&self) {
        let mut usual = self.usual.lock();
        (usual.lost, usual.doubled) = (0, 0);
        self.links.lock().clear();
    }

    fn link(&self, from: u64, to: u64) -> Link {
        let usual = *self.usual.lock();
        self.links.lock().get(&(from, to)).copied().unwrap_or(usual)
    }

    fn delay(&self, link: Link) -> Duration {
        let (from, below) = link.delay_ms;
        Duration::from_millis(self.dice.lock().within(from..below))
    }

    /// Whether a message that sets out now arrives, and when.
    fn draw(&self, from: u64, to: u64) -> Option<Duration> {
        let link = self.link(from, to);
        let delay = self.delay(link);
        let lost = self.dice.lock().permille(link.lost);
        (!link.cut && !lost).then_some(delay)
    }

    fn doubles(&self, from: u64, to: u64) -> bool {
        let link = self.link(from, to);
        self.dice.lock().permille(link.doubled)
    }

    async fn carry(self: Arc<Self>, from: u64, to: u64, request: Bytes) -> Fate {
        let Some(delay) = self.draw(from, to) else { return Fate::Lost };
        sleep(delay).await;
        let Some(running) = self.running(to) else { return Fate::Nobody };
        running.life.gate.pass().await;
        if self.link(from, to).cut || running.life.is_over() {
            return Fate::Lost;
        }
        self.trace.note("takes", to, [from, request.len() as u64, xxh3_64(&request)]);
        let there = Arc::clone(&running);
        let handled = running.life.spawn(async move { there.handle(request).await });
        let Ok(answer) = handled.await else { return Fate::Lost };
        running.life.gate.pass().await;
        if running.life.is_over() {
            return Fate::Lost;
        }
        let Some(delay) = self.draw(to, from) else { return Fate::Lost };
        sleep(delay).await;
        if self.link(to, from).cut { Fate::Lost } else { Fate::Answer(answer) }
    }
}

/// The network as one process uses it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The network.
    pub network: Arc<Network>,
    /// Whose end this is.
    pub life: Arc<Life>,
}

impl Transport for Wire {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let deadline = Instant::now() + timeout;
        let unreachable =
            |reason: &str| TransportError::Unreachable { address: address.into(), reason: reason.into() };
        async move {
            self.life.gate.pass().await;
            if self.life.is_over() {
                return Err(unreachable("this process was killed"));
            }
            let (from, to) = (self.life.node, node_at(address));
            self.network.trace.note("sends", from, [to, request.len() as u64, xxh3_64(&request)]);
            // Shards take whatever comes twice. What nodes say beside that relies on a connection, which doubles nothing.
            let of_a_shard = request.first() != Some(&NODE_MESSAGE);
            if of_a_shard && self.network.doubles(from, to) {
                tokio::spawn(Arc::clone(&self.network).carry(from, to, request.clone()));
            }
            let (sender, receiver) = oneshot::channel();
            let carried = Arc::clone(&self.network).carry(from, to, request);
            tokio::spawn(async move { drop(sender.send(carried.await)) });
            let fate = timeout_at(deadline, receiver).await;
            self.life.gate.pass().await;
            match fate {
                Ok(Ok(Fate::Answer(answer))) => return Ok(answer),
                Ok(Ok(Fate::Nobody)) => return Err(unreachable("nobody is there")),
                Ok(Ok(Fate::Lost) | Err(_)) => sleep_until(deadline).await,
                Err(_) => {}
            }
            Err(TransportError::Timeout { address: address.into(), after: timeout })
        }
        .boxed()
    }
}
