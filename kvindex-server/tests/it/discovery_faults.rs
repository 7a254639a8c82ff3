//! An API server that refuses, fails, lags and goes away: what is known stays, the reason has a name, and nothing is
//! forgotten on the word of half a view.

use kubefake::{Access, Resource};
use std::time::Duration;

use crate::api_server::{Server, config};
use crate::discovery_rig::{EnginePod, Kube, pods, until};

async fn server(kube: &Kube) -> Server {
    Server::with(config(|config| config.discovery = kube.settings())).await
}

async fn until_metric(server: &Server, line: &str) {
    for round in 0.. {
        let (_, metrics) = server.http("GET", "/metrics", "").await;
        if metrics.lines().any(|found| found == line) {
            return;
        }
        let found: Vec<&str> = metrics.lines().filter(|line| line.contains("discovery")).collect();
        assert!(round < 400, "{line}: {found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn condition(name: &str, holds: u8) -> String {
    format!("kvindex_discovery_condition{{condition=\"{name}\"}} {holds}")
}

/// Waits until a node that looks every 2 s has looked for sure.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(2500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_look_says_so_and_finds_everything_once_it_may() {
    for (access, name) in [
        (Access { forbidden: vec![("list", Resource::Pods)], ..Access::default() }, "forbidden"),
        (Access { token: Some("secret".into()), ..Access::default() }, "unauthorized"),
    ] {
        let kube = Kube::start().await;
        kube.run(&EnginePod::new("vllm-0", 5557));
        kube.fake.allow(access);
        let server = server(&kube).await;
        until_metric(&server, &condition(name, 1)).await;
        assert_eq!(server.http("GET", "/readyz", "").await.0, 200, "the node serves what it knows");
        kube.fake.allow(Access::default());
        until("found", || pods(&server.running) == ["vllm-0"]).await;
        until_metric(&server, &condition(name, 0)).await;
        server.running.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_taken_away_forget_nobody() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let server = server(&kube).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    let forbidden = vec![("list", Resource::Pods), ("watch", Resource::Pods)];
    kube.fake.allow(Access { forbidden, ..Access::default() });
    kube.fake.cut_watches();
    until_metric(&server, &condition("forbidden", 1)).await;
    kube.delete("vllm-0", 0);
    a_while().await;
    assert_eq!(pods(&server.running), ["vllm-0"], "nobody said that it is gone");
    kube.fake.allow(Access::default());
    until("gone", || pods(&server.running).is_empty()).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_takes_nobody_along() {
    let mut kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let server = server(&kube).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    kube.fake.stop();
    kube.delete("vllm-0", 0);
    kube.run(&EnginePod::new("vllm-1", 5557));
    until_metric(&server, &condition("unreachable", 1)).await;
    assert_eq!(pods(&server.running), ["vllm-0"]);
    kube.fake.listen().await.unwrap();
    until("the new one at the same address", || pods(&server.running) == ["vllm-1"]).await;
    until_metric(&server, &condition("unreachable", 0)).await;
    until_metric(&server, "kvindex_discovery_failing_seconds 0").await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_whole_forgets_nobody() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let mut settings = kube.settings();
    settings.resync = Duration::from_secs(1);
    let server = Server::with(config(|config| config.discovery = settings)).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    // The next complete list takes its time.
    kube.fake.fail(|faults| faults.slow_lists = Duration::from_secs(3));
    a_while().await;
    assert_eq!(pods(&server.running), ["vllm-0"]);
    kube.fake.fail(|faults| faults.slow_lists = Duration::ZERO);
    kube.run(&EnginePod::new("vllm-1", 5558));
    until("found by the list", || pods(&server.running) == ["vllm-0", "vllm-1"]).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_break_of_a_watch_ends_with_the_whole_truth() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let server = server(&kube).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    let breaks: [(&str, &dyn Fn()); 5] = [
        ("cut", &|| kube.fake.cut_watches()),
        ("half a line", &|| kube.fake.cut_watches_in_a_line()),
        ("expired", &|| {
            kube.fake.compact();
            kube.fake.expire_watches();
        }),
        ("too many requests", &|| kube.fake.fail_watches(429)),
        ("an error", &|| kube.fake.fail_watches(500)),
    ];
    for (number, (what, strike)) in (1..).zip(breaks) {
        strike();
        let (old, new) = (format!("vllm-{}", number - 1), format!("vllm-{number}"));
        kube.delete(&old, 0);
        kube.run(&EnginePod::new(&new, 5557));
        until(what, || pods(&server.running) == [new.as_str()]).await;
    }
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_somebody_unregisters_is_found_again() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let server = server(&kube).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    let id = crate::discovery_rig::discovered(&server.running)[0].definition.spec.id.clone();
    assert!(server.running.node().unregister(&id));
    until("found again", || pods(&server.running) == ["vllm-0"]).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_matches_nothing_names_what_there_is() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let mut settings = kube.settings();
    settings.pod_selector = Some("app=vlm".parse().unwrap());
    let server = Server::with(config(|config| config.discovery = settings.clone())).await;
    until_metric(&server, &condition("selects_nothing", 1)).await;
    server.running.shutdown().await.unwrap();
    let survey = kvindex_server::discovery::survey(&settings).await.unwrap();
    assert!(survey.nearest_text().contains("there is app=vllm (1)"), "{}", survey.nearest_text());
    let failed = survey.pods[0].verdict.reason();
    assert!(failed.contains("app=vlm: the pod has app=vllm"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_the_condition_has_a_name() {
    let kube = Kube::start().await;
    let mut settings = kube.settings();
    settings.kubeconfig = Some(kube.kubeconfig().with_extension("missing"));
    let server = Server::with(config(|config| config.discovery = settings)).await;
    until_metric(&server, &condition("not_configured", 1)).await;
    server.running.shutdown().await.unwrap();
}

/// A Role that forgets `watch`: each list is good, and each watch refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_list_without_one_to_watch_is_one_condition_and_no_flood_of_lists() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let forbidden = vec![("watch", Resource::Pods)];
    kube.fake.allow(Access { forbidden, ..Access::default() });
    let server = server(&kube).await;
    until_metric(&server, &condition("forbidden", 1)).await;
    let before = kube.fake.requests();
    for _ in 0..80 {
        let (_, metrics) = server.http("GET", "/metrics", "").await;
        assert!(metrics.contains(&condition("forbidden", 1)), "it is not over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A list and a watch a round; with no pause that grows there are sixteen rounds in 8 s.
    let requests = kube.fake.requests() - before;
    assert!(requests <= 16, "{requests} requests in 8 s");
    kube.fake.allow(Access::default());
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    until_metric(&server, &condition("forbidden", 0)).await;
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_ended_leaves_before_anybody_looks_around_for_labels() {
    let kube = Kube::start().await;
    kube.run(&EnginePod::new("vllm-0", 5557));
    let server = server(&kube).await;
    until("found", || pods(&server.running) == ["vllm-0"]).await;
    kube.fake.fail(|faults| faults.slow_lists = Duration::from_secs(8));
    let started = std::time::Instant::now();
    kube.delete("vllm-0", 0);
    until("gone", || pods(&server.running).is_empty()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "the survey came first: {took:?}");
    server.running.shutdown().await.unwrap();
}
