//! What any API server does: run it with `KVINDEX_TEST_KUBECONFIG` against a real one.

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::json;
use std::time::Duration;

use crate::rig::Rig;

async fn label(rig: &Rig, name: &str, value: &str) -> Pod {
    let patch = json!({"metadata": {"labels": {"app": value}}});
    rig.pods().patch(&rig.name(name), &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
}

fn watched(selector: &str) -> watcher::Config {
    watcher::Config::default().labels(selector)
}

#[tokio::test]
async fn a_list_in_pages_is_followed_by_every_change() {
    let rig = Rig::any().await;
    for name in ["a", "b", "c"] {
        rig.create(name).await;
    }
    let mut watch = rig.watch(watched(&rig.selector()).page_size(2));
    assert_eq!(watch.take(5).await, ["begin", "listed a", "listed b", "listed c", "whole"]);
    rig.create("d").await;
    assert_eq!(watch.next().await, "changed d");
    label(&rig, "a", "b").await;
    assert_eq!(watch.next().await, "changed a");
    rig.pods().delete(&rig.name("b"), &DeleteParams::default().grace_period(0)).await.unwrap();
    // A real server may tell of the pod's last states before.
    while watch.next().await != "gone b" {}
}

#[tokio::test]
async fn an_object_that_leaves_the_selector_is_gone_and_comes_back_as_itself() {
    let rig = Rig::any().await;
    let first = rig.create("a").await;
    let mut watch = rig.watch(watched(&format!("{},app=a", rig.selector())));
    assert_eq!(watch.take(3).await, ["begin", "listed a", "whole"]);
    label(&rig, "a", "else").await;
    assert_eq!(watch.next().await, "gone a");
    let again = label(&rig, "a", "a").await;
    assert_eq!(watch.next().await, "changed a");
    assert_eq!(first.uid(), again.uid());
    let versions = [&first, &again].map(|pod| pod.resource_version().unwrap().parse::<u64>().unwrap());
    assert!(versions[0] < versions[1], "{versions:?}");
}

#[tokio::test]
async fn selectors_mean_what_they_say() {
    let rig = Rig::any().await;
    rig.create("a").await;
    rig.create("b").await;
    label(&rig, "b", "b").await;
    for (terms, expected) in [
        ("app=a", vec!["a"]),
        ("app!=a", vec!["b"]),
        ("app in (a,b)", vec!["a", "b"]),
        ("app notin (a)", vec!["b"]),
        ("app", vec!["a", "b"]),
        ("!app", vec![]),
        ("other!=x", vec!["a", "b"]),
        ("other=", vec![]),
    ] {
        let params = ListParams::default().labels(&format!("{},{terms}", rig.selector()));
        let listed = rig.pods().list(&params).await.unwrap();
        let mut names: Vec<String> = listed.items.iter().map(ResourceExt::name_any).collect();
        names.sort();
        let expected: Vec<String> = expected.into_iter().map(|name| rig.name(name)).collect();
        assert_eq!(names, expected, "{terms}");
    }
    let named = ListParams::default().fields(&format!("metadata.name={}", rig.name("a")));
    assert_eq!(rig.pods().list(&named).await.unwrap().items.len(), 1);
    let wrong = rig.pods().list(&ListParams::default().labels("a=b=c,(")).await.unwrap_err();
    assert!(matches!(&wrong, kube::Error::Api(status) if status.code == 400), "{wrong}");
}

#[tokio::test]
async fn pages_show_the_version_of_the_first() {
    let rig = Rig::any().await;
    for name in ["a", "b", "c"] {
        rig.create(name).await;
    }
    let mut params = ListParams::default().labels(&rig.selector()).limit(2);
    let first = rig.pods().list(&params).await.unwrap();
    rig.create("d").await;
    params.continue_token = first.metadata.continue_.clone();
    let rest = rig.pods().list(&params).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len()), (2, 1));
    assert_eq!(first.metadata.resource_version, rest.metadata.resource_version);
    assert!(rest.metadata.continue_.is_none_or(|token| token.is_empty()));
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark() {
    let rig = Rig::any().await;
    rig.create("a").await;
    rig.create("b").await;
    let mut watch = rig.watch(watched(&rig.selector()).streaming_lists());
    let mut events = watch.take(4).await;
    events[1..3].sort();
    assert_eq!(events, ["begin", "listed a", "listed b", "whole"]);
    rig.create("c").await;
    assert_eq!(watch.next().await, "changed c");
}

