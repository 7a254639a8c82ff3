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
use tokio::time::Instant;

use kvindex_core::replication::{Replica, Role, ShardId, encode};
use kvindex_core::{StreamId, WorkerId};

use super::Cluster;
use super::streams::{Streams, Wanted};
use super::warmth::WARM;
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
    /// Since when each stream is followed here.
    listening: Mutex<BTreeMap<StreamId, Instant>>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    followed: BTreeMap<StreamId, Followed>,
    /// Shards that this node leads with everything before applied, and in which term.
    ready: BTreeMap<ShardId, u64>,
}

impl Seats {
    /// Streams that are led as of a term which is over, perhaps in a later one: another node may have led in between,
    /// and what they went on from does not hold any more. They are not led from here on.
    fn overtaken(
        &mut self,
        terms: &BTreeMap<ShardId, u64>,
        shard_of: impl Fn(&StreamId) -> ShardId,
    ) -> Vec<StreamId> {
        let overtaken = self.followed.iter_mut().filter_map(|(stream, followed)| {
            let over = Some(&followed.led?) != terms.get(&shard_of(stream));
            over.then(|| followed.led = None).map(|()| stream.clone())
        });
        overtaken.collect()
    }
}

#[derive(Debug)]
struct Followed {
    wanted: Wanted,
    /// The shard's term in which its events are taken in here.
    led: Option<u64>,
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

/// A stream on its way to standby. If nobody waits until it is there, what it proposed may come yet: before it is led
/// again its shard is made sure of, as for one that fell back.
struct Parting<'a> {
    steering: &'a Steering,
    stream: Option<StreamId>,
}

