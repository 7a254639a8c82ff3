//! Nodes that come, vote, lead, leave and lose what they had.

use std::time::Duration;

use kvindex_proto::v1;
use tonic::Code;

use crate::api_server::stored;
use crate::cluster_rig::Rig;

const THREE: [(u64, bool); 3] = [(1, true), (2, true), (3, true)];

/// A cluster of three that holds something, beside so many empty seats.
async fn filled(more: usize) -> Rig {
    let mut rig = Rig::founded().await;
    rig.add_seats(more);
    rig.wait_members(&THREE).await;
    for (number, blocks) in [(0, 3), (1, 5), (2, 7), (3, 2)] {
        let name = format!("w{number}");
        rig.node(0).register(&name).await;
        rig.node(0).push(&name, 0, vec![stored(blocks)]).await;
    }
    rig
}

async fn set_voter(rig: &Rig, through: usize, node_id: u64, voter: bool) -> Result<(), tonic::Status> {
    let request = v1::SetVoterRequest { node_id, voter };
    rig.cluster_client(through).set_voter(request).await.map(|_| ())
}

async fn remove(rig: &Rig, through: usize, node_id: u64, force: bool) -> Result<(), tonic::Status> {
    let request = v1::RemoveNodeRequest { node_id, force };
    rig.cluster_client(through).remove_node(request).await.map(|_| ())
}