#[tokio::test]
async fn a_watch_ends_by_itself_when_its_time_is_over() {
    let rig = Rig::any().await;
    rig.create("a").await;
    let params = WatchParams::default().labels(&rig.selector()).timeout(1);
    let mut events = rig.pods().watch(&params, "0").await.unwrap().boxed();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Added(_)), "{first:?}");
    let end = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    // A watcher goes on from where it was, without a word.
    let mut watch = rig.watch(watched(&rig.selector()).timeout(1));
    assert_eq!(watch.take(3).await, ["begin", "listed a", "whole"]);
    assert!(watch.is_quiet(Duration::from_millis(2500)).await);
    rig.create("b").await;
    assert_eq!(watch.next().await, "changed b");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_its_code() {
    let rig = Rig::any().await;
    let code = |error: kube::Error| match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    };
    let made = rig.create("a").await;
    let twice = rig.pods().create(&PostParams::default(), &rig.pod("a")).await.unwrap_err();
    assert_eq!(code(twice), (409, "AlreadyExists".into()));
    label(&rig, "a", "b").await;
    let stale = rig.pods().replace(&rig.name("a"), &PostParams::default(), &made).await.unwrap_err();
    assert_eq!(code(stale), (409, "Conflict".into()));
    assert_eq!(code(rig.pods().get(&rig.name("none")).await.unwrap_err()), (404, "NotFound".into()));
    let nobody = rig.pods().delete(&rig.name("none"), &DeleteParams::default()).await.unwrap_err();
    assert_eq!(code(nobody), (404, "NotFound".into()));
}

#[tokio::test]
async fn a_status_is_changed_by_itself() {
    let rig = Rig::any().await;
    let mut made = rig.create("a").await;
    assert_eq!(made.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));
    set_address(&rig, "a", "10.9.9.9").await;
    let with_status = rig.pods().get(&rig.name("a")).await.unwrap();
    assert_eq!(with_status.status.as_ref().unwrap().pod_ip.as_deref(), Some("10.9.9.9"));
    // Replacing the object leaves the status alone.
    made.metadata.resource_version = None;
    made.labels_mut().insert("more".into(), "labels".into());
    let replaced = rig.pods().replace(&rig.name("a"), &PostParams::default(), &made).await.unwrap();
    assert_eq!(replaced.status.as_ref().unwrap().pod_ip.as_deref(), Some("10.9.9.9"));
}

async fn set_address(rig: &Rig, name: &str, address: &str) {
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let params = PatchParams::default();
    rig.pods().patch_status(&rig.name(name), &params, &Patch::Merge(&status)).await.unwrap();
}

#[tokio::test]
async fn slices_follow_the_pods_of_a_service() {
    let rig = Rig::any().await;
    let services: Api<Service> = Api::namespaced(rig.client.clone(), &rig.namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(rig.client.clone(), &rig.namespace);
    let name = rig.name("svc");
    let service = json!({"metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"run": rig.run}, "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let pod = rig.create("a").await;
    set_address(&rig, "a", "10.9.9.9").await;
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    for round in 0.. {
        let listed = slices.list(&params).await.unwrap();
        let mut endpoints = listed.items.iter().flat_map(|slice| &slice.endpoints);
        let found = endpoints.find(|endpoint| endpoint.addresses == ["10.9.9.9"]);
        if let Some(endpoint) = found {
            let target = endpoint.target_ref.as_ref().unwrap();
            assert_eq!((target.kind.as_deref(), target.uid.clone()), (Some("Pod"), pod.uid()));
            assert_eq!(endpoint.conditions.as_ref().unwrap().ready, Some(true));
            return;
        }
        assert!(round < 100, "{listed:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
