//! A node stops while engines speak, and another goes on where it was: no batch is lost, though no engine can repeat
//! one.

use kvindex_proto::v1;
use kvindex_recording::{EngineEndpoints, Pace, Publisher, PublisherOptions};
use kvindex_server::trust::TrustState;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster_rig::Rig;
use crate::ingest_node::{Follower, checkpoints};
use crate::ingest_rig::recording;

/// Every engine of a case becomes a worker, with no replay socket.
async fn register_all(rig: &mut Rig, publisher: &Publisher) {
    register_with(rig, publisher, |_| String::new()).await;
}

/// The same with replay sockets.
async fn register_with(rig: &mut Rig, publisher: &Publisher, replay: impl Fn(&EngineEndpoints) -> String) {
    for (number, engine) in publisher.endpoints().iter().enumerate() {
        let request = v1::RegisterRequest {
            worker_id: engine.name.clone(),
            model: "m".into(),
            engine_version: Some("0.33.0".into()),
            endpoint: engine.publish.clone(),
            replay_endpoint: replay(engine),
            ..v1::RegisterRequest::default()
        };
        rig.node(number % 3).register_as(request).await;
    }
}

/// Plays on without holding the runtime up.
async fn play(publisher: &Arc<Publisher>, until: usize) {
    let publisher = Arc::clone(publisher);
    tokio::task::spawn_blocking(move || publisher.play_until(until).unwrap()).await.unwrap();
}

