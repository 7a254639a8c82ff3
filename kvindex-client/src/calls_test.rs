//! Second and repeated calls, with calls whose end each test decides.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::config::ClientConfig;

const MS: Duration = Duration::from_millis(1);

/// Of endpoints that nobody connects to.
fn client(endpoints: usize, hedge: Hedge) -> Client {
    let names = (1..=endpoints).map(|port| format!("http://127.0.0.1:{port}"));
    // Probes would say that nothing listens there.
    let config = ClientConfig::of(names).probe_interval(Duration::from_secs(3600)).hedge(hedge);
    Client::connect(config.routing_timeout(Duration::from_secs(2))).unwrap()
}

fn fresh((): &()) -> Option<Duration> {
    Some(Duration::ZERO)
}

/// Found by a review: calls that a second one overtook were missing among the times, so that only fast ones were left
/// there, and the second calls came sooner and sooner.
#[tokio::test]
async fn second_calls_do_not_make_themselves_come_sooner() {
    let client = client(2, Hedge::Usual);
    let usual = 20 * MS;
    (0..256).for_each(|_| client.pool().answered_in(usual));
    for number in 0..320 {
        // One in sixteen takes for ever at the first endpoint, and the others no time at all.
        let stalls = AtomicBool::new(number % 16 == 0);
        let call = |_| {
            let stalls = stalls.swap(false, Ordering::Relaxed);
            async move { if stalls { std::future::pending().await } else { Ok(Response::new(())) } }
        };
        client.ask(call, fresh).await.unwrap();
    }
    assert!(client.stats().hedges >= 20, "{:#?}", client.stats());
    let now = client.pool().usual(MS);
    assert!(now >= usual, "after {now:?} instead of {usual:?}");
}

/// Found by a review: the second call was made in addition to as many repeated ones as there may be.
#[tokio::test]
async fn a_second_call_counts_among_the_attempts() {
    let client = client(5, Hedge::After(300 * MS));
    let calls = AtomicUsize::new(0);
    let call = |_| {
        let number = calls.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if number < ATTEMPTS { Err(Status::unavailable("stops")) } else { std::future::pending().await }
        }
    };
    let failed: Result<(), CallError> = client.ask(call, fresh).await;
    assert!(matches!(failed, Err(CallError::TimedOut { .. })), "{failed:?}");
    assert_eq!((calls.into_inner(), client.stats().hedges), (ATTEMPTS, 0));
}

/// Found by a review: an old answer was thrown away when the endpoint that was asked after it refused.
#[tokio::test]
async fn an_old_answer_is_better_than_a_refusal() {
    let names = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
    let config = ClientConfig::of(names).probe_interval(Duration::from_secs(3600)).hedge(Hedge::Off);
    let client = Client::connect(config.max_age(MS)).unwrap();
    let first = AtomicBool::new(true);
    let call = |_| {
        let is_first = first.swap(false, Ordering::Relaxed);
        async move { if is_first { Ok(Response::new(())) } else { Err(Status::unauthenticated("who?")) } }
    };
    let answered = client.ask(call, |(): &()| Some(2 * MS)).await;
    assert!(answered.is_ok(), "{answered:?}");
    assert_eq!(
        (client.stats().endpoints.iter().map(|e| e.refused).sum::<u64>(), client.stats().unknown),
        (1, 0)
    );
}