impl Parting<'_> {
    fn end(mut self) {
        self.stream = None;
    }
}

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.steering.fell_back(&[stream]);
        }
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
        let all_ready = cluster.steering.look(&cluster, &member.replica).await;
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
            listening: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn fell_back(&self, streams: &[StreamId]) {
        self.fallen.lock().extend(streams.iter().cloned());
        self.wake.notify_one();
    }

    /// Whether every stream of a shard is followed here for long enough; see [`warmth`](super::warmth).
    pub(super) fn is_warm(&self, node: &Node, replica: &Replica, shard: ShardId) -> bool {
        let listening = self.listening.lock();
        let warm = |stream: &StreamId| listening.get(stream).is_some_and(|since| since.elapsed() >= WARM);
        // Without standby nobody listens before it leads.
        !self.standby
            || wanted(node).keys().filter(|stream| replica.shard_of(&stream.worker) == shard).all(warm)
    }

    /// Keeps a worker's events from being proposed here until the answer is dropped.
    pub(super) async fn hold(&self, worker: &WorkerId) -> Held<'_> {
        let mut seats = self.seats.lock().await;
        *self.held.lock().entry(worker.clone()).or_default() += 1;
        let held = Held { steering: self, worker: worker.clone() };
        for (stream, followed) in seats.followed.iter_mut().filter(|(stream, _)| stream.worker == *worker) {
            if followed.led.take().is_some() {
                // Whoever asked for the change may go away while this waits.
                let parting = Parting { steering: self, stream: Some(stream.clone()) };
                self.streams.stand_by(stream).await;
                parting.end();
            }
        }
        held
    }

    /// Answers whether every shard that this node leads is ready for its streams.
    async fn look(&self, cluster: &Cluster, replica: &Replica) -> bool {
        let node = &*cluster.node;
        let mut seats = self.seats.lock().await;
        for stream in std::mem::take(&mut *self.fallen.lock()) {
            // What it proposed may come yet: its shard is made sure of again.
            seats.ready.remove(&replica.shard_of(&stream.worker));
            if let Some(followed) = seats.followed.get_mut(&stream) {
                followed.led = None;
            }
        }
        let all_ready = self.make_sure(&mut seats, cluster, replica).await;
        let wanted = wanted(node);
        self.leave_others(&mut seats, &wanted, replica).await;
        for (stream, wanted) in wanted {
            let leads = seats.ready.get(&replica.shard_of(&wanted.worker)).copied();
            self.seat(&mut seats, node, (stream, wanted), leads).await;
        }
        all_ready
    }

    /// Shards that this node has come to lead commit an empty entry. Answers whether all of them have.
    async fn make_sure(&self, seats: &mut Seats, cluster: &Cluster, replica: &Replica) -> bool {
        let Ok(nothing) = encode(&[]) else { return true };
        let led: BTreeMap<ShardId, u64> = (replica.status().into_iter())
            .filter(|status| status.role == Role::Leader)
            .map(|status| (status.shard, status.term))
            .collect();
        seats.ready.retain(|shard, term| led.get(shard) == Some(term));
        // Before the entry, which then comes after all that they proposed.
        for stream in seats.overtaken(&led, |stream| replica.shard_of(&stream.worker)) {
            self.streams.stand_by(&stream).await;
        }
        let new = led.iter().filter(|(shard, _)| !seats.ready.contains_key(shard));
        let committed = new.map(async |(shard, term)| {
            if cluster.passes_on(*shard).await {
                return None;
            }
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
            self.listening.lock().remove(&stream);
        }
    }

    async fn seat(
        &self,
        seats: &mut Seats,
        node: &Node,
        (stream, wanted): (StreamId, Wanted),
        leads: Option<u64>,
    ) {
        if !seats.followed.contains_key(&stream) {
            if leads.is_none() && !self.standby {
                return;
            }
            if let Err(error) = self.streams.follow(wanted.source.clone()).await {
                tracing::warn!(%stream, %error, "cannot be followed here");
                return;
            }
            self.listening.lock().insert(stream.clone(), Instant::now());
            seats.followed.insert(stream.clone(), Followed { wanted, led: None });
        }
        let Some(followed) = seats.followed.get_mut(&stream) else { return };
        let leads = leads.filter(|_| !self.held.lock().contains_key(&stream.worker));
        if leads != followed.led {
            followed.led = leads;
            match leads {
                Some(_) => self.streams.lead(&stream, node.resume(&stream)).await,
                None => self.streams.stand_by(&stream).await,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ingest::{IngestError, Resume, Subscription};
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, pending};
    use kvindex_core::{DpRank, EngineProfile, GapPolicy, Registration};

    fn stream(shard: u16) -> StreamId {
        StreamId { worker: WorkerId::new(format!("w{shard}")).unwrap(), dp_rank: DpRank(0) }
    }

    fn followed(stream: &StreamId, led: Option<u64>) -> Followed {
        let source = Subscription {
            stream: stream.clone(),
            registration: Registration(1),
            profile: EngineProfile::default(),
            endpoint: "tcp://127.0.0.1:1".into(),
            replay_endpoint: None,
            topic: String::new(),
            gap_policy: GapPolicy::Purge,
            hash_profile: None,
        };
        Followed { wanted: Wanted { worker: stream.worker.clone(), since: 0, source }, led }
    }

    /// Ingest that waits in its sink for as long as anybody cares to wait.
    #[derive(Debug)]
    struct Stuck;

    impl Streams for Stuck {
        fn follow(&self, _: Subscription) -> BoxFuture<'_, Result<(), IngestError>> {
            pending().boxed()
        }
        fn leave<'a>(&'a self, _: &'a StreamId) -> BoxFuture<'a, ()> {
            pending().boxed()
        }
        fn lead<'a>(&'a self, _: &'a StreamId, _: Option<Resume>) -> BoxFuture<'a, ()> {
            pending().boxed()
        }
        fn stand_by<'a>(&'a self, _: &'a StreamId) -> BoxFuture<'a, ()> {
            pending().boxed()
        }
    }

    #[tokio::test]
    async fn a_change_that_nobody_waits_for_any_more_leaves_its_streams_to_be_made_sure_of() {
        let (steering, one) = (Steering::new(Arc::new(Stuck), true), stream(0));
        steering.seats.lock().await.followed.insert(one.clone(), followed(&one, Some(3)));
        let gone = tokio::time::timeout(Duration::from_millis(20), steering.hold(&one.worker)).await;
        assert!(gone.is_err() && steering.held.lock().is_empty());
        assert!(steering.fallen.lock().contains(&one));
    }

    /// A look around may take seconds, so a node may lose a shard and lead it again between two of them.
    #[test]
    fn a_stream_does_not_go_on_in_a_later_term_of_its_shard() {
        let (mut seats, terms) = (Seats::default(), BTreeMap::from([(ShardId(0), 3), (ShardId(1), 5)]));
        for (shard, led) in [(0, Some(3)), (1, Some(3)), (2, Some(3)), (3, None)] {
            seats.followed.insert(stream(shard), followed(&stream(shard), led));
        }
        let shard_of = |of: &StreamId| ShardId(of.worker.as_str()[1..].parse().unwrap());
        assert_eq!(seats.overtaken(&terms, shard_of), [stream(1), stream(2)]);
        let led: Vec<Option<u64>> = seats.followed.values().map(|followed| followed.led).collect();
        assert_eq!(led, [Some(3), None, None, None]);
        assert_eq!(seats.overtaken(&terms, shard_of), []);
    }
}
