//! Who follows which engine: the leader of a worker's shard takes its events in, the others listen and keep them.
//!
//! One task compares what should be with what is, whenever workers, leaders or streams change and once a second. A
//! new leader first commits an empty entry: then everything that earlier leaders proposed is applied or void, and
//! its streams begin where the index stands.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use kvindex_core::replication::{Replica, Role, ShardId, encode};
use kvindex_core::{StreamId, WorkerId};

use super::Cluster;
use super::streams::{Streams, Wanted};
use crate::node::Node;

/// A look at everything, even if nothing was told.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a new leader tries to commit its first entry before it looks around again: the streams of other shards
/// wait meanwhile.
const FIRST_ENTRY: Duration = Duration::from_millis(300);
/// When to look again if a shard's first entry is not committed.
const SOON: Duration = Duration::from_millis(50);

/// The task's state, and what others tell it.
#[derive(Debug)]
pub(super) struct Steering {
    streams: Arc<dyn Streams>,
    standby: bool,
    seats: tokio::sync::Mutex<Seats>,
    /// Workers that are being changed, and by how many calls.
    held: Mutex<BTreeMap<WorkerId, usize>>,
    /// Streams that fell back to standby by themselves.
    fallen: Mutex<BTreeSet<StreamId>>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    followed: BTreeMap<StreamId, Followed>,
    /// Shards that this node leads with everything before applied, and in which term.
    ready: BTreeMap<ShardId, u64>,
}

#[derive(Debug)]
struct Followed {
    wanted: Wanted,
    led: bool,
}

/// While this lives, none of a worker's events are proposed here.
#[derive(Debug)]
pub(super) struct Held<'a> {
    steering: &'a Steering,
    worker: WorkerId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.steering.held.lock();
        if let Some(count) = held.get_mut(&self.worker) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.worker);
            }
        }
        self.steering.wake.notify_one();
    }
}

/// Looks around for as long as the node runs.
pub(super) async fn run(cluster: Arc<Cluster>) {
    cluster.until_joined().await;
    let Some(member) = cluster.member.get() else { return };
    let mut workers = member.machine.changes();
    loop {
        // Before the look, so that no change falls between the two.
        let leaders = member.replica.watch();
        let all_ready = cluster.steering.look(&cluster.node, &member.replica).await;
        tokio::select! {
            biased;
            () = leaders => {}
            _ = workers.changed() => {}
            () = cluster.steering.wake.notified() => {}
            () = tokio::time::sleep(if all_ready { PERIOD } else { SOON }) => {}
        }
    }
}

impl Steering {
    pub(super) fn new(streams: Arc<dyn Streams>, standby: bool) -> Self {
        Self {
            streams,
            standby,
            seats: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            fallen: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn fell_back(&self, streams: &[StreamId]) {
        self.fallen.lock().extend(streams.iter().cloned());
        self.wake.notify_one();
    }

    /// Keeps a worker's events from being proposed here until the answer is dropped.
    pub(super) async fn hold(&self, worker: &WorkerId) -> Held<'_> {
        let mut seats = self.seats.lock().await;
        *self.held.lock().entry(worker.clone()).or_default() += 1;
        let held = Held { steering: self, worker: worker.clone() };
        for (stream, followed) in seats.followed.iter_mut().filter(|(stream, _)| stream.worker == *worker) {
            if std::mem::take(&mut followed.led) {
                self.streams.stand_by(stream).await;
            }
        }
        held
    }

    /// Answers whether every shard that this node leads is ready for its streams.
    async fn look(&self, node: &Node, replica: &Replica) -> bool {
        let mut seats = self.seats.lock().await;
        for stream in std::mem::take(&mut *self.fallen.lock()) {
            // What it proposed may come yet: its shard is made sure of again.
            seats.ready.remove(&replica.shard_of(&stream.worker));
            if let Some(followed) = seats.followed.get_mut(&stream) {
                followed.led = false;
            }
        }
        let all_ready = self.make_sure(&mut seats, replica).await;
        let wanted = wanted(node);
        self.leave_others(&mut seats, &wanted, replica).await;
        for (stream, wanted) in wanted {
            let leads = seats.ready.contains_key(&replica.shard_of(&wanted.worker));
            self.seat(&mut seats, node, (stream, wanted), leads).await;
        }
        all_ready
    }

    /// Shards that this node has come to lead commit an empty entry. Answers whether all of them have.
    async fn make_sure(&self, seats: &mut Seats, replica: &Replica) -> bool {
        let Ok(nothing) = encode(&[]) else { return true };
        let led: BTreeMap<ShardId, u64> = (replica.status().into_iter())
            .filter(|status| status.role == Role::Leader)
            .map(|status| (status.shard, status.term))
            .collect();
        seats.ready.retain(|shard, term| led.get(shard) == Some(term));
        let new = led.iter().filter(|(shard, _)| !seats.ready.contains_key(shard));
        let committed = new.map(async |(shard, term)| {
            let done = replica.propose_here(*shard, Bytes::clone(&nothing), FIRST_ENTRY).await;
            done.is_ok_and(|(at, _)| at.term == *term).then_some((*shard, *term))
        });
        let committed = futures_util::future::join_all(committed).await;
        seats.ready.extend(committed.into_iter().flatten());
        led.keys().all(|shard| seats.ready.contains_key(shard))
    }

    async fn leave_others(&self, seats: &mut Seats, wanted: &BTreeMap<StreamId, Wanted>, replica: &Replica) {
        let stays = |stream: &StreamId, followed: &Followed, ready: &BTreeMap<ShardId, u64>| {
            let led = ready.contains_key(&replica.shard_of(&stream.worker));
            wanted.get(stream) == Some(&followed.wanted) && (self.standby || led)
        };
        let ready = seats.ready.clone();
        let gone: Vec<StreamId> = (seats.followed.iter())
            .filter(|(stream, followed)| !stays(stream, followed, &ready))
            .map(|(stream, _)| stream.clone())
            .collect();
        for stream in gone {
            self.streams.leave(&stream).await;
            seats.followed.remove(&stream);
        }
    }

    async fn seat(&self, seats: &mut Seats, node: &Node, (stream, wanted): (StreamId, Wanted), leads: bool) {
        if !seats.followed.contains_key(&stream) {
            if !leads && !self.standby {
                return;
            }
            if let Err(error) = self.streams.follow(wanted.source.clone()).await {
                tracing::warn!(%stream, %error, "cannot be followed here");
                return;
            }
            seats.followed.insert(stream.clone(), Followed { wanted, led: false });
        }
        let Some(followed) = seats.followed.get_mut(&stream) else { return };
        let leads = leads && !self.held.lock().contains_key(&stream.worker);
        if leads != followed.led {
            followed.led = leads;
            match leads {
                true => self.streams.lead(&stream, node.resume(&stream)).await,
                false => self.streams.stand_by(&stream).await,
            }
        }
    }
}

/// Every stream of every known worker.
fn wanted(node: &Node) -> BTreeMap<StreamId, Wanted> {
    let workers = node.known_workers();
    let streams = workers.iter().flat_map(|known| {
        let worker = known.definition.spec.id.clone();
        Node::subscriptions(known).into_iter().map(move |source| {
            let wanted = Wanted { worker: worker.clone(), since: known.since, source };
            (wanted.source.stream.clone(), wanted)
        })
    });
    streams.collect()
}
