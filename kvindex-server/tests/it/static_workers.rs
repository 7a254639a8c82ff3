//! Workers of the configuration file, alone and in a cluster: one that cannot be registered stops neither the others nor
//! the next list, and what waits is tried again.

use std::time::Duration;

use kvindex_core::{GapPolicy, WorkerId};
use kvindex_server::config::Config;
use kvindex_server::{RawWorker, Running, WorkerDefinition};

use crate::api_server::{Server, config};
use crate::cluster_rig::Rig;
use crate::discovery_rig::until;
use crate::ingest_node::free_ports;

fn worker(id: &str, endpoint: &str) -> WorkerDefinition {
    let (worker_id, model, endpoint) = (id.into(), "llama".into(), endpoint.into());
    let raw = RawWorker { worker_id, model, endpoint, ..RawWorker::default() };
    raw.check(GapPolicy::Purge).unwrap()
}

fn workers(ids: &[&str]) -> Vec<WorkerDefinition> {
    ids.iter().map(|id| worker(id, "")).collect()
}

/// The file lists these from now on.
fn list(running: &Running, workers: Vec<WorkerDefinition>) {
    let mut config: Config = running.live_config().now();
    config.workers = workers;
    running.live_config().take(&config, &[]);
}

fn known(running: &Running) -> Vec<String> {
    let known = running.node().known_workers();
    known.iter().map(|known| known.definition.spec.id.to_string()).collect()
}

async fn waiting(server: &Server, change: &str) -> String {
    let (_, metrics) = server.http("GET", "/metrics", "").await;
    let name = format!("kvindex_workers_waiting{{change=\"{change}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_be_followed_at_the_start_stops_neither_the_node_nor_the_others() {
    let port = free_ports(1);
    let squatter = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let listed = vec![worker("bad", &format!("bind+tcp://127.0.0.1:{port}")), worker("good", "")];
    let server = Server::with(config(|config| config.workers = listed)).await;
    assert_eq!(known(&server.running), ["bad", "good"]);
    for _ in 0..100 {
        if waiting(&server, "follow").await == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(waiting(&server, "follow").await, "1");
    drop(squatter);
    until("kvindex binds it", || std::net::TcpListener::bind(("127.0.0.1", port)).is_err()).await;
    for _ in 0..100 {
        if waiting(&server, "follow").await == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(waiting(&server, "follow").await, "0");
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_failed_in_part_is_made_whole_without_another_one() {
    let port = free_ports(1);
    let squatter = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let server = Server::with(config(|config| config.workers = workers(&["old"]))).await;
    let listed = [worker("bad", &format!("bind+tcp://127.0.0.1:{port}")), worker("good", "")];
    list(&server.running, listed.into());
    until("those after it", || known(&server.running) == ["good"]).await;
    assert_eq!(waiting(&server, "enter").await, "1");
    drop(squatter);
    until("tried again", || known(&server.running) == ["bad", "good"]).await;
    server.running.shutdown().await.unwrap();
}

/// Found by a review.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_registered_otherwise_since_stays_when_it_leaves_the_file() {
    let server = Server::with(config(|config| config.workers = workers(&["gone", "kept"]))).await;
    let (worker, replaced) = (r#"{"worker_id": "kept", "model": "other", "replace": true}"#, "replaced");
    let (status, answer) = server.http("POST", "/v1/workers", worker).await;
    assert!(status == 200 && answer.contains(replaced), "{status} {answer}");
    list(&server.running, Vec::new());
    until("the file's goes", || known(&server.running) == ["kept"]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(known(&server.running), ["kept"]);
    server.running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_worker_for_whom_a_cluster_has_no_room_stops_no_later_list() {
    let mut rig = Rig::of(3);
    rig.start_some(0..3, |_, config| config.limits.workers = 2).await;
    rig.wait_ready().await;
    rig.node(1).register("x").await;
    until("x", || known(rig.running(0)) == ["x"]).await;
    list(rig.running(0), workers(&["a", "b"]));
    for seat in 0..3 {
        until("one of them", || known(rig.running(seat)) == ["a", "x"]).await;
    }
    list(rig.running(0), workers(&["c", "d"]));
    until("the next list", || known(rig.running(2)) == ["c", "x"]).await;
    assert_eq!(waiting(rig.node(0), "enter").await, "1");
    let x = WorkerId::new("x").unwrap();
    rig.running(1).cluster().unwrap().unregister(x).await.unwrap();
    for seat in 0..3 {
        until("there is room", || known(rig.running(seat)) == ["c", "d"]).await;
    }
    rig.stop_all().await;
}

/// The list of the start waits for a quorum; so does the one that the file has when that is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_changed_while_there_was_no_quorum_leaves_nothing_of_the_former_one() {
    let ids: Vec<String> = (0..12).map(|number| format!("w{number:02}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut rig = Rig::founded().await;
    for seat in 0..3 {
        rig.stop(seat).await;
    }
    rig.start_some(0..1, |_, config| config.workers = workers(&ids)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    list(rig.running(0), workers(&["last"]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.start_some(1..3, |_, _| ()).await;
    rig.wait_ready().await;
    until("the new list", || known(rig.running(1)).contains(&"last".to_owned())).await;
    // The former list's attempts would have ended by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    until("nothing but the new list", || (0..3).all(|seat| known(rig.running(seat)) == ["last"])).await;
    rig.stop_all().await;
}