/// The seat of a node.
fn seat_of(rig: &Rig, id: u64) -> usize {
    rig.taken().into_iter().find(|seat| rig.id(*seat) == id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_learns_votes_and_leaves_for_good() {
    let mut rig = filled(1).await;
    let before = rig.wait_equal().await;
    rig.start(3).await;
    rig.wait_ready().await;
    assert_eq!(rig.id(3), 4);
    // Three voters are what the cluster shall have, so it follows and answers.
    let learner = [(1, true), (2, true), (3, true), (4, false)];
    rig.wait_members(&learner).await;
    assert_eq!(rig.wait_equal().await, before);
    let status = rig.status(3).await;
    assert!(status.shards.iter().all(|shard| shard.role == "learner"), "{status:?}");
    rig.node(3).register("late").await;
    rig.node(3).push("late", 0, vec![stored(4)]).await;
    set_voter(&rig, 3, 4, true).await.unwrap();
    rig.wait_members(&[(1, true), (2, true), (3, true), (4, true)]).await;
    set_voter(&rig, 0, 4, false).await.unwrap();
    rig.wait_members(&learner).await;
    let unknown = set_voter(&rig, 0, 9, true).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().starts_with("node_id: "), "{unknown}");

    remove(&rig, 1, 4, false).await.unwrap();
    rig.wait("it knows that it was removed", |rig| !rig.waits_for(3).is_empty()).await;
    let (code, text) = rig.node(3).http("GET", "/readyz", "").await;
    assert!(code == 503 && text.contains("was removed") && text.contains("data_dir"), "{code} {text}");
    rig.stop(3).await;
    rig.wait_members(&THREE).await;
    let again = remove(&rig, 2, 4, false).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    // With its data it is nobody; without, somebody new.
    let refused = rig.start_as(3, |_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("was removed") && refused.contains("empty"), "{refused}");
    rig.wipe(3);
    rig.start(3).await;
    rig.wait_ready().await;
    assert_eq!(rig.id(3), 5);
    rig.wait_members(&[(1, true), (2, true), (3, true), (5, false)]).await;
    rig.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_through_any_node() {
    let rig = Rig::founded().await;
    rig.wait("every shard has a leader", |rig| (0..3).all(|shard| rig.leader(shard).is_some())).await;
    for (shard, through) in [(0, 0), (1, 1), (2, 2)] {
        let leader = rig.leader(shard).unwrap();
        let heir = (leader + 1) % 3;
        rig.hand_over(through, shard, heir).await;
        rig.wait("the heir leads", |rig| rig.leader(shard) == Some(heir)).await;
        let heir = rig.id(heir);
        let known = |rig: &Rig, seat| rig.shards(seat)[shard].leader.map(|leader| leader.0);
        rig.wait("everyone knows", |rig| (0..3).all(|seat| known(rig, seat) == Some(heir))).await;
    }
    let refused = async |request| rig.cluster_client(0).hand_over(request).await.unwrap_err();
    let no_shard = refused(v1::HandOverRequest { shard: 99, node_id: 1 }).await;
    assert!(no_shard.message().contains("no shard"), "{no_shard}");
    let no_node = refused(v1::HandOverRequest { shard: 0, node_id: 9 }).await;
    assert!(no_node.message().contains("no vote"), "{no_node}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_data_is_gone_takes_its_old_place_and_vote() {
    let mut rig = filled(0).await;
    let before = rig.wait_equal().await;
    let seat = seat_of(&rig, 2);
    rig.stop(seat).await;
    rig.wipe(seat);
    rig.start(seat).await;
    rig.wait_ready().await;
    assert_eq!(rig.id(seat), 4);
    rig.wait_members(&[(1, true), (3, true), (4, true)]).await;
    assert_eq!(rig.wait_equal().await, before);
    // Without its log it does not know for whom it voted, so it is nobody's either.
    rig.stop(seat).await;
    let data = rig.seats[seat].data.path().to_owned();
    std::fs::remove_dir_all(data.join("log")).unwrap();
    rig.start(seat).await;
    rig.wait_ready().await;
    assert_eq!(rig.id(seat), 5);
    assert!(data.join("aside-1/node.json").exists());
    rig.wait_members(&[(1, true), (3, true), (5, true)]).await;
    // Its vote counts: with it, one of the others may go.
    rig.stop(seat_of(&rig, 1)).await;
    let through = rig.taken()[0];
    rig.node(through).push("w0", 1, vec![stored(4)]).await;
    rig.wait_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_that_the_rest_needs_is_not_taken_without_force() {
    let mut rig = filled(0).await;
    let gone = seat_of(&rig, 3);
    rig.stop(gone).await;
    rig.wait("two lead everything", |rig| (0..3).all(|shard| rig.leader(shard).is_some())).await;
    // Whoever is asked, and whichever shards it leads: one of two voters would be silent.
    for through in rig.taken() {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let refused = remove(&rig, through, 2, false).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            if refused.message().contains("1 of 2 voters would be left")
                && refused.message().contains("force")
            {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{refused}");
        }
    }
    // The silent one may go: two of two answer.
    remove(&rig, rig.taken()[0], 3, false).await.unwrap();
    rig.wait_members(&[(1, true), (2, true)]).await;
    // One more makes it one voter, and no further.
    remove(&rig, seat_of(&rig, 1), 2, true).await.unwrap();
    rig.wait("one is left", |rig| rig.known(seat_of(rig, 1)) == [(1, true)]).await;
    let last = remove(&rig, seat_of(&rig, 1), 1, true).await.unwrap_err();
    assert!(last.message().contains("last voter"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_shards_their_leaders_and_the_log() {
    let mut rig = filled(0).await;
    rig.wait_equal().await;
    let mut led = 0;
    for seat in 0..3 {
        let (_, text) = rig.node(seat).http("GET", "/metrics", "").await;
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            found.unwrap_or_else(|| panic!("{name} not in\n{text}"))
        };
        let shards = rig.shards(seat).len();
        let of_shards = |name: &str| -> Vec<f64> {
            (0..shards).map(|shard| value(&format!("kvindex_{name}{{shard=\"{shard}\"}} "))).collect()
        };
        assert_eq!(of_shards("shard_has_leader"), vec![1.0; shards]);
        assert_eq!(of_shards("shard_behind_entries"), vec![0.0; shards]);
        assert!(of_shards("shard_term").iter().all(|term| *term >= 1.0));
        let leads = of_shards("shard_led").iter().filter(|led| **led > 0.0).count();
        led += leads;
        assert!(value("kvindex_cluster_nodes{vote=\"yes\"} ") > 2.0 && value("kvindex_cluster_size ") > 2.0);
        assert!(
            value("kvindex_log_commit_seconds_count ") > 0.0
                && value("kvindex_log_written_bytes_total ") > 0.0
        );
        assert!(value("kvindex_data_dir_free_bytes ") > 0.0);
        if leads == shards {
            // Four workers were registered and four batches taken in by whoever leads everything.
            assert!(value("kvindex_proposal_seconds_count ") >= 8.0, "{text}");
        }
    }
    assert_eq!(led, rig.shards(0).len(), "each shard has one leader");
}
