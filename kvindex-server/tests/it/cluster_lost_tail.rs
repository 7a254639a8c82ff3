//! Logs that have lost their end: an old copy of a node's data, and a loss of power under a durability that does not
//! wait for the disk. Whoever promised more than it knows joins anew; where nobody knows more, all go on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kvindex_core::replication::log_store::Durability;

use crate::api_server::stored;
use crate::cluster_rig::Rig;

async fn fill(rig: &mut Rig, from: u64) {
    for number in 0..6 {
        let name = format!("w{number}");
        if from == 0 {
            rig.node(0).register(&name).await;
        }
        rig.node(0).push(&name, from, vec![stored(3)]).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(|_| ()).unwrap() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_put_aside_and_leaders_go_on() {
    let mut rig = Rig::founded().await;
    fill(&mut rig, 0).await;
    rig.wait_equal().await;
    let old_id = rig.id(2);
    rig.stop(2).await;
    let backup = rig.seats[2].data.path().with_extension("backup");
    copy(rig.seats[2].data.path(), &backup);
    rig.start(2).await;
    rig.wait_ready().await;
    fill(&mut rig, 1).await;
    rig.wait_equal().await;
    rig.stop(2).await;

    rig.wipe(2);
    copy(&backup, rig.seats[2].data.path());
    fs::remove_dir_all(&backup).unwrap();
    rig.start(2).await;
    assert_eq!(rig.id(2), old_id);
    let cluster = rig.node(2).running.cluster().unwrap().clone();
    let failure = tokio::time::timeout(Duration::from_secs(20), cluster.until_failed()).await.unwrap();
    assert!(failure.contains("has this node's word for entry"), "{failure}");
    drop(cluster);
    rig.stop(2).await;
    assert!(rig.seats[2].data.path().join("aside-1/node.json").exists());
    // The others did not mind.
    fill(&mut rig, 2).await;
    rig.start(2).await;
    rig.wait_ready().await;
    assert_ne!(rig.id(2), old_id);
    fill(&mut rig, 3).await;
    rig.wait_equal().await;
}

/// What a machine leaves that lost power: a log that was not closed, of an earlier boot.
fn lose_power(data: &Path) {
    let path = data.join("log/log-store");
    let marker = fs::read_to_string(&path).unwrap();
    assert!(marker.contains("\nfsync no\n") && marker.contains("\nphase closed\n"), "{marker}");
    let boot = marker.lines().find(|line| line.starts_with("boot ")).unwrap();
    fs::write(&path, marker.replace("phase closed", "phase open").replace(boot, "boot an-earlier-one"))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_of_power_everywhere_all_go_on_and_after_one_elsewhere_it_joins_anew() {
    let asynchronous =
        |cluster: &mut kvindex_server::config::ClusterConfig| cluster.durability = Durability::ASYNC;
    let mut rig = Rig::of(3);
    rig.start_all(asynchronous).await;
    rig.wait_ready().await;
    fill(&mut rig, 0).await;
    let before = rig.wait_equal().await;
    let ids: Vec<u64> = (0..3).map(|seat| rig.id(seat)).collect();
    rig.stop_all().await;
    (0..3).for_each(|seat| lose_power(rig.seats[seat].data.path()));
    rig.start_all(asynchronous).await;
    rig.wait_ready().await;
    assert_eq!(rig.wait_equal().await, before);
    assert_eq!((0..3).map(|seat| rig.id(seat)).collect::<Vec<_>>(), ids);

    rig.stop(1).await;
    lose_power(rig.seats[1].data.path());
    fill(&mut rig, 1).await;
    rig.start_as(1, asynchronous).await.unwrap();
    rig.wait_ready().await;
    assert!(!ids.contains(&rig.id(1)));
    assert!(rig.seats[1].data.path().join("aside-1/log").exists());
    rig.wait_equal().await;
    // The doubt of those who went on is over: they come back at once, and as who they are.
    rig.stop(0).await;
    rig.start_as(0, asynchronous).await.unwrap();
    assert_eq!(rig.id(0), ids[0]);
}
