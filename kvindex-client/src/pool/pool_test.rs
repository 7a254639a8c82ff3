//! Which endpoint is picked, by what is known of each.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::error::Verdict;

const MS: Duration = Duration::from_millis(1);

/// A pool of endpoints that nobody connects to.
fn pool(servers: usize) -> (Running, Vec<Arc<Endpoint>>) {
    let names = (1..=servers).map(|port| format!("http://127.0.0.1:{port}"));
    // Probes would say that nothing listens there.
    let config = ClientConfig::of(names).probe_interval(Duration::from_secs(3600));
    let running = Running::start(&config).unwrap();
    let endpoints = running.pool.endpoints().to_vec();
    (running, endpoints)
}

fn picked(pool: &Pool, worst: Rank, times: usize) -> Vec<String> {
    let mut servers: Vec<String> =
        (0..times).filter_map(|_| pool.pick(worst, &[])).map(|endpoint| endpoint.server.clone()).collect();
    servers.sort();
    servers.dedup();
    servers
}

fn break_it(endpoint: &Endpoint) {
    for _ in 0..5 {
        endpoint.note(&Verdict::timed_out(), MS, true);
    }
}

#[tokio::test]
async fn all_are_picked_while_nothing_is_known() {
    let (running, endpoints) = pool(3);
    assert_eq!(picked(&running.pool, Rank::Good, 200).len(), 3);
    let others = running.pool.pick(Rank::Good, &endpoints[..2]).unwrap();
    assert!(Arc::ptr_eq(&others, &endpoints[2]), "what was tried is not tried again");
    assert!(running.pool.pick(Rank::Open, &endpoints).is_none());
}

#[tokio::test]
async fn slow_and_busy_ones_are_asked_less() {
    let (running, endpoints) = pool(2);
    for endpoint in &endpoints {
        endpoint.note(&Verdict::answered(), 2 * MS, true);
    }
    endpoints[0].note(&Verdict::answered(), 30 * MS, true);
    assert_eq!(picked(&running.pool, Rank::Good, 100), ["http://127.0.0.1:2"]);
    let waiting: Vec<Attempt> = (0..40).map(|_| endpoints[1].begin(true)).collect();
    assert_eq!(picked(&running.pool, Rank::Good, 100), ["http://127.0.0.1:1"], "forty wait for the other");
    drop(waiting);
}

#[tokio::test]
async fn a_node_that_refuses_at_once_does_not_look_fast() {
    let (running, endpoints) = pool(2);
    endpoints[0].note(&Verdict::answered(), 5 * MS, true);
    let overloaded = Verdict {
        outcome: crate::stats::Outcome::Overloaded,
        text: String::new(),
        unsent: false,
        penalty: 20 * MS,
    };
    endpoints[1].note(&overloaded, MS / 10, true);
    assert_eq!(picked(&running.pool, Rank::Good, 100), ["http://127.0.0.1:1"]);
    assert_eq!(running.pool.stats().endpoints[1].overloaded, 1);
    (0..50).for_each(|_| endpoints[1].note(&overloaded, MS / 10, true));
    assert_eq!(endpoints[1].rank(Instant::now()), Rank::Good, "too much to do is no fault");
}

#[tokio::test]
async fn those_left_out_are_picked_when_there_is_no_other() {
    let (running, endpoints) = pool(3);
    endpoints[0].probed(Err("says that it is not ready".into()));
    endpoints[1].note(&Verdict::stale(), MS, true);
    assert_eq!(picked(&running.pool, Rank::NotReady, 100), ["http://127.0.0.1:3"]);
    break_it(&endpoints[2]);
    assert_eq!(
        picked(&running.pool, Rank::NotReady, 100),
        ["http://127.0.0.1:2"],
        "behind comes before not ready"
    );
    break_it(&endpoints[1]);
    assert_eq!(picked(&running.pool, Rank::NotReady, 100), ["http://127.0.0.1:1"]);
    assert!(
        running.pool.is_better_elsewhere(&endpoints[2]) && !running.pool.is_better_elsewhere(&endpoints[0])
    );
    break_it(&endpoints[0]);
    assert!(running.pool.pick(Rank::NotReady, &[]).is_none(), "no call waits for a broken one");
    let text = running.pool.nobody().to_string();
    assert!(text.contains("http://127.0.0.1:2: calls to it fail (no answer in time)"), "{text}");
    assert!(running.pool.pick(Rank::Open, &[]).is_some(), "but people may want its error");
}

