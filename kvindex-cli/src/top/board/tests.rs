#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::*;
use crate::top::page::Page;

fn stream(generation: u64, applied_seq: Option<u64>) -> v1::WorkerStream {
    let trust = v1::Trust {
        state: TrustState::Live.into(),
        generation,
        applied_seq,
        lag_ms: 3,
        ..v1::Trust::default()
    };
    v1::WorkerStream { trust: Some(trust), blocks: 100, ..v1::WorkerStream::default() }
}

fn shard(applied: Option<u64>) -> v1::ShardState {
    let member = |node_id| v1::ShardMember { node_id, voter: node_id < 3, matched: None };
    let members = vec![member(1), member(2), member(3)];
    v1::ShardState { role: "leader".into(), leader: 1, applied, members, ..v1::ShardState::default() }
}

fn look(at: Instant, streams: &[(&str, u64, Option<u64>)], applied: Option<u64>) -> Look {
    let worker = |(id, generation, seq): &(&str, u64, Option<u64>)| v1::Worker {
        worker_id: (*id).into(),
        streams: vec![stream(*generation, *seq)],
        ..v1::Worker::default()
    };
    let cluster = v1::ClusterStatusResponse {
        cluster_id: "c".into(),
        node_id: 1,
        shards: vec![shard(applied)],
        ..v1::ClusterStatusResponse::default()
    };
    let page =
        "kvindex_api_call_seconds_bucket{le=\"+Inf\",method=\"match\"} 0\nprocess_cpu_seconds_total 1.0\n";
    let workers = streams.iter().map(worker).collect();
    Look { at, workers, cluster: Ok(cluster), page: Ok(Page::read(page)), hot: None }
}

#[test]
fn rates_are_of_the_time_between_two_looks() {
    let start = Instant::now();
    let before = look(start, &[("a", 1, None), ("b", 1, Some(9)), ("c", 1, Some(9))], Some(100));
    let streams = [("a", 1, Some(3)), ("b", 2, Some(11)), ("c", 1, Some(9)), ("d", 1, Some(5))];
    let mut now = look(start + Duration::from_secs(2), &streams, Some(150));
    now.page = Ok(Page::read(
        "kvindex_api_call_seconds_bucket{le=\"+Inf\",method=\"match\"} 40\nprocess_cpu_seconds_total 1.5\n",
    ));
    let board = Board::new("http://n", &now, Some(&before));
    let rates: Vec<Option<f64>> = board.workers.iter().map(|row| row.batches_per_s).collect();
    // Four batches from none; another life; none; not known before.
    assert_eq!(rates, [Some(2.0), None, Some(0.0), None]);
    assert_eq!(board.shards[0].entries_per_s, Some(25.0));
    assert_eq!((board.shards[0].voters, board.shards[0].members), (2, 3));
    let node = &board.node;
    assert_eq!((node.workers, node.live, node.blocks, node.leads), (4, 4, 400, 1));
    assert_eq!(
        (node.batches_per_s, node.questions_per_s, node.cpu_percent),
        (Some(2.0), Some(20.0), Some(25.0))
    );
    assert_eq!((node.p50_ms, board.notes.len()), (None, 0));
}

#[test]
fn a_first_look_has_no_rates() {
    let board = Board::new("http://n", &look(Instant::now(), &[("a", 1, Some(3))], Some(1)), None);
    assert_eq!((board.workers[0].batches_per_s, board.node.batches_per_s), (None, None));
    assert_eq!((board.shards[0].entries_per_s, board.node.questions_per_s), (None, None));
}

#[test]
fn what_cannot_be_had_is_said_and_the_rest_is_shown() {
    let mut now = look(Instant::now(), &[("a", 1, Some(3))], Some(1));
    (now.cluster, now.page) = (Err("no right".into()), Err("no metrics".into()));
    now.workers.push(v1::Worker { worker_id: "silent".into(), ..v1::Worker::default() });
    let board = Board::new("http://n", &now, Some(&now.clone()));
    assert_eq!(board.notes, ["no right", "no metrics"]);
    assert_eq!((board.shards.len(), board.node.cluster_id.clone(), board.node.bytes), (0, None, None));
    assert_eq!((board.node.workers, board.node.streams, board.workers.len()), (2, 1, 2));
    assert_eq!((board.workers[1].dp_rank, board.workers[1].trust), (None, "-"));
}

#[test]
fn hot_prefixes_and_the_nodes_own_count_of_questions_are_taken() {
    let mut now = look(Instant::now(), &[], None);
    let prefix = v1::HotPrefix {
        model: "llama".into(),
        sequence_hash: 0xab,
        blocks: 3,
        tokens: 48,
        per_s: 7.5,
        share: 0.25,
        held_by: 2,
        ..v1::HotPrefix::default()
    };
    now.hot = Some(v1::HotPrefixesResponse { prefixes: vec![prefix], questions_per_s: 30.0 });
    let board = Board::new("http://n", &now, None);
    assert_eq!(board.node.questions_per_s, Some(30.0));
    let hot = &board.hot[0];
    assert_eq!((hot.sequence_hash.as_str(), hot.blocks, hot.held_by), ("00000000000000ab", 3, 2));
}
