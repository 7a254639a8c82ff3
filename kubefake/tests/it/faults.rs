//! What the stand-in does on demand, seen by the client that has to live with it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, WatchParams};
use kube::runtime::watcher;
use kubefake::{Access, Key, Resource};
use serde_json::json;
use std::time::Duration;

use crate::rig::{Rig, Watched};

/// A watch that has seen pod a.
async fn watching() -> (Rig, Watched) {
    let rig = Rig::fake().await;
    rig.create("a").await;
    let mut watch = rig.watch(watcher::Config::default().labels(&rig.selector()));
    assert_eq!(watch.take(3).await, ["begin", "listed a", "whole"]);
    // The list is whole before the watch is there.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let quiet = watch.is_quiet(Duration::from_millis(200)).await;
    assert!(quiet);
    (rig, watch)
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_from_where_it_was() {
    for half in [false, true] {
        let (mut rig, mut watch) = watching().await;
        if half {
            rig.the_fake().cut_watches_in_a_line();
        } else {
            rig.the_fake().cut_watches();
        }
        rig.create("b").await;
        let mut events = Vec::new();
        while events.last().is_none_or(|event| event != "changed b") {
            events.push(watch.next().await);
        }
        assert!(events.len() <= 3 && !events.contains(&"begin".to_owned()), "{half}: {events:?}");
    }
}

#[tokio::test]
async fn a_version_that_is_too_old_is_told_in_the_stream_or_by_the_status() {
    for in_stream in [false, true] {
        let (mut rig, _) = watching().await;
        let version =
            rig.pods().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        rig.create("b").await;
        rig.the_fake().compact();
        rig.the_fake().fail(|faults| faults.expire_in_stream = in_stream);
        let watch = rig.pods().watch(&WatchParams::default(), &version).await;
        assert_eq!(watch.is_err(), !in_stream);
        if let Err(error) = watch {
            assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error}");
        }
    }
    let (mut rig, mut watch) = watching().await;
    rig.the_fake().expire_watches();
    let told = watch.next().await;
    assert!(told.contains("too old resource version"), "{told}");
    assert_eq!(watch.take(3).await, ["begin", "listed a", "whole"]);
}

#[tokio::test]
async fn a_list_whose_pages_expired_begins_again() {
    let mut rig = Rig::fake().await;
    rig.create("a").await;
    rig.create("b").await;
    let mut params = ListParams::default().limit(1);
    params.continue_token = rig.pods().list(&params).await.unwrap().metadata.continue_;
    rig.the_fake().compact();
    let error = rig.pods().list(&params).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error}");
}

#[tokio::test]
async fn a_server_that_comes_back_has_what_it_had() {
    let (mut rig, mut watch) = watching().await;
    rig.the_fake().stop();
    assert!(watch.next().await.starts_with("error: "));
    assert!(rig.pods().list(&ListParams::default()).await.is_err());
    rig.the_fake().listen().await.unwrap();
    rig.create("b").await;
    while watch.next().await != "changed b" {}
}

#[tokio::test]
async fn bookmarks_carry_the_version() {
    let mut rig = Rig::fake().await;
    rig.create("a").await;
    rig.the_fake().fail(|faults| faults.bookmark_every = Duration::from_millis(50));
    let params = WatchParams::default().labels("none=none").timeout(5);
    let mut events = Box::pin(rig.pods().watch(&params, "0").await.unwrap());
    let bookmark = futures_util::StreamExt::next(&mut events).await.unwrap().unwrap();
    let kube::api::WatchEvent::Bookmark(bookmark) = bookmark else { panic!("{bookmark:?}") };
    let listed = rig.pods().list(&ListParams::default()).await.unwrap();
    assert_eq!(Some(bookmark.metadata.resource_version), listed.metadata.resource_version);
}

#[tokio::test]
async fn rights_are_checked_and_errors_are_given_on_demand() {
    let mut rig = Rig::fake().await;
    let code = async |rig: &Rig| match rig.pods().list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => status.code,
        Ok(_) => 200,
        Err(other) => panic!("{other}"),
    };
    rig.the_fake().allow(Access { token: Some("secret".into()), ..Access::default() });
    assert_eq!(code(&rig).await, 401);
    rig.the_fake().allow(Access { forbidden: vec![("list", Resource::Pods)], ..Access::default() });
    assert_eq!(code(&rig).await, 403);
    rig.the_fake().allow(Access { namespace: Some("test".into()), ..Access::default() });
    assert_eq!(code(&rig).await, 200);
    let everywhere: Api<Pod> = Api::all(rig.client.clone());
    assert!(everywhere.list(&ListParams::default()).await.is_err());
    for answer in [429, 500] {
        rig.the_fake().fail(|faults| faults.answer = Some(answer));
        assert_eq!(code(&rig).await, answer);
    }
    rig.the_fake().fail(|faults| faults.answer = None);
    assert_eq!(code(&rig).await, 200);
}

#[tokio::test]
async fn a_pod_on_a_node_terminates_until_its_grace_is_over() {
    let mut rig = Rig::fake().await;
    let key = Key::new(Resource::Pods, "test", "p");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": []}]}});
    rig.the_fake().run(&key, &pod);
    let running = rig.pods().get("p").await.unwrap();
    let status = running.status.unwrap();
    assert!(status.container_statuses.unwrap()[0].state.as_ref().unwrap().running.is_some());
    rig.pods().delete("p", &DeleteParams::default().grace_period(1)).await.unwrap();
    let terminating = rig.pods().get("p").await.unwrap();
    assert!(terminating.metadata.deletion_timestamp.is_some());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(rig.pods().get("p").await.is_err());
}