#[tokio::test]
async fn one_lost_probe_leaves_nobody_out() {
    let (_running, endpoints) = pool(2);
    let now = Instant::now();
    endpoints[0].silent("connection refused".into());
    assert_eq!(endpoints[0].rank(now), Rank::Good);
    endpoints[0].silent("connection refused".into());
    assert_eq!(endpoints[0].left_out(now).unwrap(), "connection refused");
    break_it(&endpoints[0]);
    endpoints[0].probed(Ok(()));
    assert_eq!(endpoints[0].rank(Instant::now()), Rank::Due, "it may be tried as soon as it answers probes");
    endpoints[0].note(&Verdict::answered(), MS, true);
    assert_eq!(endpoints[0].rank(Instant::now()), Rank::Good);
}

/// Found by a review: when its pause was over a broken endpoint counted as a good one, so that second calls, repeated
/// ones and streams went there first of all.
#[tokio::test]
async fn a_broken_one_is_tried_by_one_first_call_and_by_nothing_else() {
    let (running, endpoints) = pool(3);
    let pool = &running.pool;
    endpoints[0].silent("no answer".into());
    break_it(&endpoints[0]);
    // Its pause is over.
    endpoints[0].probed(Ok(()));
    assert_eq!(picked(pool, Rank::Good, 200), ["http://127.0.0.1:2", "http://127.0.0.1:3"]);
    assert_eq!(pool.stats().endpoints[0].state, crate::stats::EndpointState::Broken);
    for endpoint in &endpoints[1..] {
        endpoint.probed(Err("says that it is not ready".into()));
    }
    assert!(!pool.is_better_elsewhere(&endpoints[1]), "a broken one is no better than one that is not ready");
    let first = pool.first().unwrap();
    assert!(Arc::ptr_eq(&first, &endpoints[0]));
    let trial = first.begin(true);
    for _ in 0..100 {
        assert!(!Arc::ptr_eq(&pool.first().unwrap(), &endpoints[0]), "one call tries, and no other");
    }
    trial.end(&Verdict::answered());
    assert_eq!(endpoints[0].rank(Instant::now()), Rank::Good);
}

/// Found by a review: a client that makes nothing but admin calls never asked a node again that once broke.
#[tokio::test]
async fn a_broken_one_that_nobody_tries_is_asked_again_after_some_probes() {
    let (_running, endpoints) = pool(2);
    let endpoint = &endpoints[0];
    endpoint.silent("no answer".into());
    break_it(endpoint);
    for _ in 0..3 {
        endpoint.probed(Ok(()));
        assert_eq!(endpoint.rank(Instant::now()), Rank::Due);
    }
    endpoint.silent("no answer".into());
    for _ in 0..4 {
        assert_eq!(endpoint.rank(Instant::now()), Rank::Due, "in a row");
        endpoint.probed(Ok(()));
    }
    assert_eq!(endpoint.rank(Instant::now()), Rank::Good);
}

/// Found by a review: answers that lay in a stream since before the node died closed its breaker.
#[tokio::test]
async fn an_answer_that_is_read_late_does_not_close_a_breaker() {
    let (_running, endpoints) = pool(1);
    break_it(&endpoints[0]);
    endpoints[0].note(&Verdict::read_late(), MS, true);
    assert_eq!(endpoints[0].rank(Instant::now()), Rank::Open);
}