/// Waits until a node's link to every engine is up.
async fn wait_connected(rig: &Rig, follower: &Follower) {
    let up = |engine| !follower.trust(engine).reason.contains("connected to");
    rig.wait("connected", |_| (0..follower.streams.len()).all(up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_while_engines_speak_costs_no_batch() {
    let checkpoints = checkpoints("dup");
    let (half, last) = (&checkpoints[checkpoints.len() / 2], checkpoints.last().unwrap());
    let mut rig = Rig::founded().await;
    let options = PublisherOptions { subscribers: 3, pace: Pace::Rate(40.0), ..PublisherOptions::default() };
    let publisher = Arc::new(Publisher::start(recording("dup"), options).unwrap());
    register_all(&mut rig, &publisher).await;
    let header = publisher.recording().header.clone();
    let followers: Vec<Follower> =
        (0..3).map(|seat| Follower::of(Arc::clone(rig.node(seat).running.node()), &header)).collect();
    for follower in &followers {
        rig.wait("known", |_| follower.node.known_workers().len() == follower.streams.len()).await;
        wait_connected(&rig, follower).await;
    }
    let everyone = Arc::clone(&publisher);
    let listening = move || everyone.wait_for_subscribers(Duration::from_secs(10));
    assert!(tokio::task::spawn_blocking(listening).await.unwrap(), "every node listens to every engine");
    play(&publisher, half.pos).await;

    // Engines speak on while the node that takes them in goes.
    let worker = &followers[0].streams[0].worker;
    let shard = rig.node(0).running.cluster().unwrap().replica().unwrap().shard_of(worker);
    let leader = rig.leader(usize::from(shard.0)).unwrap();
    tokio::join!(play(&publisher, last.pos), rig.stop(leader));
    let left = rig.taken();
    for seat in &left {
        let follower = &followers[*seat];
        for engine in 0..follower.streams.len() {
            let last = last.next_seq[engine].checked_sub(1);
            let there = |_: &Rig| {
                let trust = follower.trust(engine);
                trust.applied.map(|seq| seq.0) == last && trust.state == TrustState::Live
            };
            rig.wait(&format!("node {seat} has engine {engine} up to {last:?}"), there).await;
        }
        let answers = follower.answers(last);
        let wrong: Vec<_> = answers.iter().filter(|answer| answer.ours != answer.theirs).collect();
        assert!(wrong.is_empty(), "node {seat}: {wrong:?}");
        assert!(answers.iter().any(|answer| answer.theirs > 0), "nothing was compared");
    }
    rig.wait_equal().await;
    assert_eq!(publisher.stats().replay_requests, 0, "nobody could ask an engine again");

    // The node comes back, catches up, and gives the same answers.
    rig.start(leader).await;
    rig.wait_ready().await;
    rig.wait_equal().await;
    let back = Follower::of(Arc::clone(rig.node(leader).running.node()), &header);
    assert!(back.answers(last).iter().all(|answer| answer.ours == answer.theirs));
}

/// Leadership goes back to a node that was away only when it has listened for a while: what engines said just before
/// it came back it did not hear, and no engine can repeat it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_came_back_lately_does_not_lead() {
    let mut rig = Rig::founded().await;
    let publisher = Arc::new(Publisher::start(recording("dup"), PublisherOptions::default()).unwrap());
    register_all(&mut rig, &publisher).await;
    let follower =
        Follower::of(Arc::clone(rig.node(0).running.node()), &publisher.recording().header.clone());
    rig.wait("known", |_| follower.node.known_workers().len() == follower.streams.len()).await;
    let shard =
        rig.node(0).running.cluster().unwrap().replica().unwrap().shard_of(&follower.streams[0].worker);
    // Whom the shard goes back to: voters lead in turn.
    let seat = (0..3).find(|seat| rig.id(*seat) == u64::from(shard.0) % 3 + 1).unwrap();
    rig.stop(seat).await;
    rig.wait("another leads", |rig| rig.leader(usize::from(shard.0)).is_some()).await;
    // By now leadership would be handed back at once.
    tokio::time::sleep(Duration::from_secs(6)).await;
    rig.start(seat).await;
    let started = Instant::now();
    rig.wait("it leads again", |rig| rig.leader(usize::from(shard.0)) == Some(seat)).await;
    let after = started.elapsed();
    assert!(after >= Duration::from_secs(4), "it leads {after:?} after it came back");
}

/// The shard of a case's first engine, and the views of all nodes that run.
fn views(rig: &Rig, publisher: &Publisher) -> (usize, Vec<(usize, Follower)>) {
    let header = &publisher.recording().header;
    let views: Vec<_> = (rig.taken().into_iter())
        .map(|seat| (seat, Follower::of(Arc::clone(rig.running(seat).node()), header)))
        .collect();
    let (seat, first) = &views[0];
    let replica = rig.running(*seat).cluster().unwrap().replica().unwrap();
    (usize::from(replica.shard_of(&first.streams[0].worker).0), views)
}

/// Waits until every node says of every engine that it is live, and answers how long that took.
async fn all_live(rig: &Rig, publisher: &Publisher, when: &str) -> Duration {
    let (shard, views) = views(rig, publisher);
    let live = |view: &Follower| (0..view.streams.len()).all(|n| view.trust(n).state == TrustState::Live);
    // Not every node has applied their registration yet.
    let knows = |view: &Follower| view.node.known_workers().len() == view.streams.len();
    let started = Instant::now();
    while !views.iter().all(|(_, view)| knows(view) && live(view)) {
        let told: Vec<_> =
            views.iter().map(|(seat, view)| (seat, knows(view).then(|| view.trust(0)))).collect();
        let leader = rig.leader(shard);
        assert!(started.elapsed() < Duration::from_secs(10), "{when}: node {leader:?} leads: {told:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

/// An engine that has spoken and is silent is heard by asking it: the node that leads its stream asks what it holds,
/// and so does every other one for itself, whoever leads and whenever it began to listen.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_engine_is_live_at_every_node() {
    let mut rig = Rig::founded().await;
    let publisher = Arc::new(Publisher::start(recording("dup"), PublisherOptions::default()).unwrap());
    let everything = publisher.recording().records.len();
    register_with(&mut rig, &publisher, |engine| engine.replay.clone()).await;
    // One node hears it from the start, the others come when they can.
    play(&publisher, everything).await;
    all_live(&rig, &publisher, "at first").await;
    for round in 0..6 {
        let (shard, _) = views(&rig, &publisher);
        rig.wait("somebody leads", |rig| rig.leader(shard).is_some()).await;
        let heir = (rig.leader(shard).unwrap() + 1) % 3;
        rig.hand_over(0, shard, heir).await;
        rig.wait("it leads", |rig| rig.leader(shard) == Some(heir)).await;
        all_live(&rig, &publisher, &format!("handed over to {heir}, round {round}")).await;
    }
    for seat in 0..3 {
        rig.stop(seat).await;
        rig.start(seat).await;
        rig.wait_ready().await;
        // In its first seconds: if others listen for longer, it passes leadership on.
        let (shard, _) = views(&rig, &publisher);
        rig.hand_over(seat, shard, seat).await;
        all_live(&rig, &publisher, &format!("node {seat} has come back, to lead")).await;
    }
}
